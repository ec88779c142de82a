"""Text in, profile out: the detectors that say which values a text expresses."""

from valign.detect.errors import DetectorError, MissingEncoderError
from valign.detect.loading import available_detectors, check_detector, load_detector
from valign.detect.types import Detector

__all__ = [
    "Detector",
    "DetectorError",
    "MissingEncoderError",
    "available_detectors",
    "check_detector",
    "load_detector",
]

"""From a detector's name to the detector, and the check that it speaks of the right values."""

from __future__ import annotations

import difflib
from pathlib import Path

from valign.detect.errors import DetectorError
from valign.detect.types import Detector
from valign.values import ValueSystem

NAMES = ("wordlist", "english-a", "english-b", "world")


def available_detectors() -> tuple[str, ...]:
    """Names that `load_detector` knows; it also takes a path."""
    return NAMES


def load_detector(name_or_path: str | Path, *, system: str | ValueSystem | None = None) -> Detector:
    """A detector by name, or from a file.

    Args:
        name_or_path: `wordlist` (baseline), `english-a` (the one that tunes), `english-b` (the one
            that judges), `world` (the exact reader of the generated world), a folder that
            `python -m valign.detect.train` wrote, or a `.json` of word lists.
        system: the values to read. Word lists take any system; the English detectors read
            `schwartz10` (default) or `schwartz19`.

    Raises:
        DetectorError: no such detector, or one that does not read that system.
    """
    name = str(name_or_path)
    if name == "wordlist":
        from valign.detect.wordlist import WordListDetector

        return WordListDetector.from_system(system or "schwartz10")
    wanted = system.name if isinstance(system, ValueSystem) else system
    found: Detector
    if name == "world":
        from valign.world.detector import WorldDetector

        found = WorldDetector()
    elif name.startswith("english-") and name in NAMES:
        from valign.detect.encoder import EncoderDetector

        found = EncoderDetector.bundled(name, system=wanted or "schwartz10")
    elif Path(name).suffix == ".json" and Path(name).is_file():
        from valign.detect.wordlist import WordListDetector

        return WordListDetector.from_dictionary(name, system or "schwartz10")
    elif Path(name).is_dir():
        from valign.detect.encoder import EncoderDetector

        found = EncoderDetector.load(name, system=wanted or "schwartz10")
    else:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise DetectorError(
            f"No detector {name!r}.{hint} There are: {', '.join(NAMES)}; or give the folder of a "
            "trained one, or a .json of word lists."
        )
    if wanted is not None and found.system.name != wanted:
        raise _other_system(found, wanted)
    return found


def check_detector(detector: Detector, system: ValueSystem) -> Detector:
    """The detector itself, once it is known to read exactly these values in this order.

    Raises:
        DetectorError: it reads another system; numbers would be put under the wrong names.
    """
    if detector.system.name != system.name or detector.system.names != system.names:
        raise _other_system(detector, system.name)
    return detector


def _other_system(detector: Detector, wanted: str) -> DetectorError:
    return DetectorError(
        f"{detector.name} reads {detector.system.name}, the profile speaks of {wanted}. "
        f"State the profile in {detector.system.name}, or take a detector of {wanted}: "
        f"`wordlist` reads any system, `english-a` and `english-b` read schwartz10 and schwartz19."
    )

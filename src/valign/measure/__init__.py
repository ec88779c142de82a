"""Pure functions from arrays to numbers: control, leakage, tax, fluency, Pareto, cost."""

from valign.measure.bootstrap import Estimates, Resampling
from valign.measure.control import ControlMatrix, Paired, control_matrix
from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate
from valign.measure.leakage import Leakage, leakage, see_slopes

__all__ = [
    "ControlMatrix",
    "Estimate",
    "Estimates",
    "Leakage",
    "MeasureError",
    "Paired",
    "Resampling",
    "control_matrix",
    "leakage",
    "see_slopes",
]

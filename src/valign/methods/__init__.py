"""How controls are fitted: one file per method."""

from valign.methods.base import Method
from valign.methods.errors import FitError, MethodSettingError, UnknownMethodError
from valign.methods.registry import available_methods, get_method, method_class

__all__ = [
    "FitError",
    "Method",
    "MethodSettingError",
    "UnknownMethodError",
    "available_methods",
    "get_method",
    "method_class",
]

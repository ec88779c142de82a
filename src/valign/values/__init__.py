"""What a value is: systems as data files, circle geometry, profiles."""

from valign.values.convert import convert
from valign.values.errors import (
    ConversionError,
    NoCircleError,
    ProfileError,
    SystemFileError,
    UnknownValueError,
    ValignError,
)
from valign.values.load import available_systems, load_system
from valign.values.profile import Profile
from valign.values.system import Relation, Value, ValueSystem

__all__ = [
    "ConversionError",
    "NoCircleError",
    "Profile",
    "ProfileError",
    "Relation",
    "SystemFileError",
    "UnknownValueError",
    "ValignError",
    "Value",
    "ValueSystem",
    "available_systems",
    "convert",
    "load_system",
]

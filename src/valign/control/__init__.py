"""What a fitted method is: edits, gates, controls, and how they are kept."""

from valign.control.bridge import BridgeControl
from valign.control.control import Control, EditsControl, Kind, TextControl
from valign.control.edit import Edit, EditError, Gate, Site
from valign.control.rewrite import RewriteControl
from valign.control.saving import ControlFileError, load
from valign.control.weights import Adapter, AdapterError, LowRank, WeightsControl, from_peft

__all__ = [
    "Adapter",
    "AdapterError",
    "BridgeControl",
    "Control",
    "ControlFileError",
    "Edit",
    "EditError",
    "EditsControl",
    "Gate",
    "Kind",
    "LowRank",
    "RewriteControl",
    "Site",
    "TextControl",
    "WeightsControl",
    "from_peft",
    "load",
]

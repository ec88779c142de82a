"""valign: dial the human values a language model expresses, and measure what it costs.

import valign

lm = valign.HostModel.load("Qwen/Qwen2.5-0.5B-Instruct")
corpus = valign.load_corpus("valuetexts")
target = valign.Profile.parse("benevolence=+1", corpus.system)
control = valign.get_method("caa").fit(lm, corpus, target)
print(valign.generate(lm, ["Should I lend my neighbour the money?"], control).texts[0])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "Control": "valign.control",
    "Corpus": "valign.corpora",
    "DoseMeter": "valign.lm",
    "Edit": "valign.control",
    "EditsControl": "valign.control",
    "Estimate": "valign.measure",
    "Gate": "valign.control",
    "Generation": "valign.lm",
    "HostModel": "valign.lm",
    "LayoutNames": "valign.lm",
    "Method": "valign.methods",
    "Profile": "valign.values",
    "Results": "valign.study.results",
    "Site": "valign.control",
    "TextControl": "valign.control",
    "Translator": "valign.translate",
    "ValignError": "valign.values",
    "ValueSystem": "valign.values",
    "generate": "valign.lm",
    "get_method": "valign.methods",
    "load_control": "valign.control",
    "load_corpus": "valign.corpora",
    "load_detector": "valign.detect",
    "load_system": "valign.values",
    "stream": "valign.lm",
}
"""Public name -> the room it lives in; imported when first asked for, so that help is instant."""

__all__ = [
    "Control",
    "Corpus",
    "DoseMeter",
    "Edit",
    "EditsControl",
    "Estimate",
    "Gate",
    "Generation",
    "HostModel",
    "LayoutNames",
    "Method",
    "Profile",
    "Results",
    "Site",
    "TextControl",
    "Translator",
    "ValignError",
    "ValueSystem",
    "__version__",
    "generate",
    "get_method",
    "load_control",
    "load_corpus",
    "load_detector",
    "load_system",
    "stream",
]

if TYPE_CHECKING:
    from valign.control import Control, Edit, EditsControl, Gate, Site, TextControl
    from valign.control import load as load_control
    from valign.corpora import Corpus, load_corpus
    from valign.detect import load_detector
    from valign.lm import DoseMeter, Generation, HostModel, LayoutNames, generate, stream
    from valign.measure import Estimate
    from valign.methods import Method, get_method
    from valign.study.results import Results
    from valign.translate import Translator
    from valign.values import Profile, ValignError, ValueSystem, load_system


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'valign' has no attribute {name!r}")
    source = "load" if name == "load_control" else name
    found = getattr(import_module(_WHERE[name]), source)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)

"""The test world: a generator whose values, facts and harm are known, and its reference model."""

from .generator import World
from .ideal import ideal_presence
from .items import Item, Truth
from .judge import Reading, WorldJudge
from .lexicon import VALUES
from .shipped import reference_path

__all__ = [
    "VALUES",
    "Item",
    "Reading",
    "Truth",
    "World",
    "WorldJudge",
    "ideal_presence",
    "reference_path",
]

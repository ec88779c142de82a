"""The short notation that labelled instructions are written in: `BE++ PO- | less me, more us`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from valign.translate.errors import TranslatorError

CODES = {
    "SD": "self-direction", "ST": "stimulation", "HE": "hedonism", "AC": "achievement",
    "PO": "power", "SE": "security", "CO": "conformity", "TR": "tradition",
    "BE": "benevolence", "UN": "universalism",
}  # fmt: skip
STEPS = {"++": 1.0, "+": 0.5, "-": -0.5, "--": -1.0}
"""How much each sign stands for: the grid of the labelled shifts."""


@dataclass(frozen=True)
class Labelled:
    """An instruction with the shift it asks for.

    Attributes:
        shift: (value, change) pairs; empty where nothing about values was asked.
        source: the file or the recipe it comes from.
    """

    text: str
    shift: tuple[tuple[str, float], ...]
    source: str

    @property
    def changes(self) -> dict[str, float]:
        """The shift as a mapping."""
        return dict(self.shift)


def read_labelled(path: Path) -> Iterator[Labelled]:
    """Rows of a file: `CODES | text`, or plain lines that ask for nothing; `#` starts a remark.

    Raises:
        TranslatorError: a code or step that is none, with file and line.
    """
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        codes, bar, text = line.partition("|")
        if not bar:
            codes, text = "", line
        shift = []
        for code in codes.split():
            value, step = CODES.get(code[:2]), STEPS.get(code[2:])
            if value is None or step is None:
                raise TranslatorError(
                    f"{path.name}, line {number}: {code!r} is no shift. Write for example BE++ or "
                    f"PO-; the values are {', '.join(CODES)}."
                )
            shift.append((value, step))
        yield Labelled(text.strip(), tuple(shift), path.stem)

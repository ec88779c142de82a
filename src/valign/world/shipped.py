"""Where the shipped reference model lies; to everybody else it is a model folder like any other."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from valign.values import ValignError


class MissingReferenceError(ValignError, FileNotFoundError):
    """The package was installed without its reference model."""


def reference_path() -> Path:
    """Folder of the reference model, in Hugging Face format.

    Raises:
        MissingReferenceError: it is not there; the message says how to make it.
    """
    folder = Path(str(resources.files("valign.world") / "reference"))
    if not (folder / "config.json").is_file():
        raise MissingReferenceError(
            f"No reference model in {folder}. Make it again with `python -m valign.world.train "
            "--out DIR`, or reinstall valign."
        )
    return folder

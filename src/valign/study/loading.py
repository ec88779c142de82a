"""From names to what a study is made of: models, batteries."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from valign.lm import HostModel
    from valign.study.battery import Battery


def load_model(name: str, dtype: str = "auto", *, trust_remote_code: bool = False) -> HostModel:
    """A model by folder or Hub name; `reference` is short for the folder shipped in the package."""
    from transformers.utils import logging

    from valign.lm import HostModel

    logging.disable_progress_bar()  # one bar at a time, and only valign's
    path = name
    if name == "reference":
        from valign.world import reference_path

        path = str(reference_path())
    lm = HostModel.load(path, dtype=dtype, trust_remote_code=trust_remote_code)
    lm.name = name  # of the shipped one: the same on every machine
    return lm


def load_battery(corpus: str, detector: str | None = None) -> Battery:
    """What is asked and who judges: the world's exact parser, or a corpus with a detector.

    Raises:
        BatteryError: a detector named for the world, which its parser judges.
    """
    if corpus == "world":
        if detector not in (None, "world"):
            from valign.study.battery import BatteryError

            raise BatteryError(
                f"The world is judged by its own parser, not by {detector!r}. Leave --detector "
                "out, or ask real text with --corpus valuetexts."
            )
        from valign.study.world import WorldBattery

        return WorldBattery()
    from valign.corpora import load_corpus
    from valign.detect import load_detector
    from valign.study.battery import TextBattery

    return TextBattery(load_corpus(corpus), load_detector(detector or "english-b"))


def default_corpus(model: str) -> str:
    """The world for the model that was trained on it, the bundled value texts for all others."""
    return "world" if model == "reference" else "valuetexts"

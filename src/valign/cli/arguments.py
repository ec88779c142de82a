"""Turning what was typed into objects: models, targets, corpora, batteries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from valign.cli.console import errors
from valign.values import Profile, ProfileError, ValueSystem

if TYPE_CHECKING:
    from valign.control import Control
    from valign.lm import HostModel
    from valign.study.battery import Battery


def load_model(name: str, dtype: str = "auto", *, trust_remote_code: bool = False) -> HostModel:
    """A model by folder or Hub name; `reference` is short for the folder shipped in the package."""
    from transformers.utils import logging

    from valign.lm import HostModel

    logging.disable_progress_bar()  # one bar at a time, and only valign's
    if name == "reference":
        from valign.world import reference_path

        name = str(reference_path())
    return HostModel.load(name, dtype=dtype, trust_remote_code=trust_remote_code)


def load_control(path: Path, lm: HostModel) -> Control:
    """A control from a file or folder, with a warning where it was fitted on another model.

    A fine-tuned checkpoint may well run the control of its base model, so that is no error.

    Raises:
        ControlFileError: no control there, or a damaged one.
        UnsupportedSiteError: its shapes do not fit the model.
    """
    from valign.control import EditsControl, load
    from valign.lm.steer import check_edits

    control = load(path)
    if isinstance(control, EditsControl):
        check_edits(lm, control)
    made_on = control.provenance.get("model_fingerprint")
    if made_on not in (None, lm.fingerprint):
        errors.print(
            f"[yellow]warning:[/] {escape(str(path))} was fitted on another model or number type "
            f"({escape(str(control.provenance.get('model')))}); its dose does not hold here.",
            highlight=False,
            soft_wrap=True,
        )
    return control


def battery(corpus: str, detector: str | None) -> Battery:
    """What is asked and who judges: the world's exact parser, or a corpus with a detector.

    Raises:
        BadParameter: a detector named for the world, which its parser judges.
    """
    if corpus == "world":
        if detector not in (None, "world"):
            raise typer.BadParameter(
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


def targets(system: ValueSystem, toward: list[str], away: list[str]) -> list[Profile]:
    """One profile from `--toward` and `--away`, or one per value from `--toward each`.

    Raises:
        ProfileError: nothing named, or `each` mixed with names.
        UnknownValueError: a name the system does not hold.
    """
    if "each" in toward:
        if len(toward) > 1 or away:
            raise ProfileError("`--toward each` stands alone: it steers to every value in turn.")
        return [Profile.from_mapping(system, {name: 1.0}) for name in system.names]
    if not toward and not away:
        raise ProfileError(
            "Nothing to steer to. Name a value with --toward or --away, for example "
            f"--toward {system.names[0]}; `valign values {system.name}` lists them."
        )
    wanted: dict[str, Any] = {}
    for text, sign in [(t, 1.0) for t in toward] + [(t, -1.0) for t in away]:
        for name, score in Profile.parse(text, system).named.items():
            if name in wanted:
                raise ProfileError(f"{name} is named twice; give it once.")
            wanted[name] = sign * score
    return [Profile.from_mapping(system, wanted)]

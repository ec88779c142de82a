"""Turning what was typed into objects: models, targets, corpora, batteries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from valign.cli.console import errors
from valign.study.loading import default_corpus, load_model
from valign.study.loading import load_battery as battery
from valign.values import Profile, ProfileError, ValueSystem

if TYPE_CHECKING:
    from valign.control import Control
    from valign.lm import HostModel

__all__ = ["battery", "default_corpus", "load_control", "load_model", "targets"]


def load_control(path: Path, lm: HostModel) -> Control:
    """A control from a file or folder, with a warning where it was fitted on another model.

    A fine-tuned checkpoint may well run the control of its base model, so that is no error.

    Raises:
        ControlFileError: no control there, or a damaged one.
        UnsupportedSiteError: its shapes do not fit the model.
    """
    from valign.control import load
    from valign.lm.kinds import check

    control = load(path)
    check(lm, control)
    made_on = control.provenance.get("model_fingerprint")
    if made_on not in (None, lm.fingerprint):
        errors.print(
            f"[yellow]warning:[/] {escape(str(path))} was fitted on another model or number type "
            f"({escape(str(control.provenance.get('model')))}); its dose does not hold here.",
            highlight=False,
            soft_wrap=True,
        )
    return control


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

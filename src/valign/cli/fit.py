"""`valign fit`: one method fitted on one model, its control saved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from valign.cli.options import DTYPE, TRUST_REMOTE_CODE

if TYPE_CHECKING:
    from valign.control import Control
    from valign.corpora.types import Corpus
    from valign.lm import HostModel
    from valign.methods.base import Method

UNFINISHED = ".unfinished"
"""Folder of what a fit keeps until it is done, beside its control; no name that a user takes."""


def register(app: typer.Typer) -> None:
    app.command("fit")(fit)


def fit(
    method: str = typer.Argument(
        ..., help="Method name (`valign methods` lists them), or rlev (`valign methods rlev`)."
    ),
    model: str = typer.Option(
        "reference", "--model", "-m", help="Folder or Hub name; `reference` is the shipped one."
    ),
    toward: list[str] = typer.Option(
        [], "--toward", help="Value or profile to move to, e.g. benevolence=+1; repeatable."
    ),
    away: list[str] = typer.Option([], "--away", help="Value or profile to move away from."),
    values: str | None = typer.Option(
        None, "--values", help="a,b[,c]: values to move to, fully and alike; for `mva` and its kin."
    ),
    out: Path = typer.Option(..., "--out", "-o", help="Folder; gets control.safetensors."),
    dose: float | None = typer.Option(
        None,
        "--dose",
        help="Also set it to a dose, in nats, on dilemmas of the corpus.",
    ),
    setting: list[str] = typer.Option([], "--set", help="key=value, repeatable."),
    corpus: str | None = typer.Option(
        None,
        "--corpus",
        help="What to fit on: valuetexts, world, world-harm, world-preferences, your own folder, "
        "or preference data: hh-rlhf:helpful=FILE,harmless=FILE, pku-saferlhf:FILE, fulcra:FILE "
        "(or Hub ids). For rlev: world, or JSONL or CSV with prompt, answer and value in [0, 1].",
    ),
    seed: int = typer.Option(0, "--seed", help="Of generated corpora."),
    dtype: str = DTYPE,
    trust_remote_code: bool = TRUST_REMOTE_CODE,
    json: bool = typer.Option(False, "--json", help="Print the control's provenance."),
) -> None:
    """Fit one method and save the control; nothing is measured but the dose, if one is asked for.

    A fit that was stopped goes on where it was, if the method keeps checkpoints (they lie in the
    folder until it is done). `rlev` trains on questions that are worth different amounts instead of
    towards a value, and tells what it got right before and after.
    """
    if method == "rlev":
        _without_values(toward, away, values, dose)
        from valign.cli.fit_rlev import fit_rlev

        fit_rlev(
            model=model, out=out, corpus=corpus, setting=setting, seed=seed, dtype=dtype,
            trust_remote_code=trust_remote_code, json=json,
        )  # fmt: skip
        return
    import json as json_module
    import shutil

    from rich.markup import escape

    from valign.cli.arguments import default_corpus, load_model, targets
    from valign.cli.console import out as console
    from valign.cli.console import progress_bar
    from valign.methods import MethodSettingError, method_class
    from valign.methods.progress import listening
    from valign.values import ProfileError

    chosen = method_class(method)
    if dose is not None and not chosen.has_strength:
        raise MethodSettingError(f"{method} has no strength to set a dose with; leave --dose out.")
    given = [text.removeprefix(f"{method}.") for text in setting]
    fitter, unfinished = _placed(chosen.from_strings(given), out)
    if "each" in toward:
        raise ProfileError(
            "`valign fit` makes one control; name its values. `valign run --toward each` measures "
            "a control for each."
        )
    toward = [*toward, *(value.strip() for value in (values or "").split(",") if value.strip())]
    texts = _corpus(corpus or default_corpus(model), seed, toward)
    (target,) = targets(texts.system, toward, away)
    _take_device()
    lm = load_model(model, dtype, trust_remote_code=trust_remote_code)
    with progress_bar("steps") as bar:
        task = bar.add_task("fitting", total=None)

        def heard(what: str, done: int, total: int) -> None:
            bar.update(task, description=escape(f"fitting: {what}"), completed=done, total=total)

        with listening(heard):
            control = fitter.fit(lm, texts, target)
            if not _first_process():
                return  # under `accelerate launch` one process writes
            if dose is not None:
                heard("dose", 0, 0)
                control = _dosed(lm, control, texts, dose)
    path = control.save(out)
    if unfinished is not None:
        shutil.rmtree(unfinished, ignore_errors=True)
    if json:
        typer.echo(json_module.dumps(control.provenance, indent=1))
        return
    console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    say_how_to_try(model, path, trust_remote_code)


def say_how_to_try(model: str, path: Path, trust_remote_code: bool) -> None:
    """The command that uses a fresh control, on standard error."""
    from valign.cli.console import errors

    trusted = " --trust-remote-code" if trust_remote_code else ""
    errors.print(
        f"Try it: valign generate --model {model}{trusted} --control {path} PROMPT",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def _placed(fitter: Method, out: Path) -> tuple[Method, Path | None]:
    """The method with folders for what it keeps, where none was named; what to remove when done."""
    own: dict[str, Path] = {}
    if getattr(fitter, "checkpoint", ...) is None:
        own["checkpoint"] = out / UNFINISHED
    if getattr(fitter, "folder", ...) is None:
        own["folder"] = out  # what is too large for the control lies beside it
    return fitter.model_copy(update=own), own.get("checkpoint")


def _without_values(
    toward: list[str], away: list[str], values: str | None, dose: float | None
) -> None:
    """Refuse what `rlev` has no use for.

    Raises:
        MethodSettingError: names the option.
    """
    from valign.methods import MethodSettingError

    given = {"--toward": toward, "--away": away, "--values": values, "--dose": dose is not None}
    for option, there in given.items():
        if there:
            raise MethodSettingError(
                f"rlev moves no human value: its questions are worth different amounts. Leave "
                f"{option} out."
            )


def _dosed(lm: HostModel, control: Control, texts: Corpus, dose: float) -> Control:
    """The control at a dose, measured on dilemmas of its corpus.

    Raises:
        FitError: the corpus has none.
    """
    from valign.lm import DoseMeter
    from valign.methods import FitError

    if not texts.dilemmas:
        raise FitError(
            f"The corpus {texts.name} has no dilemmas to set a dose on. Leave --dose out, or add "
            "some; 20 are a start."
        )
    prompts = [d.text for d in texts.dilemmas[:: max(1, len(texts.dilemmas) // 24)][:24]]
    return DoseMeter(lm, prompts).set(control, dose)


def _first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _take_device() -> None:
    """One GPU a process, where several were started by `accelerate launch`."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        PartialState()


def _corpus(name: str, seed: int, toward: list[str]) -> Corpus:
    """A corpus by the names of `load_corpus`, of the world's other texts, or preference data."""
    from valign.corpora.preferences import FORMATS, read_preferences

    form, colon, place = name.partition(":")
    if colon and form in FORMATS:
        return read_preferences(form, place)
    if name == "world-preferences":
        from valign.values import Profile, load_system
        from valign.world.preferences import preference_corpus

        system = load_system("schwartz10")
        wanted = dict.fromkeys(v for text in toward for v in Profile.parse(text, system).named)
        return preference_corpus(list(wanted), seed=seed)
    if name == "world-harm":
        from valign.methods.svgt.harm import world_harm

        return world_harm(seed)
    from valign.corpora import load_corpus

    return load_corpus(name, seed=seed)

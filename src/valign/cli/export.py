"""`valign export`: a control in a format other people run, with a certificate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from valign.cli.console import errors, out
from valign.cli.options import TRUST_REMOTE_CODE

if TYPE_CHECKING:
    from valign.control import Control
    from valign.deploy import Certificate
    from valign.lm import HostModel


def register(app: typer.Typer) -> None:
    app.command("export")(export)


def export(
    control: list[Path] = typer.Argument(
        ..., help="A control file, or a folder that holds control.safetensors; vllm takes several."
    ),
    to: str = typer.Option(..., "--to", help="folded, peft, gguf, prompt or vllm."),
    folder: Path = typer.Option(..., "--out", "-o", help="A new folder."),
    model: str = typer.Option("reference", "--model", "-m", help="Folder or Hub name."),
    everywhere: bool = typer.Option(
        False, "--everywhere", help="Let edits of the answer act on the whole prompt too."
    ),
    file: Path | None = typer.Option(
        None, "--prompts", "-f", help="Prompts to compare on, one a line; else the corpus's."
    ),
    corpus: str | None = typer.Option(None, "--corpus", help="Where held-out prompts come from."),
    tokens: int = typer.Option(16, "--tokens", min=1, help="Longest answer that is compared."),
    trust_remote_code: bool = TRUST_REMOTE_CODE,
    json: bool = typer.Option(False, "--json", help="Print the certificate."),
) -> None:
    """Write a control as weights, an adapter, a control vector, a prompt or a vLLM bundle.

    The files are read back and compared with the hooked model on held-out prompts. If they do not
    do the same, nothing is written and the exit code is 1; a control the format cannot hold is
    refused with exit code 2.
    """
    from valign.cli.arguments import load_control, load_model

    prompts = held_out(file, corpus, model)
    lm = load_model(model, "float32", trust_remote_code=trust_remote_code)
    controls = {profile_name(path): load_control(path, lm) for path in control}
    if len(controls) < len(control):
        raise typer.BadParameter("Two controls have the same file name; rename one.")
    made = write(
        lm, controls, to=to, out=folder, prompts=prompts, everywhere=everywhere, tokens=tokens
    )
    if json:
        typer.echo((folder / "certificate.json").read_text("utf-8"), nl=False)
        return
    say_certificate(made, folder)
    if made.widened:
        errors.print(
            f"Widened to the whole prompt: up to {made.widened:.2g} logits from the control that "
            "was given. Measure its dose anew before you quote one.",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip


def write(lm: HostModel, controls: Mapping[str, Control], **options: Any) -> Certificate:
    """`valign.deploy.export`; a certificate that does not hold ends the program with 1."""
    from valign.deploy import CertificateError, export

    try:
        return export(lm, controls, **options)
    except CertificateError as error:
        errors.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def say_certificate(made: Certificate, folder: Path) -> None:
    """Where the files are, and how close they came."""
    out.print(str(folder), markup=False, highlight=False, soft_wrap=True)
    out.print(
        f"certificate: {made.positions} positions of {made.prompts} prompts, greedy tokens equal, "
        f"logits within {made.max_logit_difference:.1e} (the control moves them by up to "
        f"{made.effect:.2g})",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def held_out(file: Path | None, corpus: str | None, model: str) -> list[str]:
    """The lines of a file, or eight dilemmas and neutral questions of a corpus's test half."""
    from valign.cli.arguments import default_corpus
    from valign.cli.textfile import read_lines
    from valign.corpora import load_corpus
    from valign.corpora.split import split_corpus

    if file:
        return read_lines(file)
    test = split_corpus(load_corpus(corpus or default_corpus(model)))[1]
    return [d.text for d in test.dilemmas[:6]] + [n.prompt for n in test.neutral[:2]]


def profile_name(path: Path) -> str:
    """Profile name of a control: its file's name, or its folder's."""
    return path.resolve().name if path.is_dir() else path.stem

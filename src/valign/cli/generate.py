"""`valign generate`: the model's own answer and the steered one, side by side."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path

import typer

from valign.cli.console import errors, out
from valign.cli.options import DTYPE, TRUST_REMOTE_CODE


def register(app: typer.Typer) -> None:
    app.command("generate")(generate)


def generate(
    prompt: list[str] = typer.Argument(None, help="One or more prompts."),
    model: str = typer.Option("reference", "--model", "-m", help="Folder or Hub name."),
    control: Path | None = typer.Option(
        None, "--control", "-c", help="A control file, or a folder that holds control.safetensors."
    ),
    file: Path | None = typer.Option(None, "--file", "-f", help="Prompts, one a line."),
    strength: float = typer.Option(1.0, "--strength", help="Times the calibrated strength."),
    max_new_tokens: int = typer.Option(128, "--max-new-tokens", min=1),
    temperature: float = typer.Option(0.0, "--temperature", min=0.0, help="0 = greedy."),
    top_p: float = typer.Option(1.0, "--top-p", min=0.01, max=1.0),
    seed: int = typer.Option(0, "--seed", min=0),
    dtype: str = DTYPE,
    trust_remote_code: bool = TRUST_REMOTE_CODE,
    json: bool = typer.Option(False, "--json", help="One object per prompt."),
) -> None:
    """Answer prompts without and with a control, as the tokens come."""
    from valign.cli.arguments import load_control, load_model
    from valign.cli.textfile import no_file_as_text, read_lines
    from valign.lm import generate as answer
    from valign.lm import stream

    no_file_as_text(prompt or [])
    prompts = [*(prompt or []), *(read_lines(file) if file else [])]
    if not prompts:
        raise typer.BadParameter("Give a prompt, or a file of prompts with --file.")
    lm = load_model(model, dtype, trust_remote_code=trust_remote_code)
    steered = load_control(control, lm) if control is not None else None
    if steered is not None and strength != 1.0:
        steered = steered.scaled(strength)
    options = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
    }
    arms = [("baseline", None)] + ([("steered", steered)] if steered is not None else [])
    for _, arm in arms:  # before any token is made
        lm.check_length(
            [lm.encode_prompt(p, getattr(arm, "instruction", None)) for p in prompts],
            max_new_tokens,
        )
    for text in prompts:
        if json:
            row: dict[str, object] = {"prompt": text}
            for name, arm in arms:
                said = answer(lm, [text], arm, **options)
                row[name] = said.texts[0]
                if arm is not None:
                    row["receipt"] = asdict(said.receipts[0])
            typer.echo(json_module.dumps(row, ensure_ascii=False))
            continue
        out.print(text, style="bold", markup=False, highlight=False)
        for name, arm in arms:
            out.print(f"[{'cyan' if arm else 'dim'}]{name:>9}[/]  ", end="")
            for piece in stream(lm, text, arm, **options):
                out.print(piece, end="", markup=False, highlight=False, soft_wrap=True)
            out.print()
    if steered is None:
        errors.print("No control given: only the model's own answers. Name one with --control.")

"""`valign translate`: an instruction in a person's words -> a shift over the values."""

from __future__ import annotations

import json as json_module
import warnings
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from valign.cli.console import errors, out
from valign.cli.textfile import no_file_as_text, stream_texts


def register(app: typer.Typer) -> None:
    app.command("translate")(translate)


def translate(
    instruction: list[str] = typer.Argument(None, help="Instructions, such as 'a bit warmer'."),
    file: Path | None = typer.Option(
        None, "--file", "-f", help="Plain lines, or .jsonl with a `text` field."
    ),
    backend: str = typer.Option("english", "--backend", help="english, rules, llm, or a folder."),
    system: str = typer.Option("schwartz10", "--system", help="Values to speak of."),
    base_url: str | None = typer.Option(None, "--base-url", help="llm: the endpoint, up to /v1."),
    model: str | None = typer.Option(None, "--model", "-m", help="llm: the model's name there."),
    api_key_env: str | None = typer.Option(
        None, "--api-key-env", help="llm: environment variable that holds the key."
    ),
    cache: Path | None = typer.Option(None, "--cache", help="llm: folder of answers to keep."),
    json: bool = typer.Option(False, "--json", help="One object a row, with `shift`."),
) -> None:
    """Read which values an instruction wants more or less of; nothing where it asks for none."""
    from valign.translate import Translator, TranslatorWarning

    if not instruction and file is None:
        raise typer.BadParameter("Give an instruction, or a file with --file.")
    no_file_as_text(instruction or [])
    endpoint: dict[str, Any] = {
        "base_url": base_url, "model": model, "api_key_env": api_key_env, "cache": cache,
    }  # fmt: skip
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", TranslatorWarning)
        translator = Translator.load(
            backend, system=system, **{k: v for k, v in endpoint.items() if v is not None}
        )
    for warning in told:
        if issubclass(warning.category, TranslatorWarning):
            errors.print(f"[yellow]warning:[/] {escape(str(warning.message))}", soft_wrap=True)
    texts = [*(instruction or [])]
    if file is not None:
        texts += [text for _, text in stream_texts(file)]
    if not texts:
        raise typer.BadParameter("There was no instruction to read.")
    for text, found in zip(texts, translator.translate_all(texts), strict=True):
        if json:
            row = {
                "text": text, "shift": dict(found), "confidence": round(found.confidence, 4),
                "source": found.source,
            }  # fmt: skip
            typer.echo(json_module.dumps(row, ensure_ascii=False))
            continue
        out.print(text, style="bold", markup=False, highlight=False, soft_wrap=True)
        if not found:
            out.print(f"  nothing about values  (confidence {found.confidence:.2f})",
                      highlight=False)  # fmt: skip
            continue
        table = Table(show_header=False, box=None)
        for name, change in sorted(found.items(), key=lambda item: -abs(item[1])):
            table.add_row(f" {name}", f"{change:+g}")
        out.print(table)
        out.print(f"  {found.profile}  (confidence {found.confidence:.2f})", highlight=False,
                  markup=False, soft_wrap=True)  # fmt: skip

"""`valign detector card`: what a detector was trained on, how well it does, and where it fails."""

from __future__ import annotations

import difflib
from importlib import resources

import typer
from rich.markdown import Markdown

from valign.cli.console import out

_CARDS = {
    "english-a": "english",
    "english-b": "english",
    "harm": "harm-refusal",
    "refusal": "harm-refusal",
    "entailment": "entailment",
}
"""Detector or classifier -> its card."""


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The models that read texts.", no_args_is_help=True)
    group.command("card")(card)
    group.callback()(lambda: None)  # one command is still a group
    app.add_typer(group, name="detector")


def card(
    name: str = typer.Argument("english-b", help=", ".join(_CARDS)),
    plain: bool = typer.Option(False, "--plain", help="Markdown as it stands in the file."),
) -> None:
    """Print a detector's card."""
    if name not in _CARDS:
        near = difflib.get_close_matches(name, _CARDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise typer.BadParameter(f"No card for {name!r}.{hint} There are: {', '.join(_CARDS)}.")
    file = resources.files("valign.detect") / "cards" / f"{_CARDS[name]}.md"
    text = file.read_text("utf-8")
    if plain:
        typer.echo(text)
    else:
        out.print(Markdown(text))

"""The command line: `valign demo`, `run`, `study`, `compare`, `fit`, `generate`, `export`,
`serve`, `score`, `profile`, `report` and the lists.

Commands live one to a file; heavy imports happen inside them, so that help is instant.
"""

from __future__ import annotations

import os
import sys

import typer
from rich.markup import escape

from valign.cli import (
    ask,
    compare,
    demo,
    detector,
    drift,
    eval,
    export,
    facts,
    fit,
    front,
    generate,
    lists,
    profile,
    report,
    rewrite,
    run,
    score,
    serve,
    study,
    svo,
    translate,
)
from valign.cli.console import errors

app = typer.Typer(
    name="valign",
    help="Dial the human values a language model expresses, and measure what it costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

for module in (
    demo, run, fit, front, study, compare, generate, export, serve, profile, ask, drift, svo, score,
    rewrite, facts, translate, eval, detector, report, lists,
):  # fmt: skip
    module.register(app)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    if version:
        from valign import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit code 0 fine, 1 a defect, 2 bad input, 130 interrupted."""
    from valign.values import ValignError

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        code = app(args=arguments, prog_name="valign", standalone_mode=False)
        if code == 130:  # Typer turns Ctrl-C into an exit code before anybody hears of it
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except ValignError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        errors.print("\nInterrupted. Everything finished is kept; run the same command to go on.")
        sys.exit(130)
    except Exception as error:
        # Typer carries its own copy of click, so usage errors are known by their interface.
        if not hasattr(error, "show"):
            raise
        error.show()
        sys.exit(getattr(error, "exit_code", 2))

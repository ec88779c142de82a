"""Options that many commands share."""

from __future__ import annotations

import typer

DTYPE = typer.Option("auto", "--dtype", help="auto, float32, bfloat16, float16.")
TRUST_REMOTE_CODE = typer.Option(
    False, "--trust-remote-code", help="Run the Python code that comes with the model."
)

"""`valign serve`: vLLM's own OpenAI server, with value profiles per request."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from valign.cli.console import errors, out


def register(app: typer.Typer) -> None:
    app.command(
        "serve", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
    )(serve)


def serve(
    context: typer.Context,
    model: str | None = typer.Argument(None, help="Folder or Hub name of a Hugging Face model."),
    control: list[Path] = typer.Option(
        [], "--control", "-c",
        help="A vLLM bundle (valign export --to vllm), or controls to make one of; repeatable.",
    ),
    name: str | None = typer.Option(None, "--name", help="Model name for clients; else MODEL."),
    file: Path | None = typer.Option(
        None, "--prompts", "-f", help="Prompts to certify a new bundle on, one a line."
    ),
    doctor: bool = typer.Option(
        False, "--doctor", help="Say which vLLM was tested, check the installed one, and leave."
    ),
) -> None:  # fmt: skip
    """Serve a model with value profiles per request, on a stock vLLM.

    Everything valign does not know goes to vLLM: `--port 8000 --max-model-len 4096`. Without
    --control it is a plain server. The profiles of the bundle stand in the model list, as
    MODEL:PROFILE.
    """
    from valign.deploy.vllm_plugin import doctor as checks
    from valign.deploy.vllm_plugin.active import VARIABLE

    if doctor:
        lines, sound = checks.report()
        for line in lines:
            out.print(line, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(0 if sound else 1)
    if model is None:
        raise typer.BadParameter("Name a model: valign serve MODEL --control BUNDLE")
    if "--served-model-name" in context.args:
        raise typer.BadParameter("Use --name NAME; profiles are listed as NAME:PROFILE.")
    checks.require_ready(profiles=bool(control))
    base = name or model
    names, more, environment = [base], list[str](), dict(os.environ)
    if control:
        bundle = _bundle(control, model, file)
        names += [f"{base}:{profile}" for profile in _profiles(bundle)]
        more = ["--middleware", "valign.deploy.vllm_plugin.profile_models.ProfileModels"]
        environment |= {VARIABLE: str(bundle), "VLLM_USE_V2_MODEL_RUNNER": "0"}
        errors.print(f"Profiles: {', '.join(names[1:])}", markup=False, highlight=False)
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model,
        "--served-model-name", *names, *more, *context.args,
    ]  # fmt: skip
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)


def _profiles(bundle: Path) -> list[str]:
    from valign.deploy.bundle import read_bundle

    return [profile["name"] for profile in read_bundle(bundle).profiles]


def _bundle(control: list[Path], model: str, file: Path | None) -> Path:
    """The bundle that was named, or a new one of the controls, with a certificate."""
    from valign.deploy.bundle import FILE

    for path in control:
        if (path / FILE).is_file() or path.name == FILE:
            if len(control) > 1:
                raise typer.BadParameter("A bundle stands alone; name it, or controls, not both.")
            return path.resolve()
    import tempfile

    from valign.cli.export import export

    folder = Path(tempfile.mkdtemp(prefix="valign-bundle-")) / "bundle"
    errors.print(f"Making a bundle in {folder}", markup=False, highlight=False, soft_wrap=True)
    export(
        control, to="vllm", folder=folder, model=model, everywhere=False, file=file, corpus=None,
        tokens=16, json=False,
    )  # fmt: skip
    return folder

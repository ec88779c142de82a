"""`valign serve`: vLLM's own OpenAI server, with value profiles per request."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
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
        help="A vLLM bundle (valign export --to vllm), controls to export at start, or PEFT "
             "adapters; repeatable.",
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
    --control it is a plain server. Profiles, rewrites and adapters stand in the model list, as
    MODEL:NAME; adapters are served by vLLM's LoRA.
    """
    from valign.deploy.adapters import OPTIONS, options, read_servable
    from valign.deploy.bundle import read_bundle
    from valign.deploy.vllm_plugin import doctor as checks
    from valign.deploy.vllm_plugin.active import VARIABLE
    from valign.deploy.vllm_plugin.rewrites import REWRITERS, rewriters

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
    given = _sorted(control)
    trusted = "--trust-remote-code" in context.args
    bundle, adapters = _made(given, model, file, trusted) if given.controls else (given.bundle, {})
    for own, folder in given.adapters.items():
        read_servable(folder, model)
        adapters[own] = folder
    if adapters and (known := [o for o in OPTIONS if o in context.args]):
        raise typer.BadParameter(f"valign sets {known[0]} itself; give adapters with --control.")
    names, more, environment = [base], options(base, adapters), dict(os.environ)
    if bundle is not None:
        profiles = read_bundle(bundle).profiles
        names += [f"{base}:{profile['name']}" for profile in profiles]
        more += ["--middleware", "valign.deploy.vllm_plugin.profile_models.ProfileModels"]
        environment |= {
            VARIABLE: str(bundle), "VLLM_USE_V2_MODEL_RUNNER": "0",
            REWRITERS: json.dumps(rewriters(profiles, base, model, adapters)),
        }  # fmt: skip
    worn = [f"{base}:{own}" for own in adapters]
    if doubled := sorted(set(names) & set(worn)):
        raise typer.BadParameter(f"{doubled[0]} would be a profile and an adapter; rename one.")
    for what, listed in (("Profiles", names[1:]), ("Adapters", worn)):
        if listed:
            errors.print(f"{what}: {', '.join(listed)}", markup=False, highlight=False)
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model,
        "--served-model-name", *names, *more, *context.args,
    ]  # fmt: skip
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)


@dataclass(frozen=True)
class _Given:
    """What --control named.

    Attributes:
        bundle: one that is ready.
        adapters: name -> PEFT folder.
        controls: name -> control, to be exported.
    """

    bundle: Path | None
    adapters: dict[str, Path]
    controls: dict[str, Path]


def _sorted(control: list[Path]) -> _Given:
    from valign.cli.export import profile_name
    from valign.control import load
    from valign.deploy.adapters import CONFIG
    from valign.deploy.bundle import FILE

    bundles: list[Path] = []
    adapters, controls = dict[str, Path](), dict[str, Path]()
    for path in control:
        if (path / FILE).is_file() or path.name == FILE:
            bundles.append(path.resolve())
            continue
        own = adapters if (path / CONFIG).is_file() else controls
        if profile_name(path) in {*adapters, *controls}:
            raise typer.BadParameter(f"Two controls are called {profile_name(path)}; rename one.")
        own[profile_name(path)] = path.resolve()
    others = [name for name, path in controls.items() if load(path).kind != "weights"]
    if len(bundles) > 1 or (bundles and others):
        raise typer.BadParameter(
            "A bundle holds all profiles of a server: name one bundle, or the controls to make "
            "one of, not both. Adapters may stand beside either."
        )
    return _Given(bundles[0] if bundles else None, adapters, controls)


def _made(
    given: _Given, model: str, file: Path | None, trusted: bool
) -> tuple[Path | None, dict[str, Path]]:
    """The controls as a bundle and PEFT adapters, each with its certificate."""
    import tempfile

    from valign.cli.arguments import load_control, load_model
    from valign.cli.export import held_out, say_certificate, write
    from valign.control import WeightsControl

    prompts = held_out(file, None, model)
    lm = load_model(model, "float32", trust_remote_code=trusted)
    controls = {name: load_control(path, lm) for name, path in given.controls.items()}
    profiles = {n: c for n, c in controls.items() if not isinstance(c, WeightsControl)}
    folder = Path(tempfile.mkdtemp(prefix="valign-serve-"))
    errors.print(f"Exporting to {folder}", markup=False, highlight=False, soft_wrap=True)
    bundle, adapters = given.bundle, dict[str, Path]()
    if profiles:
        bundle = folder / "bundle"
        say_certificate(write(lm, profiles, to="vllm", out=bundle, prompts=prompts), bundle)
    for name, control in controls.items():
        if name not in profiles:
            adapters[name] = own = folder / "adapters" / name
            say_certificate(write(lm, {name: control}, to="peft", out=own, prompts=prompts), own)
    return bundle, adapters

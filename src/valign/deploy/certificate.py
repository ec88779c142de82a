"""Certificates: the proof that exported files do what the control does.

The files are read back by the engine that will read them (or the nearest thing at hand), and
compared with the hooked model on held-out prompts: every logit of every answer position. The
hooked model's greedy answer is fed to both; if they agree on every token of it, the two greedy
answers are the same.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from valign.control.control import Control, TextControl
from valign.control.rewrite import RewriteControl
from valign.deploy.errors import CertificateError, ExportError
from valign.lm import HostModel, generate
from valign.lm.render import Prompt
from valign.lm.rewriting import question, request, rewriter_of

FORMAT = "valign-certificate/1"
NAME = "certificate.json"
TOLERANCE = 1e-4
"""Largest difference of two logits in float32 that still counts as the same."""
SOURCE = 16
"""Longest answer, in tokens, whose rewrite is compared."""

Runner = Callable[[Prompt, list[int]], torch.Tensor]
"""Takes a prompt and the tokens of an answer; gives the logits (answer tokens + 1, vocabulary)
from which each of them, and the token after them, is chosen."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was compared, and how close it was. All JSON-able.

    Attributes:
        to: the format.
        max_logit_difference: largest absolute difference of a logit, exported against hooked.
        token_agreement: share of answer positions with the same greedy token.
        tolerance: what the difference had to stay within.
        effect: largest absolute difference of a logit, hooked against unsteered, on the same
            positions: without one, agreement would prove nothing.
        prompts, positions: how many were compared.
        prompts_sha256: of the prompts, as JSON.
        read_by: what read the files for the comparison.
        widened: None, or how far (in logits, same positions) the control with all its edits on
            all tokens is from the one that was given.
        control, model: what was exported for what; hashes and names.
        files: name -> SHA-256 of every file.
        versions: of everything that took part.
    """

    to: str
    max_logit_difference: float
    token_agreement: float
    tolerance: float
    effect: float
    prompts: int
    positions: int
    prompts_sha256: str
    read_by: str
    widened: float | None = None
    control: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return self.max_logit_difference <= self.tolerance and self.token_agreement == 1.0

    def write(self, folder: Path) -> Path:
        """Write `certificate.json`."""
        path = folder / NAME
        row = {"format": FORMAT, "holds": self.holds, **asdict(self)}
        path.write_text(json.dumps(row, indent=1, sort_keys=True) + "\n", "utf-8")
        return path

    @classmethod
    def read(cls, folder: str | Path) -> Certificate:
        """Read what `write` wrote, and check that every file is the one it was written for.

        Raises:
            CertificateError: no certificate, or a file that is missing or has changed.
        """
        folder = Path(folder)
        try:
            row = json.loads((folder / NAME).read_text("utf-8"))
            if row.pop("format") != FORMAT:
                raise ValueError("another format")
            row.pop("holds")
            found = cls(**row)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CertificateError(
                f"No certificate in {folder} ({error}). `valign export` writes one."
            ) from None
        for name, digest in found.files.items():
            path = folder / name
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise CertificateError(f"{NAME} names a file outside its folder: {name!r}.")
            if not path.is_file() or sha256(path) != digest:
                raise CertificateError(
                    f"{path} is missing or not the file that was certified; export it again."
                )
        return found


def certify(
    lm: HostModel,
    pairs: Sequence[tuple[Control, Runner]],
    prompts: Sequence[Prompt],
    *,
    to: str,
    read_by: str,
    tokens: int = 16,
    tolerance: float = TOLERANCE,
) -> Certificate:
    """Compare exported files with the hooked model; does not judge, see `Certificate.holds`.

    Args:
        lm, prompts: see `require_comparable`.
        pairs: each exported control with the way to run its export.
        to, read_by: for the certificate.
        tokens: longest answer that is compared.
        tolerance: see `TOLERANCE`.

    Raises:
        CertificateError: the control changes nothing on these prompts, or the logits are not
            finite, so that nothing can be proved.
    """
    worst = effect = 0.0
    agreed = positions = 0
    for control, run in pairs:
        own_effect = 0.0
        said = _answers(lm, prompts, control, tokens)
        for prompt, answer in zip(prompts, said, strict=True):
            hooked = hooked_logits(lm, prompt, answer, control)
            found = run(prompt, answer).float().cpu()
            if found.shape != hooked.shape or not torch.isfinite(found).all():
                raise CertificateError(
                    f"The {to} export gave logits of shape {tuple(found.shape)} (expected "
                    f"{tuple(hooked.shape)}), or some that are not finite. Nothing was written."
                )
            worst = max(worst, float((found - hooked).abs().max()))
            agreed += int((found.argmax(-1) == hooked.argmax(-1)).sum())
            positions += len(hooked)
            plain = hooked_logits(lm, prompt, answer, None)
            own_effect = max(own_effect, float((hooked - plain).abs().max()))
        if own_effect <= tolerance:
            raise CertificateError(
                f"The {control.method} control moves no logit by more than {own_effect:.1e} on "
                "these prompts, so that agreement would prove nothing. Give prompts on which it "
                "acts (a gate may be closed for these), or a higher dose. Nothing was written."
            )
        effect = max(effect, own_effect)
    texts = json.dumps(list(prompts), sort_keys=True, ensure_ascii=False)
    return Certificate(
        to=to,
        max_logit_difference=worst,
        token_agreement=agreed / positions,
        tolerance=tolerance,
        effect=effect,
        prompts=len(prompts),
        positions=positions,
        prompts_sha256=hashlib.sha256(texts.encode()).hexdigest(),
        read_by=read_by,
        model={
            "name": lm.name,
            "class": type(lm.model).__name__,
            "fingerprint": lm.fingerprint,
            "dtype": "float32",
        },
        versions=versions(),
    )


def require_comparable(lm: HostModel, prompts: Sequence[Prompt]) -> None:
    """Refuse, before anything is written, what no certificate could be made for.

    Raises:
        ExportError: no prompts, or a model in another number type than float32.
    """
    if not prompts:
        raise ExportError("A certificate needs at least one held-out prompt; give some.")
    if lm.dtype != torch.float32:
        raise ExportError(
            f"{lm.name} is loaded in {str(lm.dtype).removeprefix('torch.')}; exports are compared "
            "in float32. Load it with dtype='float32' (the command line does), and cast the "
            "exported files afterwards if you serve a smaller type."
        )


def hooked_logits(
    lm: HostModel, prompt: Prompt, answer: Sequence[int], control: Control | None
) -> torch.Tensor:
    """Logits of the model under a control, one row alone; see `Runner`.

    Of a rewrite they are its rewriter's, over the request it is asked with.
    """
    if isinstance(control, RewriteControl):

        def ask(source: str, asked: str | None) -> str:
            return request(
                control.template, control.target.system, source, control.target.named,
                prompt=asked, steps=control.steps,
            )  # fmt: skip

        return rewriting_logits(lm, prompt, answer, ask, rewriter_of(lm, control))
    instruction = control.instruction if isinstance(control, TextControl) else None
    head = lm.encode_prompt(prompt, instruction)
    acting = None if isinstance(control, TextControl) else control
    with lm.controlled(acting, prompt_lengths=[len(head)]):
        return answer_logits(lm.model, head, answer, lm.device)


@torch.no_grad()
def answer_logits(
    model: Any, head: Sequence[int], answer: Sequence[int], device: torch.device
) -> torch.Tensor:
    """Logits (answer tokens + 1, vocabulary) of one pass over a prompt's tokens and an answer."""
    ids = torch.tensor([[*head, *answer]], device=device)
    return model(input_ids=ids, use_cache=False).logits[0, len(head) - 1 :].float().cpu()


def rewriting_logits(
    lm: HostModel,
    prompt: Prompt,
    answer: Sequence[int],
    ask: Callable[[str, str | None], str],
    rewriter: HostModel,
) -> torch.Tensor:
    """Logits with which a rewriter chooses the tokens of a rewrite; see `Runner`.

    Args:
        ask: the words of the request, from the host's answer and the user's question.
    """
    source = generate(lm, [prompt], max_new_tokens=SOURCE).texts[0]
    own, asked = (rewriter, ask(source, question(prompt))) if source.strip() else (lm, prompt)
    return answer_logits(own.model, own.encode_prompt(asked), answer, own.device)


def _answers(
    lm: HostModel, prompts: Sequence[Prompt], control: Control, tokens: int
) -> list[list[int]]:
    """The greedy answers that are compared."""
    if isinstance(control, RewriteControl):
        control = replace(control, max_new_tokens=min(tokens, control.max_new_tokens))
        tokens = SOURCE
    return generate(lm, prompts, control, max_new_tokens=tokens).token_ids


def distance(
    lm: HostModel, one: Control, other: Control, prompts: Sequence[Prompt], *, tokens: int = 16
) -> float:
    """Largest difference of a logit between two controls, along the first one's answers."""
    said = _answers(lm, prompts, one, tokens)
    return max(
        float((hooked_logits(lm, p, a, one) - hooked_logits(lm, p, a, other)).abs().max())
        for p, a in zip(prompts, said, strict=True)
    )


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of everything that takes part in an export."""
    from valign import __version__

    found = {"python": platform.python_version(), "valign": __version__}
    names = ("torch", "transformers", "safetensors", "peft", "gguf", "huggingface_hub")
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

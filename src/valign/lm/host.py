"""The host model: any Hugging Face causal language model, never changed by valign."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from valign.control.edit import Site
from valign.lm.errors import ModelLoadError, PromptTooLongError, UnsupportedSiteError
from valign.lm.layout import Layout, LayoutNames, find_layout
from valign.lm.render import Prompt, Verbatim, encode, render

_OWN_CODE = (
    " It brings code of its own; if you trust that: --trust-remote-code, in Python "
    "trust_remote_code=True."
)


class HostModel:
    """A causal LM with its tokenizer and layout.

    The model is the user's: valign reads it and hangs hooks on it while a control is on, and
    takes every hook off again, also after an exception. It is put into evaluation mode (dropout
    off), which is the only lasting change.

    Attributes:
        model, tokenizer: as given.
        layout: where the sites are.
        name: folder or Hub name, for results.
        session: the `valign.lm.steer.Session` that is on, or None.
        memo: things derived from this model and a corpus, kept so that ten targets cost one
            capture; keyed by ("what", corpus fingerprint, ...).
        trusted: whether it was loaded with leave to run code of its own.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str | None = None,
        layout: LayoutNames | None = None,
    ):
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name or str(getattr(model, "name_or_path", "") or type(model).__name__)
        self.layout: Layout = find_layout(model, layout)
        self.memo: dict[tuple[Any, ...], Any] = {}
        self.session: Any = None
        self.trusted = False

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        dtype: str | torch.dtype = "auto",
        device: str | dict[str, Any] | None = None,
        trust_remote_code: bool = False,
        layout: LayoutNames | None = None,
    ) -> HostModel:
        """A model by Hub name or folder.

        Args:
            name_or_path: what `from_pretrained` takes.
            dtype: `auto` keeps the checkpoint's type on a GPU and takes float32 on a CPU.
            device: a device, `auto`, or a device map; None means a GPU if there is one.
            trust_remote_code: run code that comes with the checkpoint; off unless asked.

        Raises:
            ModelLoadError: nothing there, unreadable, or weights that are not finite.
            LayoutError: the decoder blocks were not found.
        """
        source = str(name_or_path)
        if source.startswith("~"):
            source = str(Path(source).expanduser())
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if dtype == "auto" and device == "cpu":
            dtype = torch.float32
        folder = Path(source)
        known = ("config.json", "adapter_config.json")
        if folder.exists() and not any((folder / name).is_file() for name in known):
            raise ModelLoadError(
                f"{source} is no model folder: it has no config.json. Expected a folder written "
                "by save_pretrained."
            )
        if source.startswith((".", "/")) and not folder.exists():
            raise ModelLoadError(f"No such model folder: {source}")
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
            mapped = isinstance(device, dict) or device == "auto"  # needs accelerate
            model, report = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=dtype,
                device_map=device if mapped else None,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
            if not mapped:
                model = model.to(device)
        except Exception as error:  # transformers raises many kinds; all mean the same here
            asked_for_trust = not trust_remote_code and "trust_remote_code" in str(error)
            raise ModelLoadError(
                f"Cannot load the model {source!r}: {type(error).__name__}: "
                f"{str(error).strip().splitlines()[0] if str(error).strip() else error}\n"
                "Expected a folder written by save_pretrained (config.json, *.safetensors, "
                "tokenizer), or a Hub name and a connection to the Hub."
                + (_OWN_CODE if asked_for_trust else "")
            ) from error
        if report["missing_keys"]:
            raise ModelLoadError(
                f"{source} lacks weights, among them {sorted(report['missing_keys'])[0]}; they "
                "would be random. Expected the checkpoint of a whole causal LM."
            )
        for parameter_name, parameter in model.named_parameters():
            if parameter.is_meta or not parameter.is_floating_point() or parameter.itemsize < 2:
                continue  # kept elsewhere by a device map, or quantised
            if not torch.isfinite(parameter).all():
                raise ModelLoadError(
                    f"{source} holds weights that are not finite, first in {parameter_name}. "
                    "The checkpoint is broken; download or save it again."
                )
        lm = cls(model, tokenizer, name=source, layout=layout)
        lm.trusted = trust_remote_code
        return lm

    def __repr__(self) -> str:
        size = sum(p.numel() for p in self.model.parameters()) / 1e6
        return f"HostModel({self.name}, {size:.1f}M parameters, {self.dtype}, {self.device})"

    @property
    def n_layers(self) -> int:
        return self.layout.n_layers

    @property
    def device(self) -> torch.device:
        """Where token ids go: the device of the input embeddings."""
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def context_length(self) -> int:
        """Longest sequence in tokens; models that do not say count as unlimited."""
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or 10**9)

    @property
    def pad_id(self) -> int:
        """Filler for batches; always masked, so any id will do."""
        for candidate in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0):
            if candidate is not None:
                return int(candidate)
        return 0

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Token ids that end an answer, from the generation config and the tokenizer."""
        found: set[int] = set()
        config = getattr(self.model, "generation_config", None)
        for source in (getattr(config, "eos_token_id", None), self.tokenizer.eos_token_id):
            if source is not None:
                found.update([source] if isinstance(source, int) else source)
        return frozenset(found)

    @cached_property
    def fingerprint(self) -> str:
        """`weights_digest` of the model."""
        return weights_digest(self.model)

    @cached_property
    def entries(self) -> tuple[torch.nn.Module, ...]:
        """The modules through which a forward pass can begin: adapters wrap a model of their own,
        and their `generate` goes straight to it."""
        inner = getattr(self.model, "get_base_model", None)
        return (self.model,) if inner is None else (self.model, inner())

    @cached_property
    def accepts(self) -> tuple[str, ...]:
        """Names of the arguments of the model's forward, in order."""
        return tuple(inspect.signature(self.entries[-1].forward).parameters)

    def sites(self, kind: str) -> tuple[Site, ...]:
        """All sites of one kind; see `Layout.sites`."""
        return self.layout.sites(kind)

    def site_width(self, site: Site) -> int:
        """Number of activations at a site."""
        return self.layout.site_width(site)

    def render(self, prompt: Prompt, instruction: str | None = None) -> str:
        """The text the model continues; see `valign.lm.render`."""
        return render(self.tokenizer, prompt, instruction)

    def encode_prompt(self, prompt: Prompt, instruction: str | None = None) -> list[int]:
        """Token ids of a rendered prompt.

        Raises:
            UnsupportedSiteError: an instruction for a prompt that is tokens already.
        """
        if isinstance(prompt, Verbatim):
            if instruction:
                raise UnsupportedSiteError(
                    "An instruction cannot be put before tokens. Put its words into the text "
                    "before you tokenise it."
                )
            return list(prompt.ids)
        templated = self.tokenizer.chat_template is not None
        return encode(self.tokenizer, self.render(prompt, instruction), templated=templated)

    def encode_example(self, prompt: Prompt | None, text: str) -> tuple[list[int], int]:
        """Token ids of a prompt with its answer (or of a bare text) and where the text begins."""
        if prompt is None:
            return encode(self.tokenizer, text, templated=False), 0
        head = self.encode_prompt(prompt)
        return head + encode(self.tokenizer, text, templated=True), len(head)

    def check_length(self, rows: Sequence[Sequence[int]], extra: int = 0) -> None:
        """Refuse rows that do not fit the context together with `extra` new tokens.

        Raises:
            PromptTooLongError: names the row, its length and the limit.
        """
        limit = self.context_length - extra
        for number, row in enumerate(rows, start=1):
            if len(row) > limit:
                raise PromptTooLongError(
                    f"Prompt {number} has {len(row)} tokens; {self.name} takes "
                    f"{self.context_length}, and {extra} are kept for the answer. Shorten the "
                    "prompt or ask for fewer new tokens."
                )
            if not row:
                raise PromptTooLongError(f"Prompt {number} is empty: there is nothing to continue.")

    def controlled(self, control: Any, *, prompt_lengths: Sequence[int] | None = None):
        """Context manager: the model's own forward and generate run under the control.

        `control` is one control for every row or a list with one entry (or None) per row. See
        `valign.lm.steer.Session` and, for bridges, `valign.lm.bridge.BridgeSession`.
        """
        from valign.lm.kinds import open_session

        return open_session(self, control, prompt_lengths=prompt_lengths)


def weights_digest(model: torch.nn.Module) -> str:
    """16 hex digits that change when the weights or the shape of a model change.

    Each parameter counts with its first numbers and the exact integer sum of its bits, the same
    on every device; weights that a device map keeps on disk count with their shape.
    """
    digest = hashlib.sha256(type(model).__name__.encode())
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    for name, parameter in model.named_parameters():
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        if parameter.is_meta:
            continue
        numbers = parameter.detach().contiguous().view(bits[parameter.itemsize]).reshape(-1)
        digest.update(numbers[:256].cpu().numpy().tobytes())
        digest.update(str(int(numbers.sum(dtype=torch.int64))).encode())
    return digest.hexdigest()[:16]

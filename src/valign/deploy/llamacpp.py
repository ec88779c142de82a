"""GGUF control vectors: constants after blocks, for llama.cpp (`--control-vector FILE`).

llama.cpp adds the tensor `direction.N` to the residual stream after block N, counted from 0, on
every token; it has none after block 0 (its loader refuses the number). So N is our `resid:N`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from valign.control.control import Control
from valign.control.edit import Edit, Site
from valign.deploy.certificate import Runner, answer_logits
from valign.deploy.errors import ExportError
from valign.deploy.static import affine, linear_weight, refuse, require_static, writes_plainly
from valign.lm import HostModel
from valign.lm.hooks import hooked
from valign.lm.render import Prompt

TO = "gguf"
READ_BY = "gguf.GGUFReader; its vectors added after the blocks of the Hugging Face model"
FILE = "control.gguf"
_ARCHITECTURE = "controlvector"


def write(lm: HostModel, control: Control, folder: Path) -> None:
    """Write `control.gguf`.

    Raises:
        ExportError: anything that is no constant after a block beyond the first, or the `gguf`
            package is not installed.
    """
    gguf = _gguf()
    static = require_static(lm, control, TO)
    constants: dict[int, torch.Tensor] = {}
    for edit in static.edits:
        vector = _constant(lm, edit)
        if edit.site.layer == 0:
            raise refuse(
                edit, TO, "llama.cpp adds nothing after block 0.",
                works="layers from 1 on when fitting, or --to folded",
            )  # fmt: skip
        constants[edit.site.layer] = constants.get(edit.site.layer, 0) + vector
    writer = gguf.GGUFWriter(str(folder / FILE), _ARCHITECTURE)
    writer.add_string(f"{_ARCHITECTURE}.model_hint", lm.model.config.get_text_config().model_type)
    writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(constants))
    for layer, vector in sorted(constants.items()):
        writer.add_tensor(f"direction.{layer}", vector.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _constant(lm: HostModel, edit: Edit) -> torch.Tensor:
    """What an edit adds to the residual stream after its block, (width,) float64."""
    if edit.kind != "add" or edit.site.kind in ("heads", "logits"):
        raise refuse(
            edit, TO, "a control vector is a constant after a block, nothing else.",
            works="--to folded, peft or vllm",
        )  # fmt: skip
    constant = affine(edit, edit.tensors["vector"].numel(), TO)[2]
    if edit.site.kind == "resid":
        return constant
    if not writes_plainly(lm, edit.site.layer):
        block = type(lm.layout.blocks[edit.site.layer]).__name__
        raise refuse(
            edit, TO, f"a {block} normalises or scales what its neurons write.",
            works="--to peft or vllm",
        )  # fmt: skip
    module = lm.layout.module(edit.site)
    return linear_weight(module, f"What {edit.site} feeds").detach().double().cpu() @ constant


def read(folder: Path) -> dict[int, torch.Tensor]:
    """Layer -> vector, by llama.cpp's rules: `direction.N`, N from 1, float32, one dimension."""
    gguf = _gguf()
    reader = gguf.GGUFReader(str(folder / FILE))
    found: dict[int, torch.Tensor] = {}
    for tensor in reader.tensors:
        name, _, layer = tensor.name.partition(".")
        plain = tensor.tensor_type == gguf.GGMLQuantizationType.F32 and len(tensor.shape) == 1
        if name != "direction" or not layer.isdigit() or not int(layer) or not plain:
            raise ExportError(f"{FILE} holds {tensor.name!r}, which llama.cpp would not read.")
        found[int(layer)] = torch.tensor(tensor.data.copy())
    return found


def run(lm: HostModel, folder: Path) -> Runner:
    """The vectors as they stand in the file, added after the blocks on every token."""
    added = [
        (Site("resid", layer), lambda a, vector=vector: a + vector.to(a))
        for layer, vector in read(folder).items()
    ]

    def logits(prompt: Prompt, answer: list[int]) -> torch.Tensor:
        with hooked(lm.layout, added):
            return answer_logits(lm.model, lm.encode_prompt(prompt), answer, lm.device)

    return logits


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise ExportError(
            "--to gguf needs the gguf package: pip install 'valign[export]'"
        ) from None
    return gguf

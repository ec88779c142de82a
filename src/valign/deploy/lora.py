"""PEFT adapters: the control as a LoRA, exact, servable per request.

Adapters stay what they are: a mixture of several becomes one, their ranks side by side with the
weights folded into B. Scaling k neurons is a rank-k change of the projection they feed,
removing a direction a rank-1 change; a constant is the bias of LoRA's B (`lora_bias`), which PEFT
runs on every family. All modules share one rank (the largest; missing ranks are zeros) and
alpha = r, so that no reader needs `rank_pattern`.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import save_file

from valign.control.control import Control
from valign.deploy.certificate import Runner, answer_logits
from valign.deploy.errors import ExportError
from valign.deploy.folded import require_plain_model
from valign.deploy.static import changes
from valign.lm import HostModel

TO = "peft"
READ_BY = "peft, PeftModel.from_pretrained"


def write(lm: HostModel, control: Control, folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        ExportError: an edit that no weights hold, or PEFT is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise ExportError("--to peft needs PEFT: pip install 'valign[export]'") from None
    require_plain_model(lm)
    names = {module: name for name, module in lm.model.named_modules()}
    found = {names[module]: change for module, change in changes(lm, control, TO).items()}
    pairs = {}
    for name, change in found.items():
        left, right = change.left, change.right
        if change.rank > len(left):  # more than the projection has outputs
            left, right = torch.eye(len(left), dtype=left.dtype), left @ right
        pairs[name] = left, right
    rank = max(1, *(left.shape[1] for left, _ in pairs.values()))
    biased = any(change.has_bias for change in found.values())
    tensors: dict[str, torch.Tensor] = {}
    for name, (left, right) in pairs.items():
        spare = rank - left.shape[1]
        prefix = f"base_model.model.{name}"
        a = torch.nn.functional.pad(right, (0, 0, 0, spare))
        b = torch.nn.functional.pad(left, (0, spare))
        tensors[f"{prefix}.lora_A.weight"] = a.float().contiguous()
        tensors[f"{prefix}.lora_B.weight"] = b.float().contiguous()
        if biased:
            tensors[f"{prefix}.lora_B.bias"] = found[name].bias.float()
    LoraConfig(
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        lora_bias=biased,
        bias="none",
        target_modules=sorted(found),
        task_type="CAUSAL_LM",
        base_model_name_or_path=getattr(lm.model, "name_or_path", "") or lm.name,
        inference_mode=True,
    ).save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def run(lm: HostModel, folder: Path) -> Runner:
    """A copy of the model that wears the adapter as PEFT reads it."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(copy.deepcopy(lm.model), folder).eval()
    return lambda prompt, answer: answer_logits(model, lm.encode_prompt(prompt), answer, lm.device)

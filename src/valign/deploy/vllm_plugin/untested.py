"""What the plug-in was not tested with is refused at start, by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from valign.deploy.bundle import Bundle
from valign.values.errors import ValignError

FAMILIES: dict[str, tuple[str, str]] = {
    "LlamaForCausalLM": ("model.layers", "mlp.down_proj"),
    "MistralForCausalLM": ("model.layers", "mlp.down_proj"),
    "Qwen2ForCausalLM": ("model.layers", "mlp.down_proj"),
}
"""Architecture -> where vLLM keeps its blocks, and what reads a block's neurons."""


class StartError(ValignError, RuntimeError):
    """A server that would not steer as it should, and so does not start."""


@dataclass(frozen=True)
class Mode:
    """A mode of vLLM that changes what the plug-in relies on.

    Attributes:
        name: for people.
        on: whether a configuration uses it.
        instead: what to type.
    """

    name: str
    on: Callable[[Any], bool]
    instead: str


def _parallel(field: str) -> Callable[[Any], bool]:
    return lambda config: getattr(config.parallel_config, field) > 1


def _adapters_on_cpu(config: Any) -> bool:
    """vLLM 0.32 on a CPU gives rows without an adapter what lies in the last of its slots.

    With one slot that is the adapter itself; of more, the last one stays empty if there are fewer
    adapters than slots.
    """
    return config.lora_config is not None and config.device_config.device_type == "cpu"


MODES = (
    Mode("speculative decoding", lambda c: c.speculative_config is not None,
         "leave --speculative-config out"),
    Mode("tensor parallelism", _parallel("tensor_parallel_size"), "--tensor-parallel-size 1"),
    Mode("pipeline parallelism", _parallel("pipeline_parallel_size"),
         "--pipeline-parallel-size 1"),
    Mode("data parallelism", _parallel("data_parallel_size"), "--data-parallel-size 1"),
    Mode("context parallelism",
         lambda c: _parallel("decode_context_parallel_size")(c)
         or _parallel("prefill_context_parallel_size")(c),
         "--decode-context-parallel-size 1 --prefill-context-parallel-size 1"),
    Mode("sequence parallelism",
         lambda c: bool(getattr(c.compilation_config.pass_config, "enable_sp", False)
                        or c.parallel_config.use_sequence_parallel_moe),
         "leave enable_sp out of --compilation-config, and --enable-expert-parallel out"),
    Mode("microbatching",
         lambda c: bool(c.parallel_config.use_ubatching),
         "leave --enable-dbo out"),
    Mode("LoRA adapters on a CPU in a single slot",
         lambda c: _adapters_on_cpu(c) and c.lora_config.max_loras < 2,
         "--max-loras one more than there are adapters, as `valign serve --control ADAPTER` does"),
    Mode("LoRA adapters on a CPU that are loaded later",
         lambda c: _adapters_on_cpu(c)
         and os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "0").lower() in ("1", "true"),
         "VLLM_ALLOW_RUNTIME_LORA_UPDATING=0 in the environment, and all adapters at start"),
    Mode("quantised weights", lambda c: c.quant_config is not None,
         "serve the unquantised checkpoint"),
    Mode("KV transfer", lambda c: c.kv_transfer_config is not None,
         "leave --kv-transfer-config out"),
    Mode("KV cache events",
         lambda c: bool(getattr(c.kv_events_config, "enable_kv_cache_events", False)),
         "leave --kv-events-config out"),
    Mode("prompt embeddings", lambda c: bool(c.model_config.enable_prompt_embeds),
         "leave --enable-prompt-embeds out"),
    Mode("multimodal models", lambda c: bool(c.model_config.is_multimodal_model),
         "serve a text model"),
    Mode("pooling models", lambda c: c.model_config.runner_type != "generate",
         "--runner generate"),
    Mode("model runner V2", lambda c: bool(c.use_v2_model_runner),
         "VLLM_USE_V2_MODEL_RUNNER=0 in the environment"),
)  # fmt: skip


def refuse_untested(config: Any) -> None:
    """Refuse a configuration the plug-in was not tested with.

    Args:
        config: `vllm.config.VllmConfig`.

    Raises:
        StartError: names every such mode and what to type.
    """
    found = [f"{mode.name} ({mode.instead})" for mode in MODES if mode.on(config)]
    if found:
        raise StartError(f"valign was not tested with {'; '.join(found)}. To serve plain, unset "
                         "VALIGN_BUNDLE.")  # fmt: skip


def architecture(config: Any, bundle: Bundle) -> str:
    """The class of the served model, if profiles of this bundle fit it.

    Raises:
        StartError: another model than the bundle was made for, or one that was not tested.
    """
    name = config.model_config.architectures[0]
    if name not in FAMILIES:
        raise StartError(
            f"valign was not tested with {name} in vLLM, but with {', '.join(FAMILIES)}. "
            "`valign export --to folded` or `--to peft` serve a constant profile of it."
        )
    made_for, text = bundle.model, config.model_config.hf_text_config
    for what, ours, theirs in (
        ("class", made_for["class"], name),
        ("number of layers", made_for["layers"], text.num_hidden_layers),
        ("width", made_for["width"], text.hidden_size),
    ):
        if ours != theirs:
            raise StartError(
                f"The bundle was made for {made_for['name']} ({what} {ours}), but "
                f"{config.model_config.model} has {what} {theirs}. Serve that model, or export "
                "the controls for this one."
            )
    return str(name)

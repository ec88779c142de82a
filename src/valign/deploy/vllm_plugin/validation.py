"""Entry point `vllm.logits_processors`: bad profiles are answered with 400.

It touches no logits. vLLM asks such classes to check a request's parameters before it enters the
engine, which is the one supported place to do so. The class wears both interfaces of 0.32: the
V2 model runner refuses to start with a class that has the V1 interface alone.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.sample.logits_processor.interface import LogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as V2Processor

from valign.deploy.vllm_plugin.request import KEY


class ValidateProfile(LogitsProcessor, V2Processor):
    """Refuses requests whose profile cannot be applied, and leaves logits alone."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raise ValueError (vLLM answers 400) for a profile that cannot be applied."""
        extra = sampling_params.extra_args
        if not extra or not any(isinstance(k, str) and k.startswith(KEY) for k in extra):
            return
        from valign.deploy.vllm_plugin.active import active_catalog

        active_catalog().mix(extra)

    def __init__(self, *of_either_interface: Any):
        pass

    def is_argmax_invariant(self) -> bool:
        return True

    def update_state(self, batch_update: Any) -> None:
        pass

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        return False

    def apply(self, logits: Any, *context: Any) -> Any:
        return logits

"""Runs vLLM's engine on a job, in a process of its own: `python -m ... job.json out.json`.

A job: model, bundle (or None), absent (run as if valign were not installed), options of `LLM`,
adapters (name -> folder), and phases. A phase is a batch of requests {ids | messages, valign,
adapter, tokens}, and what happens before it: "reset" empties the prefix cache, "forget-key" takes
the steering out of the block hash.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any


def main(job_file: str, out_file: str) -> None:
    job = json.loads(Path(job_file).read_text())
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    os.environ.pop("VALIGN_BUNDLE", None)
    if job["bundle"]:
        os.environ["VALIGN_BUNDLE"] = job["bundle"]
    if job.get("absent"):
        _hide_valign()
    from vllm import LLM

    preempted = _count_preemptions()
    llm = LLM(
        job["model"], dtype="float32", max_model_len=160, block_size=32, seed=0,
        disable_log_stats=True, **job["options"],
    )  # fmt: skip
    phases = []
    for phase in job["phases"]:
        if phase.get("before"):
            llm.reset_prefix_cache()
        if phase.get("before") == "forget-key":
            _forget_key()
        phases.append(_run(llm, phase["requests"], job.get("adapters", {})))
    out = {"phases": phases, "preempted": len(preempted)}
    Path(out_file).write_text(json.dumps(out))


def _run(llm: Any, requests: list[dict], adapters: dict[str, str]) -> list[dict]:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    known = {
        name: LoRARequest(name, number, folder)
        for number, (name, folder) in enumerate(adapters.items(), start=1)
    }
    worn = [known.get(r.get("adapter")) for r in requests]

    settings = [
        SamplingParams(
            temperature=0, max_tokens=r["tokens"], ignore_eos=True, logprobs=1,
            extra_args={"valign": r["valign"]} if r.get("valign") else None,
        )
        for r in requests
    ]  # fmt: skip
    if "messages" in requests[0]:
        outputs = llm.chat(
            [r["messages"] for r in requests], settings, use_tqdm=False, lora_request=worn
        )
    else:
        prompts = [{"prompt_token_ids": r["ids"]} for r in requests]
        outputs = llm.generate(prompts, settings, use_tqdm=False, lora_request=worn)
    return [
        {
            "tokens": list(o.outputs[0].token_ids),
            "logprobs": [
                step[token].logprob
                for token, step in zip(o.outputs[0].token_ids, o.outputs[0].logprobs, strict=True)
            ],
            "cached": o.num_cached_tokens,
        }
        for o in outputs
    ]


def _hide_valign() -> None:
    found = importlib.metadata.entry_points

    def without(**wanted: str):
        points = found(**wanted)
        if not wanted:  # a mapping of all groups
            return points
        return type(points)(point for point in points if point.name != "valign")

    importlib.metadata.entry_points = without


def _count_preemptions() -> list[str]:
    from vllm.v1.core.sched.scheduler import Scheduler

    seen: list[str] = []
    original = Scheduler._preempt_request

    def counted(self, request, *args, **kwargs):
        seen.append(request.request_id)
        return original(self, request, *args, **kwargs)

    Scheduler._preempt_request = counted
    return seen


def _forget_key() -> None:
    from vllm.v1.core import kv_cache_utils

    wrapper = kv_cache_utils.generate_block_hash_extra_keys
    kv_cache_utils.generate_block_hash_extra_keys = wrapper.__wrapped__


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

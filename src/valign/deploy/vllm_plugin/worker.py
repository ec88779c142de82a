"""Puts steering into a worker: wraps four of its methods, on the instance, when it starts.

`WorkerWrapperBase.init_device` is the one wrapped class; there the worker, its runner and the
configuration exist, and nothing has been loaded or compiled. See `doctor` for what is expected of
each seam.
"""

from __future__ import annotations

import logging
from functools import wraps
from typing import Any

import torch

import valign
from valign.deploy.bundle import read_bundle
from valign.deploy.vllm_plugin import canary, doctor, steering, untested
from valign.deploy.vllm_plugin.active import active_catalog, active_path
from valign.deploy.vllm_plugin.rows import Rows

logger = logging.getLogger("vllm.valign")

_CANARY_TOKENS = 8


def install() -> None:
    """Wrap `WorkerWrapperBase.init_device`, once per process."""
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    original = WorkerWrapperBase.init_device
    if hasattr(original, "__wrapped__"):
        return

    @wraps(original)
    def init_device(self: Any) -> None:
        untested.refuse_untested(self.vllm_config)
        original(self)
        attach(self.worker, self.vllm_config)

    WorkerWrapperBase.init_device = init_device


def attach(worker: Any, config: Any) -> None:
    """Let a worker steer, from its model's loading on.

    Raises:
        StartError: this vLLM, model or mode is not one that was tested.
    """
    doctor.require_seams()
    path = active_path()
    assert path is not None
    bundle, catalog, runner = read_bundle(path), active_catalog(), worker.model_runner
    blocks, reader = untested.FAMILIES[untested.architecture(config, bundle)]
    live = steering.Steering(
        bundle,
        tokens=runner.max_num_tokens,
        requests=_most_requests(config),
        device=runner.device,
    )
    # Part of the compile cache's key: a graph of the plain model must not be taken for ours.
    config.additional_config = {
        **(config.additional_config or {}),
        "valign": {"version": valign.__version__, "sites": [str(site) for site in live.sites]},
    }
    rows = Rows(live, catalog, replayed=runner.device.type != "cpu")
    load, prepare, warm_up = (
        runner.load_model, runner._prepare_inputs, worker.compile_or_warm_up_model
    )  # fmt: skip

    @wraps(load)
    def load_model(*args: Any, **kwargs: Any) -> None:
        load(*args, **kwargs)
        steering.make_current(live, runner)
        steering.hook(runner.get_model(), live, blocks=blocks, reader=reader)

    @wraps(prepare)
    def prepare_inputs(scheduler_output: Any, num_scheduled_tokens: Any) -> Any:
        made = prepare(scheduler_output, num_scheduled_tokens)
        batch = runner.input_batch
        rows.step(
            runner.requests, batch.req_ids, batch.num_computed_tokens_cpu, num_scheduled_tokens
        )
        return made

    @wraps(warm_up)
    def compile_or_warm_up_model() -> Any:
        made = warm_up()
        canary.prove_live(live, lambda: _dummy_step(runner))
        logger.info(
            "valign: %d profiles of %s are live at %d sites, %.1f MiB",
            bundle.slots, path, len(live.sites), live.memory / 2**20,
        )  # fmt: skip
        return made

    runner.load_model = load_model
    runner._prepare_inputs = prepare_inputs
    worker.compile_or_warm_up_model = compile_or_warm_up_model


def _dummy_step(runner: Any) -> torch.Tensor:
    """Hidden states of a step over the first tokens of the vocabulary."""
    count = min(_CANARY_TOKENS, runner.max_num_tokens)
    vocabulary = runner.model_config.get_vocab_size()
    runner.input_ids.gpu[:count] = torch.arange(1, count + 1, device=runner.device) % vocabulary
    hidden, _ = runner._dummy_run(count, force_attention=True)
    return hidden[:count].clone()


def _most_requests(config: Any) -> int:
    """Requests a worker may know at once: those that run, and preempted ones that wait."""
    return 16 * int(config.scheduler_config.max_num_seqs)

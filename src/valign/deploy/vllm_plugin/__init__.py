"""vLLM plug-in: every request of a stock vLLM may name its own value profile.

Loaded by vLLM through two entry points (pyproject.toml); asleep unless VALIGN_BUNDLE names a
bundle made by `valign export --to vllm`. Where it takes hold, one file each:

    request     what a request may ask for, and what that means in coefficients
    validation  bad requests are answered with 400 before they reach the engine
    cache_key   steered blocks of the prefix cache are shared with nobody else
    untested    modes of vLLM that are refused at start, by name
    rows        each step: a row of coefficients per token of the batch
    steering    the banks on the device, and the op that stands in the model's graph
    worker      puts all of this into a worker
    canary      proves at start that each bank moves the output
    doctor      which vLLM was tested, and whether its seams look as expected
    profile_models  profiles as model names, for servers started by `valign serve`
    rewrites    rewrite controls behind such a name: two requests for one
"""

from __future__ import annotations


def register() -> None:
    """Entry point `vllm.general_plugins`; vLLM calls it in every process, maybe repeatedly."""
    from valign.deploy.vllm_plugin.active import active_catalog, active_path

    if active_path() is None:
        return
    active_catalog()  # a bundle that cannot be read ends the start, not the first request
    from valign.deploy.vllm_plugin import cache_key, worker

    cache_key.install()
    worker.install()

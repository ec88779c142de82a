"""What a control costs: paired timings against the unsteered model, and memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import torch

from valign.control import Control
from valign.lm import HostModel, generate
from valign.lm.render import Prompt

ROUNDS = 5
ROWS = 8
STEPS = 16


def time_rounds(
    lm: HostModel, prompts: Sequence[Prompt], control: Control | None
) -> list[list[float]]:
    """Seconds per decoding step without and with a control, measured in turns.

    A slow spell of the machine hits both sides of a round. The step is the unit, since steered
    answers may end earlier.

    Args:
        lm: the model.
        prompts: the first eight are answered together, greedily.
        control: as deployed, gate included.

    Returns:
        Five rounds of [plain, steered].
    """
    asked = list(prompts[:ROWS])

    def step(acting: Control | None) -> float:
        began = time.perf_counter()
        made = generate(lm, asked, acting, max_new_tokens=STEPS, batch_size=len(asked))
        return (time.perf_counter() - began) / max(1, max(map(len, made.token_ids)))

    step(control)  # buffers and caches are made once
    return [[step(None), step(control)] for _ in range(ROUNDS)]


def peak_memory_mib(lm: HostModel) -> float | None:
    """Largest memory so far in MiB: of the GPU's allocator, or of the whole process on a CPU."""
    if lm.model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(lm.model.device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

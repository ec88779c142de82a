"""Requests that are wrong in every way people and machines come up with."""

from __future__ import annotations

import json
import random
from typing import Any

_STRANGE: list[Any] = [
    None, True, False, 0, -1, 3.5, 1e308, 10**400, -(10**30), "", " ", "=", ",", "=,=", "warm",
    "add=", "add==1", "add=1=2", "add=nan", "add=inf", "add=-inf", "add=1e999", "add=0x10",
    "add=1_000", "add=١", "add=½", "add=−1", "＋add=1", "add=1;drop", "add=" + "9" * 5000,
    "a" * 20000, "add=1," * 500, "\u0000", "\ud83d\ude00=1", "add\u202e=1", "é̂=1", "add=99",
    "push=-1", "gated=1,early=1", "add=1,add=1", [], [1, 2], ["add=1"], ["a", ["b"]], {}, [None],
    {"add": 1}, {"add": {"add": 1}}, "{\"add\": 1}", "../../etc/passwd=1", "${HOME}=1",
]  # fmt: skip

_MODELS: list[Any] = ["m", "m:add", "m:nobody", "m:", ":add", "nobody", None, 7, ["m"], "m:add:add"]


def bodies(count: int, *, seed: int = 0) -> list[bytes]:
    """Bodies for /v1/completions and /v1/chat/completions; a few of them are even right."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        body: dict[str, Any] = {"model": "m", "max_tokens": 2, "temperature": 0}
        body["prompt"] = "rest or work ?"
        body["messages"] = [{"role": "user", "content": "rest or work ?"}]
        xargs: Any = {"valign": rng.choice(_STRANGE)}
        if rng.random() < 0.3:
            xargs["valign_dose"] = rng.choice(_STRANGE)
        if rng.random() < 0.1:
            xargs[rng.choice(["valign_", "valignX", "other", "", "x" * 999])] = rng.choice(_STRANGE)
        if rng.random() < 0.1:
            xargs = rng.choice(_STRANGE)
        body["vllm_xargs"] = xargs
        if rng.random() < 0.3:
            body["model"] = rng.choice(_MODELS)
        if rng.random() < 0.1:
            body[rng.choice(["messages", "prompt", "n", "stream", "use_beam_search"])] = rng.choice(
                _STRANGE
            )
        text = json.dumps(body)
        if rng.random() < 0.08:
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(["", "{", "\\", "[" * 2000, "\ud800", "NaN"]) + text[at:]
        raw = text.encode("utf-8", "surrogatepass")
        found.append(raw if rng.random() > 0.03 else raw + b"\xff\xfe")
    return found

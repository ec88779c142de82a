"""One site's edits for a whole batch, compiled so that a decoding step costs a few small ops.

Rows may carry different controls. Tensors of all rows are stacked once, when the prompt comes
in; rows without an edit of a kind get its neutral element (a zero vector, factor 1, a target no
activation can miss), so no row ever branches. If all rows share one control nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from valign.control.edit import Edit

Step = Callable[["Positions", torch.Tensor], torch.Tensor]


class Positions:
    """Which positions of the current forward pass the edits may touch.

    Attributes:
        mask: (batch, tokens, 1) in {0, 1} for scope `generation`, or None when the scope covers
            everything that is in this pass (every decoding step).
        valid: (batch, tokens, 1) marks tokens that are not padding, or None when all are valid.
        start: (batch,) column of the last prompt token, or None in decoding steps.
    """

    def __init__(
        self,
        mask: torch.Tensor | None = None,
        valid: torch.Tensor | None = None,
        start: torch.Tensor | None = None,
    ):
        self.mask, self.valid, self.start = mask, valid, start

    def of(self, scope: str) -> torch.Tensor | None:
        """Mask of a scope, None for 'everywhere'."""
        return self.mask if scope == "generation" else self.valid


def compile_site(
    rows: Sequence[Sequence[Edit]], device: torch.device, dtype: torch.dtype
) -> list[Step]:
    """Steps that carry out the edits of one site, in each row's own order.

    Args:
        rows: per row of the batch its edits at this site; a single row serves any batch.
        device, dtype: of the activations.
    """
    depth = max(len(row) for row in rows)
    steps: list[Step] = []
    for place in range(depth):
        column = [row[place] if place < len(row) else None for row in rows]
        present = [edit for edit in column if edit is not None]
        signatures = {(edit.kind, edit.scope, edit.hold) for edit in present}
        for kind, scope, hold in sorted(signatures):
            chosen = [
                e if e is not None and (e.kind, e.scope, e.hold) == (kind, scope, hold) else None
                for e in column
            ]
            steps.append(_COMPILERS[kind](chosen, scope, hold, device, dtype))
    return steps


def _stack(
    rows: Sequence[Edit | None],
    read: Callable[[Edit], torch.Tensor],
    neutral: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device,
    dtype: torch.dtype,
) -> torch.Tensor:
    """(batch, ...) of one tensor per row, the neutral element where a row has no edit."""
    made: dict[int, torch.Tensor] = {}
    for edit in rows:
        if edit is not None and id(edit) not in made:
            made[id(edit)] = read(edit).to(device, dtype)
    example = next(iter(made.values()))
    parts = [neutral(example) if edit is None else made[id(edit)] for edit in rows]
    return torch.stack(parts)


def _blend(a: torch.Tensor, changed: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return changed if mask is None else torch.where(mask.bool(), changed, a)


def _add(rows, scope, hold, device, dtype) -> Step:
    vector = _stack(
        rows, lambda e: e.tensors["vector"] * e.strength, torch.zeros_like, device, dtype
    )[:, None, :]

    def step(at: Positions, a: torch.Tensor) -> torch.Tensor:
        mask = at.of(scope)
        return a + vector if mask is None else a + vector * mask.to(a.dtype)

    return step


class _Push:
    """a + strength * relu(target - (W a + b)) @ direction; see `Edit`.

    Rows with fewer constraints than others are padded with zero weight and a target of minus
    infinity, so that their shortfall is zero. Arithmetic in float32 whatever the model's type:
    a shortfall is a difference of large sums.
    """

    def __init__(self, rows, scope, hold, device, dtype):
        k = max(edit.tensors["bias"].numel() for edit in rows if edit is not None)
        f32 = torch.float32

        def padded(name: str, fill: float = 0.0) -> torch.Tensor:
            def read(edit: Edit) -> torch.Tensor:
                tensor = edit.tensors[name].float()
                missing = k - tensor.shape[0]
                if not missing:
                    return tensor
                return torch.cat([tensor, tensor.new_full((missing, *tensor.shape[1:]), fill)])

            return _stack(rows, read, lambda t: torch.full_like(t, fill), device, f32)

        self.scope, self.hold = scope, hold
        self.weight_t = padded("weight").transpose(1, 2).contiguous()  # (B, width, k)
        self.gap = (padded("target", -torch.inf) - padded("bias"))[:, None, :]  # (B, 1, k)
        strength = [0.0 if e is None else e.strength for e in rows]
        self.direction = padded("direction") * torch.tensor(strength, device=device)[:, None, None]
        self.low = self._limit(rows, "low", -torch.inf, device)
        self.high = self._limit(rows, "high", torch.inf, device)
        self.held: torch.Tensor | None = None

    @staticmethod
    def _limit(rows, name, open_end, device) -> torch.Tensor | None:
        if all(edit is None or getattr(edit, name) is None for edit in rows):
            return None

        def read(edit: Edit) -> torch.Tensor:
            limit = getattr(edit, name)
            width = edit.tensors["weight"].shape[1]
            return torch.full((width,), open_end) if limit is None else limit

        return _stack(rows, read, lambda t: torch.full_like(t, open_end), device, torch.float32)[
            :, None, :
        ]

    def __call__(self, at: Positions, a: torch.Tensor) -> torch.Tensor:
        x = a.float()
        if self.hold:
            if at.start is not None:
                last = x[torch.arange(len(x), device=x.device), at.start.to(x.device)][:, None, :]
                self.held = self._move(last)
            move = self.held
            if move is None:
                raise RuntimeError("a held push met a decoding step before it saw a prompt")
        else:
            move = self._move(x)
        changed = x + move
        if self.low is not None or self.high is not None:
            low = x if self.low is None else torch.minimum(x, self.low)
            high = x if self.high is None else torch.maximum(x, self.high)
            still = move == 0  # coordinates outside the edit stay bit for bit
            limited = torch.minimum(torch.maximum(changed, low), high)
            changed = torch.where(still, x, limited)
        mask = at.of(self.scope)
        return _blend(a, changed.to(a.dtype), mask)

    def _move(self, x: torch.Tensor) -> torch.Tensor:
        short = torch.relu(self.gap - x @ self.weight_t)
        return short @ self.direction


def _scale(rows, scope, hold, device, dtype) -> Step:
    factor = _dense(rows, "factor", 1.0, device, dtype, blend=True)

    def step(at: Positions, a: torch.Tensor) -> torch.Tensor:
        return _blend(a, a * factor(a), at.of(scope))

    return step


def _clamp(rows, scope, hold, device, dtype) -> Step:
    low = _dense(rows, "low", -torch.inf, device, dtype)
    high = _dense(rows, "high", torch.inf, device, dtype)

    def step(at: Positions, a: torch.Tensor) -> torch.Tensor:
        return _blend(a, torch.minimum(torch.maximum(a, low(a)), high(a)), at.of(scope))

    return step


def _dense(rows, name, fill, device, dtype, blend=False):
    """Per-coordinate tensors spread over the site's width, made when the width is known."""
    made: torch.Tensor | None = None

    def get(a: torch.Tensor) -> torch.Tensor:
        nonlocal made
        if made is None:
            made = torch.full((len(rows), 1, a.shape[-1]), fill, device=device, dtype=dtype)
            for number, edit in enumerate(rows):
                if edit is not None:
                    values = edit.tensors[name].to(device, dtype)
                    if blend:  # strength moves the factor between 1 (off) and itself
                        values = 1 + edit.strength * (values - 1)
                    made[number, 0, edit.tensors["index"].to(device)] = values
        return made

    return get


def _project(rows, scope, hold, device, dtype) -> Step:
    vector = _stack(rows, lambda e: e.tensors["vector"], torch.zeros_like, device, dtype)[
        :, :, None
    ]
    strength = torch.tensor(
        [0.0 if e is None else e.strength for e in rows], device=device, dtype=dtype
    )[:, None, None]

    def step(at: Positions, a: torch.Tensor) -> torch.Tensor:
        along = a @ vector  # (B, T, 1)
        return _blend(a, a - strength * along * vector.transpose(1, 2), at.of(scope))

    return step


def _gradient(rows, scope, hold, device, dtype) -> Step:
    """Ascent on w2 . gelu(w1 a + b1), gradient in closed form (no autograd while decoding)."""
    f32 = torch.float32
    w1 = _stack(rows, lambda e: e.tensors["w1"], torch.zeros_like, device, f32)
    b1 = _stack(rows, lambda e: e.tensors["b1"], torch.zeros_like, device, f32)[:, None, :]
    w2 = _stack(rows, lambda e: e.tensors["w2"] * e.strength, torch.zeros_like, device, f32)[
        :, None, :
    ]

    def step(at: Positions, a: torch.Tensor) -> torch.Tensor:
        z = a.float() @ w1.transpose(1, 2) + b1
        cdf = 0.5 * (1 + torch.erf(z / 2**0.5))
        pdf = torch.exp(-0.5 * z * z) / (2 * torch.pi) ** 0.5
        gradient = ((cdf + z * pdf) * w2) @ w1
        return _blend(a, (a.float() + gradient).to(a.dtype), at.of(scope))

    return step


_COMPILERS: dict[str, Callable[..., Step]] = {
    "add": _add,
    "push": _Push,
    "scale": _scale,
    "clamp": _clamp,
    "project": _project,
    "gradient": _gradient,
}

"""One site's edits for a whole batch, compiled so that a decoding step costs a few small ops.

Rows may carry different controls. Tensors of all rows are stacked once, when the prompt comes
in; rows without an edit of a kind get its neutral element (a zero vector, factor 1, a target no
activation can miss), so no row ever branches. If all rows share one control nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from valign.control.edit import Edit

Step = Callable[["Positions", torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Positions:
    """Which positions of the current forward pass the edits may touch.

    Attributes:
        mask: (batch, tokens, 1) bool for scope `generation`, or None when the scope covers
            everything that is in this pass (every decoding step).
        valid: (batch, tokens, 1) marks tokens that are not padding, or None when all are valid.
        start: (batch,) column of the last prompt token, or None in decoding steps.
        first: no edit touches a column before this one.
    """

    mask: torch.Tensor | None = None
    valid: torch.Tensor | None = None
    start: torch.Tensor | None = None
    first: int = 0

    def of(self, scope: str) -> torch.Tensor | None:
        """Mask of a scope, None for 'everywhere'."""
        return self.mask if scope == "generation" else self.valid

    def to(self, device: torch.device) -> Positions:
        """The same positions on the device of a model's part."""
        if self.start is None or self.start.device == device:
            return self
        valid = None if self.valid is None else self.valid.to(device)
        return Positions(self.mask.to(device), valid, self.start.to(device), self.first)

    def tail(self, length: int) -> Positions:
        """Positions of the last `length` columns (the head may be asked for those only)."""
        cut = self.mask.shape[1] - length
        if not cut:
            return self
        return Positions(
            mask=self.mask[:, cut:],
            valid=None if self.valid is None else self.valid[:, cut:],
            start=(self.start - cut).clamp_min(0),
            first=max(self.first - cut, 0),
        )


EVERYWHERE = Positions()
"""A decoding step: every token of the pass belongs to an answer."""


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


def _strengths(rows, device, dtype) -> torch.Tensor:
    """(batch, 1, 1), 0 for rows without an edit."""
    strengths = [0.0 if edit is None else edit.strength for edit in rows]
    return torch.tensor(strengths, device=device, dtype=dtype)[:, None, None]


def _padded(read: Callable[[Edit], torch.Tensor], size: int, fill: float = 0.0):
    """A reader that fills the first dimension up to `size`."""

    def padded(edit: Edit) -> torch.Tensor:
        tensor = read(edit).float()
        missing = size - tensor.shape[0]
        if not missing:
            return tensor
        return torch.cat([tensor, tensor.new_full((missing, *tensor.shape[1:]), fill)])

    return padded


def _blend(a: torch.Tensor, changed: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return changed if mask is None else torch.where(mask, changed, a)


def _add(rows, scope, hold, device, dtype) -> Step:
    vector = _stack(rows, lambda e: e.tensors["vector"], torch.zeros_like, device, torch.float32)
    vector = (vector[:, None, :] * _strengths(rows, device, torch.float32)).to(dtype)

    def step(at: Positions, a: torch.Tensor) -> torch.Tensor:
        mask = at.of(scope)
        return a + vector if mask is None else torch.where(mask, a + vector, a)

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
            read = _padded(lambda edit: edit.tensors[name], k, fill)
            return _stack(rows, read, lambda t: torch.full_like(t, fill), device, f32)

        self.scope, self.hold = scope, hold
        self.k = k
        self.weight = padded("weight")  # (B, k, width)
        self.weight_t = self.weight.transpose(1, 2).contiguous() if k > 1 else None
        self.gap = (padded("target", -torch.inf) - padded("bias"))[:, None, :]  # (B, 1, k)
        self.direction = padded("direction") * _strengths(rows, device, f32)
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
                last = x[torch.arange(len(x), device=x.device), at.start][:, None, :]
                self.held = self._moved(last) - last
            if self.held is None:
                raise RuntimeError("a held push met a decoding step before it saw a prompt")
            changed = x + self.held
        else:
            changed = self._moved(x)
        if self.low is not None or self.high is not None:
            low = x if self.low is None else torch.minimum(x, self.low)
            high = x if self.high is None else torch.maximum(x, self.high)
            limited = torch.minimum(torch.maximum(changed, low), high)
            # Coordinates outside the edit stay bit for bit.
            changed = torch.where(changed == x, x, limited)
        return _blend(a, changed.to(a.dtype), at.of(self.scope))

    def _moved(self, x: torch.Tensor) -> torch.Tensor:
        if self.k == 1:  # elementwise kernels; matrix products of this shape are slower
            short = (self.gap - torch.linalg.vecdot(x, self.weight)[..., None]).relu_()
            return torch.addcmul(x, short, self.direction)
        if len(self.gap) == 1:  # all rows alike: one plain matrix product, nothing is repeated
            flat = x.reshape(-1, x.shape[-1])
            short = torch.addmm(self.gap[0], flat, self.weight_t[0], alpha=-1).relu_()
            return torch.addmm(flat, short, self.direction[0]).view(x.shape)
        short = torch.baddbmm(self.gap, x, self.weight_t, alpha=-1).relu_()
        return torch.baddbmm(x, short, self.direction)


def _scale(rows, scope, hold, device, dtype) -> Step:
    factor = _dense(rows, "factor", 1.0, device, dtype, blend=True)

    def step(at: Positions, a: torch.Tensor) -> torch.Tensor:
        return _blend(a, a * factor(a), at.of(scope))

    return step


def _clamp(rows, scope, hold, device, dtype) -> Step:
    low = _dense(rows, "low", -torch.inf, device, dtype)
    high = _dense(rows, "high", torch.inf, device, dtype)
    full = all(edit is None or edit.strength == 1 for edit in rows)
    strength = _strengths(rows, device, dtype)

    def step(at: Positions, a: torch.Tensor) -> torch.Tensor:
        inside = torch.minimum(torch.maximum(a, low(a)), high(a))
        if not full:
            inside = a + strength * (inside - a)
        return _blend(a, inside, at.of(scope))

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
    strength = _strengths(rows, device, dtype)

    def step(at: Positions, a: torch.Tensor) -> torch.Tensor:
        along = a @ vector  # (B, T, 1)
        return _blend(a, a - strength * along * vector.transpose(1, 2), at.of(scope))

    return step


def _gradient(rows, scope, hold, device, dtype) -> Step:
    """Ascent on w2 . gelu(w1 a + b1), gradient in closed form (no autograd while decoding)."""
    h = max(len(edit.tensors["b1"]) for edit in rows if edit is not None)

    def stacked(read: Callable[[Edit], torch.Tensor]) -> torch.Tensor:
        return _stack(rows, _padded(read, h), torch.zeros_like, device, torch.float32)

    w1 = stacked(lambda e: e.tensors["w1"])
    b1 = stacked(lambda e: e.tensors["b1"])[:, None, :]
    w2 = stacked(lambda e: e.tensors["w2"] * e.strength)[:, None, :]

    def step(at: Positions, a: torch.Tensor) -> torch.Tensor:
        z = a.float() @ w1.transpose(1, 2) + b1
        cdf = 0.5 * (1 + torch.erf(z / 2**0.5))
        pdf = torch.exp(-0.5 * z * z) / (2 * torch.pi) ** 0.5
        gradient = ((cdf + z * pdf) * w2) @ w1
        return _blend(a, (a.float() + gradient).to(a.dtype), at.of(scope))

    return step


def _rotate(rows, scope, hold, device, dtype) -> Step:
    """Turn the part in the plane towards the angle; its length, and all else, stay."""
    f32 = torch.float32
    plane = _stack(rows, _padded(lambda e: e.tensors["plane"], 2), torch.zeros_like, device, f32)
    goal = _stack(rows, lambda e: e.tensors["angle"], torch.zeros_like, device, f32)[:, None]
    reach = _strengths(rows, device, f32)[..., 0].abs()
    first, second = plane[:, None, 0], plane[:, None, 1]  # (B, 1, width)
    whole = [e is None or len(e.tensors["plane"]) == 2 for e in rows]
    given = torch.tensor(whole, device=device)[:, None]

    def step(at: Positions, a: torch.Tensor) -> torch.Tensor:
        full = a.float()
        x, y = (full @ plane.transpose(1, 2)).unbind(-1)  # (B, T) each
        across = second
        if not all(whole):
            rest = full - x[..., None] * first
            size = rest.norm(dim=-1)
            y = torch.where(given, y, size)
            own = rest / size[..., None].clamp_min(1e-12)
            across = torch.where(given[..., None], second, own)
        away = goal - torch.atan2(y, x)
        turn = torch.atan2(away.sin(), away.cos())  # the shorter way round
        turn = torch.minimum(torch.maximum(turn, -reach), reach)
        cos, sin = turn.cos() - 1, turn.sin()
        moved = (cos * x - sin * y)[..., None] * first + (sin * x + cos * y)[..., None] * across
        return _blend(a, (full + moved).to(a.dtype), at.of(scope))

    return step


_COMPILERS: dict[str, Callable[..., Step]] = {
    "add": _add,
    "push": _Push,
    "scale": _scale,
    "clamp": _clamp,
    "project": _project,
    "gradient": _gradient,
    "rotate": _rotate,
}

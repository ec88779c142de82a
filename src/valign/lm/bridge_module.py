"""The value module and the latent bridge: what a bridge control computes.

SVGT (arXiv 2605.11712), with departures of our own, each marked where it is made:

    h_v = A(response so far)                            attention pooling
    z   = R(h_v + lambda CrossAttn(h_v, prompt))        conditional;  z = R(h_v) unconditional
    s   = D(z)                                          one logit per score
    dz  = J^T (J J^T + eps I)^-1 (w * r)                J = dD/dz, r = the shortfall to the goals
    B   = rho LN(h + alpha (softmax(Q C^T / sqrt d) C + Q)),   C = [h; phi(dz)]

One encoder serves training and guidance: the same functions read whole texts at once and a text
token by token (ours; the released code trains one path and guides with another).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from valign.control.bridge import BridgeControl, BridgeMode

LEAD = 8
"""The response begins with the prompt's last tokens, so that there is one before the first
answer token (ours)."""
_SOFTCAP = 5.0
"""Pooling scores stay within +-5, so that running sums need no rescaling (ours)."""

Pool = tuple[torch.Tensor, torch.Tensor]
"""Running weighted sum (..., heads, size / heads) and sum of weights (..., heads)."""


@dataclass(frozen=True, eq=False)
class Context:
    """The prompt as keys and values (batch, heads, tokens, size / heads); bias hides padding."""

    keys: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor


class ValueModule(nn.Module):
    """Encoder and score head over the hidden states of one block.

    Args:
        width: of the hidden states.
        size: d_v.
        scores: outputs of the score head.
        heads: of pooling and cross attention.
    """

    def __init__(self, *, width: int, size: int, scores: int, heads: int):
        super().__init__()
        self.size, self.heads = size, heads
        # Coordinates are standardised first: a few of them dwarf all others in many models (ours).
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.response = nn.Linear(width, size)
        self.query = nn.Parameter(torch.randn(heads, size // heads) / (size // heads) ** 0.5)
        self.prompt = nn.Linear(width, size)
        self.ask = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size)
        self.mix = nn.Linear(size, size)
        self.mix_norm = nn.LayerNorm(size)
        self.blend = nn.Parameter(torch.tensor(1.0))
        self.refine = nn.Linear(size, size)
        self.refine_norm = nn.LayerNorm(size)
        self.hidden = nn.Linear(size, size // 2)
        self.head = nn.Linear(size // 2, scores)

    def _standard(self, h: torch.Tensor) -> torch.Tensor:
        return ((h.float() - self.mean) / self.std).clamp(-8, 8)

    def features(self, h: torch.Tensor) -> Pool:
        """Per token its features times its pooling weight, and the weight; sums of them pool.

        Args:
            h: (batch, tokens, width).
        """
        u = F.gelu(self.response(self._standard(h))).unflatten(-1, (self.heads, -1))
        weight = torch.exp(_SOFTCAP * torch.tanh(torch.linalg.vecdot(u, self.query) / _SOFTCAP))
        return u * weight[..., None], weight

    def context(self, h: torch.Tensor, seen: torch.Tensor) -> Context:
        """The prompt's states (batch, tokens, width), `seen` (batch, tokens) marks real ones."""
        p = F.layer_norm(F.gelu(self.prompt(self._standard(h))), (self.size,))
        keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.key(p), self.value(p))
        )
        bias = torch.zeros(seen.shape, device=h.device).masked_fill(~seen, torch.finfo(p.dtype).min)
        return Context(keys, values, bias[:, None, None, :])

    def encode(self, pool: Pool, context: Context | None) -> torch.Tensor:
        """z (batch, n, size) from n pooled prefixes of a response.

        Args:
            pool: sums over each prefix, (batch, n, heads, size / heads) and (batch, n, heads).
            context: None for the unconditional path.
        """
        x = (pool[0] / pool[1].clamp_min(1e-6)[..., None]).flatten(-2)
        if context is not None:
            q = self.ask(F.layer_norm(x, (self.size,))).unflatten(-1, (self.heads, -1))
            found = F.scaled_dot_product_attention(
                q.transpose(1, 2), context.keys, context.values, attn_mask=context.bias
            )
            x = x + self.blend * self.mix_norm(self.mix(found.transpose(1, 2).flatten(-2)))
        return self.refine_norm(F.gelu(self.refine(x)))

    def score(self, z: torch.Tensor) -> torch.Tensor:
        """Logits (..., scores)."""
        return self.head(F.gelu(self.hidden(z)))

    def score_and_jacobian(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (..., scores) and their gradients by z (..., scores, size), in closed form."""
        pre = self.hidden(z)
        cdf = 0.5 * (1 + torch.erf(pre / math.sqrt(2)))
        slope = cdf + pre * torch.exp(-0.5 * pre * pre) / math.sqrt(2 * math.pi)
        jacobian = (self.head.weight * slope[..., None, :]) @ self.hidden.weight
        return self.head(pre * cdf), jacobian


def correction(jacobian: torch.Tensor, shortfall: torch.Tensor, radius: float) -> torch.Tensor:
    """The damped least-squares step J^T (J J^T + eps I)^-1 r, no longer than `radius`.

    eps = 1e-3 tr(J J^T) / C. With one score and goal 0 it is the released code's step -s g / |g|^2.
    The radius is ours: where the scores are flat the step would be without bound.

    Args:
        jacobian: (..., C, size). shortfall: (..., C), 0 for scores that are to stay.

    Returns:
        (..., size).
    """
    gram = jacobian @ jacobian.transpose(-1, -2)
    count = gram.shape[-1]
    damping = 1e-3 * gram.diagonal(dim1=-2, dim2=-1).mean(-1) + 1e-12
    if count == 1:
        solved = shortfall[..., None] / (gram + damping[..., None, None])
    else:
        gram = gram + damping[..., None, None] * torch.eye(count, device=gram.device)
        solved = torch.linalg.solve_ex(gram, shortfall[..., None])[0]
    step = (jacobian.transpose(-1, -2) @ solved)[..., 0]
    norm = torch.linalg.vector_norm(step, dim=-1, keepdim=True)
    return step * (radius / norm.clamp_min(radius))


class LatentBridge(nn.Module):
    """K latent tokens from the newest state and the correction.

    Args:
        width: of the hidden states. size: d_v. tokens: K.

    The seeds are also part of what the gate lets in (ours): a bank of two rows alone would keep
    all K tokens on one line.
    """

    def __init__(self, *, width: int, size: int, tokens: int):
        super().__init__()
        self.seeds = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.spread = nn.Linear(size, size)
        self.decode = nn.Linear(size, width)
        self.gate = nn.Parameter(torch.tensor(0.02))
        self.norm = nn.LayerNorm(width)

    def shift(self, h: torch.Tensor, dz: torch.Tensor) -> torch.Tensor:
        """The correction as a move of the residual stream, (..., width); for `inject`."""
        return self.gate * _rms(h) * self.decode(F.gelu(self.spread(dz)))

    def forward(self, h: torch.Tensor, dz: torch.Tensor, boost: float = 1.0) -> torch.Tensor:
        """Tokens (..., K, width) from the newest states (..., width) and corrections (..., size).

        `boost` multiplies the gate. The tokens are as long as the states they stand beside (rho,
        ours), so that no scale has to be learned first.
        """
        rho = _rms(h)
        state = h / rho
        bank = torch.stack([state, self.decode(F.gelu(self.spread(dz)))], dim=-2)
        share = torch.softmax(self.seeds @ bank.transpose(-1, -2) / state.shape[-1] ** 0.5, dim=-1)
        raw = share @ bank + self.seeds
        return rho[..., None] * self.norm(state[..., None, :] + boost * self.gate * raw)


def _rms(h: torch.Tensor) -> torch.Tensor:
    return h.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)


@dataclass(frozen=True, eq=False)
class Advice:
    """What a guide says at n moments of each row.

    Attributes:
        tokens: (batch, n, K, width) bridge tokens, or (batch, n, 1, width) the shift to inject.
        open: (batch, n) how far guidance is on, 0 to 1.
        before, after: (batch, n, scores) logits as read, and as the correction makes them.
    """

    tokens: torch.Tensor
    open: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor


@dataclass(frozen=True, eq=False)
class Guide:
    """A bridge control with its networks built, on a device; see `BridgeControl` for the fields.

    Attributes:
        goal: (scores,) logits. side: (scores,) +1 from below, -1 from above, 0 hold.
    """

    value: ValueModule
    bridge: LatentBridge
    layer: int
    scores: tuple[str, ...]
    goal: torch.Tensor
    side: torch.Tensor
    tokens: int
    mode: BridgeMode = "bridge"
    refresh: int = 5
    momentum: float = 0.8
    dead_zone: float = 0.0
    ramp: float = 1.0
    strength: float = 1.0
    method: str = "custom"

    @property
    def key(self) -> tuple[object, ...]:
        """Rows of one batch share this."""
        return (self.layer, self.tokens, self.mode, self.refresh)

    def shortfall(self, score: torch.Tensor) -> torch.Tensor:
        """How far each score is from its goal, signed; 0 on the right side and in the dead zone."""
        missing = (self.side * (self.goal - score)).clamp_min(0)
        return self.side * torch.where(missing > self.dead_zone, missing, 0.0)

    def advise(self, pool: Pool, newest: torch.Tensor, context: Context) -> Advice:
        """Advice at n moments; `newest` (batch, n, width) is the state of the newest token."""
        z = self.value.encode(pool, context)
        before, jacobian = self.value.score_and_jacobian(z)
        short = self.shortfall(before)
        dz = correction(jacobian, short, radius=math.sqrt(z.shape[-1]))
        opened = (short.abs().sum(-1) / max(self.ramp, 1e-6)).clamp_max(1)
        # The value module is trained before the bridge and stays as it is.
        dz, opened = dz.detach(), opened.detach()
        made = (
            self.bridge(newest.float(), dz, max(self.strength, 1.0))
            if self.mode == "bridge"
            else self.bridge.shift(newest.float(), dz)[..., None, :]
        )
        return Advice(made, opened, before.detach(), self.value.score(z + dz).detach())


def goals_of(
    scores: Sequence[str], goals: dict[str, float], target: dict[str, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(goal, side) of a control, (scores,) each."""
    goal = torch.tensor([goals.get(name, 0.0) for name in scores])
    side = [math.copysign(1.0, target.get(n, 1.0)) if n in goals else 0.0 for n in scores]
    return goal, torch.tensor(side)


def sizes(tensors: dict[str, torch.Tensor]) -> dict[str, int]:
    """Width, d_v, scores and K that the tensors of a control have.

    Raises:
        KeyError: a tensor is missing.
    """
    size, width = tensors["value.response.weight"].shape
    return dict(
        width=width,
        size=size,
        scores=len(tensors["value.head.bias"]),
        tokens=len(tensors["bridge.seeds"]),
    )


def build(control: BridgeControl, device: torch.device | str = "cpu") -> Guide:
    """The guide of a control.

    Raises:
        KeyError, RuntimeError: its tensors are not those of a value module and a bridge.
    """
    has = sizes(control.tensors)
    with torch.device("meta"):  # nothing is drawn, so nobody's random numbers move
        value = ValueModule(
            width=has["width"], size=has["size"], scores=has["scores"], heads=control.heads
        )
        bridge = LatentBridge(width=has["width"], size=has["size"], tokens=has["tokens"])
    for prefix, module in (("value.", value), ("bridge.", bridge)):
        own = {
            k.removeprefix(prefix): t.float()
            for k, t in control.tensors.items()
            if k.startswith(prefix)
        }
        module.load_state_dict(own, assign=True)
        module.requires_grad_(False).eval().to(device)
    goal, side = goals_of(control.scores, control.goals, control.target.named)
    return Guide(
        value, bridge, control.layer, control.scores, goal.to(device), side.to(device),
        tokens=control.tokens, mode=control.mode, refresh=control.refresh,
        momentum=control.momentum, dead_zone=control.dead_zone, ramp=control.ramp,
        strength=control.strength, method=control.method,
    )  # fmt: skip

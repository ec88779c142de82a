"""Random bridge controls for tiny models, and the slow obvious way to run a Llama under one."""

from __future__ import annotations

import torch

from tests.lm.reference import TARGET
from valign.control import BridgeControl
from valign.lm import HostModel
from valign.lm.bridge_module import LEAD, LatentBridge, ValueModule, build, correction


def make_bridge(
    lm: HostModel, *, layer=0, tokens=3, size=16, seed=0, scores=("benevolence",), **options
) -> BridgeControl:
    """A bridge that visibly moves a tiny model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        value = ValueModule(width=lm.layout.width, size=size, scores=len(scores), heads=4)
        bridge = LatentBridge(width=lm.layout.width, size=size, tokens=max(tokens, 1))
        with torch.no_grad():
            value.mean.normal_(0, 0.1)
            bridge.seeds.normal_(0, 1)
            bridge.gate.fill_(1.5)
            bridge.norm.weight.fill_(3)
    tensors = {f"value.{k}": t for k, t in value.state_dict().items()}
    tensors |= {f"bridge.{k}": t for k, t in bridge.state_dict().items()}
    options = {"refresh": 2, "goals": {"benevolence": 4.0}, **options}
    return BridgeControl(
        target=TARGET, layer=layer, tensors=tensors, scores=scores, tokens=tokens,
        provenance={"method": "svgt"}, **options,
    )  # fmt: skip


@torch.no_grad()
def llama_logits(
    lm: HostModel, ids: list[int], prompt: int, control: BridgeControl | None
) -> torch.Tensor:
    """Logits (tokens, vocabulary) of one row: one token after the other, everything by hand.

    Above l* each answer token is run through the blocks in a sequence written out for it alone:
    the prompt, the bridge versions with the tokens made under each, in the order of time.
    """
    model, n = lm.model.model, len(ids)
    position = torch.arange(n)[None]
    h = model.embed_tokens(torch.tensor([ids]))
    rope = model.rotary_emb(h, position_ids=position)
    causal = torch.full((n, n), -torch.inf).triu(1)[None, None]
    layer = len(model.layers) - 1 if control is None else control.layer
    for block in model.layers[: layer + 1]:
        h = block(h, attention_mask=causal, position_embeddings=rope)
    if control is None:
        return lm.model.lm_head(model.norm(h))[0]
    start, k = prompt - 1, control.tokens
    guide = build(control)
    versions, version_of = [], {}
    for t in range(start, n):
        if t == start or (control.refresh and (t - start) % control.refresh == 0):
            u, w = guide.value.features(h[:, max(start - LEAD + 1, 0) : t + 1])
            pool = u.sum(1, keepdim=True), w.sum(1, keepdim=True)
            seen = torch.ones(1, prompt, dtype=torch.bool)
            z = guide.value.encode(pool, guide.value.context(h[:, :prompt], seen))
            with torch.enable_grad():
                leaf = z.detach().requires_grad_()
                s = guide.value.score(leaf)
                jacobian = torch.stack(
                    [torch.autograd.grad(s[0, 0, c], leaf, retain_graph=True)[0][0, 0]
                     for c in range(s.shape[-1])]
                )  # fmt: skip
            short = guide.shortfall(s.detach())
            dz = correction(jacobian[None, None], short, z.shape[-1] ** 0.5)
            opened = float((short.abs().sum() / control.ramp).clamp_max(1))
            made = guide.bridge(h[:, t : t + 1], dz, max(control.strength, 1.0))[:, 0]
            if versions:
                made = control.momentum * versions[-1][0] + (1 - control.momentum) * made
            versions.append((made, opened))
        version_of[t] = len(versions) - 1
    # Columns: prompt without its last token, then for each version its bridge and its tokens.
    parts, places, kinds = [h[:, :start]], list(range(start)), [("t", i) for i in range(start)]
    for v, (made, _) in enumerate(versions):
        parts.append(made)
        places += [max(start - k + 1 + i, 0) for i in range(k)]
        kinds += [("b", v)] * k
        own = [t for t in range(start, n) if version_of[t] == v]
        parts.append(h[:, own])
        places += own
        kinds += [("t", t) for t in own]
    x = torch.cat(parts, 1)
    rope = model.rotary_emb(x, position_ids=torch.tensor([places]))
    mask = torch.full((len(kinds), len(kinds)), -torch.inf)
    for i, (kind, a) in enumerate(kinds):
        for j, (other, b) in enumerate(kinds[: i + 1]):
            whole = kind == "t" and other == "t"
            if whole or (kind == "b" and (a == b if other == "b" else b < start)):
                mask[i, j] = 0
            elif kind == "t" and other == "b" and a >= start and version_of[a] == b:
                mask[i, j] = torch.tensor(control.strength * versions[b][1]).log()
    for block in model.layers[layer + 1 :]:
        x = block(x, attention_mask=mask[None, None], position_embeddings=rope)
    own = [i for i, (kind, _) in enumerate(kinds) if kind == "t"]
    return lm.model.lm_head(model.norm(x[:, own]))[0]

"""Finding a model's parts by structure: decoder blocks, MLP neurons, attention heads.

No family is known by name. The decoder blocks are the one `ModuleList` as long as the
configuration says; within a block the attention is the child that is called so; the output
projections are the last linear maps onto the residual width inside and outside the attention.
Where a model is built differently, one line says so:
`HostModel.load(..., layout=LayoutNames(...))`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from valign.control.edit import Site
from valign.lm.errors import LayoutError, UnsupportedSiteError

_ATTENTION = ("attn", "attention")
_HOW = (
    "Name the parts yourself: layout=LayoutNames(layers='model.layers', "
    "down='mlp.down_proj', attention_out='self_attn.o_proj')."
)


@dataclass(frozen=True)
class LayoutNames:
    """A user's override: dotted module names, `down` and `attention_out` inside a block."""

    layers: str
    down: str | None = None
    attention_out: str | None = None


@dataclass(frozen=True, eq=False)
class Layout:
    """The parts of a decoder that sites refer to.

    Attributes:
        blocks: the decoder blocks, in order; `resid:l` is the output of `blocks[l]`.
        down: per block the MLP's down projection, whose input are the neurons; None where a
            block has none, or more than one (a mixture of experts).
        attention_out: per block the attention's output projection; None where there is none.
        head: the map to the vocabulary.
        width: residual width.
    """

    blocks: tuple[nn.Module, ...]
    down: tuple[nn.Module | None, ...]
    attention_out: tuple[nn.Module | None, ...]
    head: nn.Module
    width: int

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    def module(self, site: Site) -> nn.Module:
        """The module a site hangs on.

        Raises:
            UnsupportedSiteError: no such layer, or the family lacks that kind of site.
        """
        if site.kind == "logits":
            return self.head
        if not 0 <= site.layer < self.n_layers:
            raise UnsupportedSiteError(
                f"{site} does not exist: the model has layers 0 to {self.n_layers - 1}."
            )
        if site.kind == "resid":
            return self.blocks[site.layer]
        found = (self.down if site.kind == "neurons" else self.attention_out)[site.layer]
        if found is None:
            block = type(self.blocks[site.layer]).__name__
            raise UnsupportedSiteError(
                f"{site} is not available: a {block} has no single "
                f"{'down projection' if site.kind == 'neurons' else 'attention output projection'} "
                "(a mixture of experts has one per expert). Use resid sites, or a method that "
                f"edits the residual stream. {_HOW}"
            )
        return found

    def site_width(self, site: Site) -> int:
        """Number of activations at a site."""
        if site.kind == "resid":
            self.module(site)
            return self.width
        shape = linear_shape(self.module(site))
        return shape[1] if site.kind == "logits" else shape[0]

    def sites(self, kind: str) -> tuple[Site, ...]:
        """All sites of one kind, in layer order.

        Raises:
            UnsupportedSiteError: the family lacks that kind of site somewhere.
        """
        if kind == "logits":
            return (Site("logits"),)
        sites = tuple(Site(kind, layer) for layer in range(self.n_layers))  # type: ignore[arg-type]
        for site in sites:
            self.module(site)
        return sites


def find_layout(model: PreTrainedModel, names: LayoutNames | None = None) -> Layout:
    """The layout of a causal language model.

    Raises:
        LayoutError: the decoder blocks were not found, or a name of `names` does not exist.
    """
    config = model.config.get_text_config()
    width = config.hidden_size
    head = model.get_output_embeddings()
    if head is None:
        raise LayoutError(
            f"{type(model).__name__} has no language-model head; a causal LM is needed."
        )
    if names is not None:
        blocks = tuple(_child(model, names.layers).children())
        down = tuple(_child(b, names.down) if names.down else None for b in blocks)
        out = tuple(_child(b, names.attention_out) if names.attention_out else None for b in blocks)
        return Layout(blocks, down, out, head, width)
    blocks = _find_blocks(model, config.num_hidden_layers)
    return Layout(
        blocks,
        tuple(_last_projection(block, width, attention=False) for block in blocks),
        tuple(_last_projection(block, width, attention=True) for block in blocks),
        head,
        width,
    )


def _child(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError:
        raise LayoutError(f"{type(module).__name__} has no part named {name!r}. {_HOW}") from None


def _find_blocks(model: PreTrainedModel, n_layers: int) -> tuple[nn.Module, ...]:
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    found = [
        module
        for module in (decoder or model).modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == n_layers
        and any(_is_attention(name) for name, _ in module[0].named_children())
    ]
    if len(found) != 1:
        raise LayoutError(
            f"Found {len(found)} lists of {n_layers} decoder blocks in {type(model).__name__}, "
            f"expected one. {_HOW}"
        )
    return tuple(found[0])


def _is_attention(name: str) -> bool:
    return any(word in name.lower() for word in _ATTENTION) and "norm" not in name.lower()


def _last_projection(block: nn.Module, width: int, *, attention: bool) -> nn.Module | None:
    """Last linear map onto the residual width inside (or outside) the block's attention."""
    found: list[tuple[str, nn.Module]] = []
    linear: list[str] = []
    for name, module in block.named_modules():
        if any(name.startswith(f"{outer}.") for outer in linear):
            continue  # what an adapter or a quantiser keeps inside a linear map
        shape = linear_shape(module, strict=False)
        if shape is None:
            continue
        linear.append(name)
        inside = any(_is_attention(part) for part in name.split("."))
        if inside == attention and shape[1] == width:
            found.append((name, module))
    if not found or (not attention and any("expert" in name for name, _ in block.named_modules())):
        return None
    return found[-1][1]


def linear_shape(module: nn.Module, *, strict: bool = True) -> tuple[int, int] | None:
    """(inputs, outputs) of a linear map; quantised linears carry the same attributes."""
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return int(module.in_features), int(module.out_features)
    if strict:
        raise LayoutError(f"{type(module).__name__} is not a linear map. {_HOW}")
    return None

"""Running a model under bridge controls: the counterpart of `valign.lm.steer` for that kind.

Blocks up to l* run as they always do. At the output of block l* the session reads the states,
asks each row's guide what to say, and hands the blocks above a longer sequence (see
`valign.lm.bridge_splice`). Passes with and without a cache compute the same: a pass without one
holds every version of the bridge side by side, and each token sees the version that was in force
when it was made.

Decoding stays cheap because a refresh needs no pass of its own: the K new bridge tokens travel
through the upper blocks together with the token that is being decoded.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from valign.control.bridge import BridgeControl
from valign.control.edit import Site
from valign.lm.bridge_module import LEAD, Advice, Context, Guide, Pool, build, sizes
from valign.lm.bridge_splice import Splice, bridge_cache, version_masks
from valign.lm.errors import NotAppliedError, UnsupportedSiteError
from valign.lm.hooks import hook_site
from valign.lm.host import HostModel
from valign.lm.occupied import Occupied
from valign.lm.prompt_rows import PromptRows
from valign.lm.receipt import Guidance, Receipt

Rows = BridgeControl | Guide | None | Sequence[BridgeControl | Guide | None]


def check_bridge(lm: HostModel, control: BridgeControl) -> None:
    """Refuse a bridge this model cannot run, before any token is made.

    Raises:
        UnsupportedSiteError: made for another width or depth, or attention that takes no masks.
    """
    made_on = control.provenance.get("model", "unknown")
    advice = f"The control was fitted on another model ({made_on}); fit it on {lm.name}."
    try:
        has = sizes(control.tensors)
    except KeyError as error:
        raise UnsupportedSiteError(f"The bridge lacks its tensor {error}; fit it again.") from None
    if has["width"] != lm.layout.width:
        raise UnsupportedSiteError(
            f"The bridge is {has['width']} wide, the model {lm.layout.width}. {advice}"
        )
    if has["scores"] != len(control.scores) or control.tokens not in (0, has["tokens"]):
        raise UnsupportedSiteError(
            f"The bridge's tensors make {has['tokens']} tokens and {has['scores']} scores, its "
            f"settings say {control.tokens} and {len(control.scores)}. Fit it again."
        )
    deepest = lm.n_layers - (2 if control.mode == "bridge" else 1)
    if not 0 <= control.layer <= deepest:
        raise UnsupportedSiteError(
            f"A {control.mode} at block {control.layer} needs blocks above it; {lm.name} admits "
            f"layers 0 to {deepest}."
        )
    kind = getattr(lm.model.config.get_text_config(), "_attn_implementation", "eager")
    if control.mode == "bridge" and kind not in ("sdpa", "eager"):
        raise UnsupportedSiteError(
            f"{lm.name} runs attention by {kind!r}, which takes no per-row masks. Load it with "
            'attn_implementation="sdpa", or fit with mode=inject.'
        )


@dataclass(eq=False)
class _Group:
    """The rows of a batch that share a guide; `rows` is None when these are all."""

    guide: Guide
    rows: torch.Tensor | None
    context: Context | None = None
    pool: Pool | None = None
    tokens: torch.Tensor | None = None
    heard: list[tuple[list[int], Advice]] = field(default_factory=list)

    def of(self, a: torch.Tensor) -> torch.Tensor:
        """This group's rows of a batch."""
        return a if self.rows is None else a[self.rows.to(a.device)]


class BridgeSession(Occupied):
    """A `with` block in which a host model runs under bridge controls.

    Args:
        lm: the model.
        control: one for all rows, or a list with one entry (or None) per row. Rows of a batch
            share layer, K, mode and refresh interval. Training passes `Guide`s.
        prompt_lengths: as in `valign.lm.steer.Session`; such passes run without a cache.

    Raises:
        UnsupportedSiteError: a control that does not fit the model, or rows that cannot share a
            batch.
        NestedControlError: on entering, if the model is already in a session.
        NotAppliedError: on leaving, if block l* never ran.
    """

    def __init__(
        self, lm: HostModel, control: Rows, *, prompt_lengths: Sequence[int] | None = None
    ):
        super().__init__(lm)
        self._lengths = prompt_lengths
        self._shared = control is None or isinstance(control, BridgeControl | Guide)
        given = [control] if self._shared else list(control)  # type: ignore[arg-type]
        self._controls = given
        self._prompts = PromptRows(None if self._shared else len(given), prompt_lengths)
        made: dict[int, Guide] = {}
        for row in given:
            if isinstance(row, BridgeControl) and id(row) not in made:
                check_bridge(lm, row)
                made[id(row)] = build(row, lm.device)
        self._rows: list[Guide | None] = [
            made[id(row)] if isinstance(row, BridgeControl) else row for row in given
        ]
        acting = [g for g in self._rows if g is not None and (g.tokens or g.mode == "inject")]
        if len({guide.key for guide in acting}) > 1:
            raise UnsupportedSiteError(
                "Rows of one batch need bridges of the same layer, number of tokens, mode and "
                "refresh interval. `valign.lm.generate` puts others into batches of their own."
            )
        self._first_guide = acting[0] if acting else None
        self._groups: list[_Group] = []
        self._splice: Splice | None = None
        self._inside = self._fired = False
        self._begun: dict[str, Any] | None = None  # set while the pass that reads the prompt runs
        self._embeddings: dict[tuple[str, int], Any] = {}
        self._buffer: list[torch.Tensor] = []
        self._sees: torch.Tensor | None = None
        self._shift: torch.Tensor | None = None
        self._step = self._held = self._batch = 0
        self.above: torch.Tensor | None = None
        self.bridge: torch.Tensor | None = None
        self.beside: torch.Tensor | None = None

    def _install(self) -> None:
        lm, guide = self._lm, self._first_guide
        if guide is None:
            return
        self._watch_passes()
        self._hook(guide.layer, self._at_layer)
        if guide.mode == "bridge":
            for number in range(guide.layer + 1, lm.n_layers):
                block = lm.layout.blocks[number]
                widen = _Widen(self, number, block)
                self._keep(block.register_forward_pre_hook(widen, with_kwargs=True))
        if guide.layer + 1 < lm.n_layers:
            self._hook(guide.layer + 1, self._note_above)
        if guide.mode == "bridge":
            self._hook(lm.n_layers - 1, self._cut)

    def _hook(self, layer: int, change: Any) -> None:
        self._keep(*hook_site(self._lm.layout, Site("resid", layer), change))

    def _require_fired(self) -> None:
        if not self._fired:
            raise NotAppliedError(
                f"The bridge was on, but block {self._first_guide.layer} never ran. "  # type: ignore[union-attr]
                "Pass layout=LayoutNames(...) if the blocks were found wrongly."
            )

    def receipts(self) -> list[Receipt]:
        """One receipt per row of the last batch."""
        found = [Receipt()] * self._batch
        for group in self._groups:
            guide = group.guide
            moments = [moment for own, _ in group.heard for moment in own]
            opened, before, after = (
                torch.cat([getattr(advice, name) for _, advice in group.heard], dim=1).tolist()
                for name in ("open", "before", "after")
            )
            rows = range(self._batch) if group.rows is None else group.rows.tolist()
            for place, row in enumerate(rows):
                found[row] = Receipt(
                    method=guide.method,
                    sites=(f"resid:{guide.layer}",),
                    tokens=1 + self._step,
                    guidance=Guidance(
                        scores=guide.scores,
                        gate=float(guide.bridge.gate),
                        moments=tuple(moments),
                        open=tuple(opened[place]),
                        before=tuple(map(tuple, before[place])),
                        after=tuple(map(tuple, after[place])),
                    ),
                )
        return found

    # One forward pass ------------------------------------------------------------------

    def _on_pass(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._inside:
            return None
        ids, self._held, kwargs = self._read_pass(args, kwargs)
        self._splice = None
        if self._held:
            self._go_on(*ids.shape[:2])
        else:
            kwargs = self._begin(ids, kwargs)
        self._inside = True
        self._passes += 1
        return (), kwargs

    def _on_end(self, module: Any, args: Any, output: Any) -> None:
        self._inside, self._begun, self._splice = False, None, None

    def _go_on(self, batch: int, length: int) -> None:
        self._require_begun(self._held, rows=self._batch, batch=batch)
        if length > 1:
            raise UnsupportedSiteError(
                f"The model got {length} tokens on top of {self._held} cached ones; a bridge is "
                "kept up one token at a time. Give the whole prompt in one pass."
            )
        self._step += 1

    def _begin(self, ids: torch.Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        batch = len(ids)
        cached = kwargs.get("use_cache")
        cached = bool(self._lm.model.config.use_cache if cached is None else cached)
        if self._lengths is not None:
            kwargs, cached = {**kwargs, "use_cache": False}, False
        prompt = self._prompts.read(ids, kwargs.get("attention_mask"), cached=cached)
        self._batch, self._step = batch, 0
        self._buffer, self._embeddings = [], {}
        self._groups = self._grouped(batch, ids.device)
        self._begun = dict(start=prompt.start, valid=prompt.valid, last=prompt.last, cached=cached)
        guide = self._first_guide
        if cached and guide is not None and guide.mode == "bridge":
            cache = kwargs.get("past_key_values")
            if cache is None:
                cache = DynamicCache(config=self._lm.model.config)
            bridge_cache(cache, guide.layer, self._lm.n_layers, self._incoming, self._reorder)
            kwargs = {**kwargs, "past_key_values": cache}
        return kwargs

    def _grouped(self, batch: int, device: torch.device) -> list[_Group]:
        rows = self._rows * batch if self._shared else self._rows
        found: dict[int, list[int]] = {}
        guides = {id(guide): guide for guide in rows if guide is not None}
        for number, guide in enumerate(rows):
            if guide is not None:
                found.setdefault(id(guide), []).append(number)
        return [
            _Group(guides[k], None if len(own) == batch else torch.tensor(own, device=device))
            for k, own in found.items()
        ]

    def _incoming(self) -> int:
        return 0 if self._splice is None else self._splice.columns

    # At block l* -----------------------------------------------------------------------

    def _at_layer(self, a: torch.Tensor) -> torch.Tensor | None:
        self._fired = True
        if not self._inside:
            self._ran_outside("A block")
        guide: Guide = self._first_guide  # type: ignore[assignment]
        if self._begun is not None:
            return self._read_prompt(a, guide)
        self._buffer.append(a.detach())
        if guide.refresh and self._step % guide.refresh == 0:
            return self._refresh(a, guide)
        if guide.mode == "inject":
            return a + self._shift
        total = self._held + 1
        self._splice = Splice(0, guide.tokens, total, self._sees, embeddings=self._embeddings)
        return None

    def _read_prompt(self, a: torch.Tensor, guide: Guide) -> torch.Tensor:
        begun = {
            k: v.to(a.device) if isinstance(v, torch.Tensor) else v
            for k, v in self._begun.items()  # type: ignore[union-attr]
        }
        start, valid = begun["start"], begun["valid"]
        columns = torch.arange(a.shape[1], device=a.device)
        count = 1
        if guide.refresh and not begun["cached"]:
            count += int((begun["last"] - start).max()) // guide.refresh
        every = max(guide.refresh, 1) * torch.arange(count, device=a.device)
        moments = (start[:, None] + every).clamp_max(a.shape[1] - 1)
        first = max(int(start.min()) - LEAD + 1, 0)
        end = int(start.max()) + 1
        read = slice(first, end if count == 1 else a.shape[1])
        inside = valid & (columns > start[:, None] - LEAD)
        seen = valid & (columns <= start[:, None])
        rows = torch.arange(len(a), device=a.device)[:, None]
        states = a.detach()
        newest = states[rows, moments]
        tokens = opened = None
        for group in self._groups:
            value, own = group.guide.value, group.of(inside)[:, read]
            mass, weight = value.features(group.of(states)[:, read])
            mass, weight = mass * own[..., None, None], weight * own[..., None]
            at = group.of(moments) - first
            place = torch.arange(len(at), device=a.device)[:, None]
            pool = mass.cumsum(1)[place, at], weight.cumsum(1)[place, at]
            group.context = value.context(group.of(states)[:, :end], group.of(seen)[:, :end])
            group.pool = pool[0][:, :1], pool[1][:, :1]
            tokens, opened = self._hear(group, pool, group.of(newest), every, tokens, opened)
        version = torch.where(
            columns >= start[:, None],
            (columns - start[:, None]).div(max(guide.refresh, 1), rounding_mode="floor")
            if guide.refresh
            else 0,
            -1,
        ).clamp_max(count - 1)
        if guide.mode == "inject":
            self._shift = tokens[:, -1].to(a.dtype)
            moved = tokens[rows, version.clamp_min(0), 0].to(a.dtype)
            return torch.where((version >= 0)[..., None], a + moved, a)
        log_open = self._log_open(opened)
        sees, among = version_masks(version, log_open, guide.tokens, torch.float32)
        blind = torch.finfo(torch.float32).min
        prompt = torch.where(valid & (columns < start[:, None]), 0.0, blind)
        lags = torch.arange(guide.tokens - 1, -1, -1, device=a.device).repeat(count)
        front = (valid * (a.shape[1] - columns)).argmax(dim=1)
        self._prompt = prompt
        self._now = torch.zeros(len(a), 1, dtype=torch.long, device=a.device)
        self._among = among[: guide.tokens, : guide.tokens].expand(len(a), -1, -1)
        self._set_sees(log_open[:, -1:], guide)
        self._splice = Splice(
            columns=count * guide.tokens,
            slots=count * guide.tokens,
            total=a.shape[1],
            sees=sees,
            among=among.expand(len(a), -1, -1),
            prompt=prompt,
            moments=moments,
            where=torch.maximum(start[:, None] - lags, front[:, None]),
            embeddings=self._embeddings,
        )
        self.bridge, self.beside = tokens, newest
        bound = tokens.flatten(1, 2).to(a.dtype)
        return torch.cat([bound, a], dim=1)

    def _refresh(self, a: torch.Tensor, guide: Guide) -> torch.Tensor:
        recent = torch.cat(self._buffer, dim=1)
        self._buffer = []
        every = torch.tensor([self._step])
        tokens = opened = None
        for group in self._groups:
            mass, weight = group.guide.value.features(group.of(recent))
            group.pool = (
                group.pool[0] + mass.sum(1, keepdim=True),  # type: ignore[index]
                group.pool[1] + weight.sum(1, keepdim=True),  # type: ignore[index]
            )
            newest = group.of(recent)[:, -1:]
            tokens, opened = self._hear(group, group.pool, newest, every, tokens, opened)
        if guide.mode == "inject":
            self._shift = tokens[:, 0].to(a.dtype)
            return a + self._shift
        self._set_sees(self._log_open(opened), guide)
        self._splice = Splice(
            columns=guide.tokens,
            slots=guide.tokens,
            total=self._held + 1,
            sees=self._sees,
            among=self._among,
            prompt=self._prompt,
            moments=self._now,
            embeddings=self._embeddings,
        )
        return torch.cat([tokens[:, 0].to(a.dtype), a], dim=1)

    def _hear(
        self,
        group: _Group,
        pool: Pool,
        newest: torch.Tensor,
        every: torch.Tensor,
        tokens: torch.Tensor | None,
        opened: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One group's advice, put among that of the others: (batch, n, K, width), (batch, n)."""
        guide = group.guide
        advice = guide.advise(pool, newest, group.context)  # type: ignore[arg-type]
        group.heard.append((every.tolist(), advice))
        said = advice.tokens
        pull = guide.strength * advice.open
        if guide.mode == "inject":
            said = said * pull[..., None, None]
        versions = []
        for number in range(said.shape[1]):
            new = said[:, number]
            if group.tokens is not None:
                new = guide.momentum * group.tokens + (1 - guide.momentum) * new
            group.tokens = new
            versions.append(new)
        said = torch.stack(versions, dim=1)
        if group.rows is None:
            return said, pull
        if tokens is None or opened is None:
            tokens = said.new_zeros(self._batch, *said.shape[1:])
            opened = pull.new_zeros(self._batch, pull.shape[1])
        return tokens.index_copy(0, group.rows, said), opened.index_copy(0, group.rows, pull)

    @staticmethod
    def _log_open(opened: torch.Tensor) -> torch.Tensor:
        return opened.float().log().clamp_min(torch.finfo(torch.float32).min)

    def _set_sees(self, log_open: torch.Tensor, guide: Guide) -> None:
        plain = not bool(log_open.any())  # seen like any token: no mask is needed for that
        self._sees = None if plain else log_open[..., None].expand(-1, 1, guide.tokens)

    def _note_above(self, a: torch.Tensor) -> None:
        """Keep the guided states for the trainer; drop what belongs to the bridge."""
        if self._lengths is not None:
            self.above = a[:, self._incoming() :]

    def _cut(self, a: torch.Tensor) -> torch.Tensor | None:
        columns = self._incoming()
        return a[:, columns:] if columns else None

    def _reorder(self, order: torch.Tensor) -> None:
        """Beams changed places: what is kept per row goes with them."""
        if any(group.rows is not None for group in self._groups):
            raise UnsupportedSiteError("Beam search runs under one bridge for all rows.")
        for group in self._groups:
            group.pool = tuple(part[order] for part in group.pool)  # type: ignore[assignment, union-attr]
            group.tokens = group.tokens[order]  # type: ignore[index]
        self._buffer = [part[order] for part in self._buffer]
        if self._sees is not None:
            self._sees = self._sees[order]


class _Widen:
    """Makes room for the bridge in the arguments of one block above l*."""

    def __init__(self, session: BridgeSession, number: int, block: torch.nn.Module):
        self.session, self.number = session, number
        self.names = tuple(inspect.signature(block.forward).parameters)

    def __call__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        splice = self.session._splice
        if splice is None:
            return None
        a = args[0] if args else kwargs["hidden_states"]
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        host = given.get("attention_mask")
        mask = splice.mask(host, a)
        changed: dict[str, Any] = {} if mask is host else {"attention_mask": mask}
        if splice.columns:
            for name in ("position_embeddings", "position_ids"):
                if given.get(name) is not None:
                    changed[name] = splice.place(name, self.number, given[name], len(a))
        if not changed:
            return None
        by_place = [changed.pop(n, v) for n, v in zip(self.names, args, strict=False)]
        by_place += args[len(by_place) :]
        return tuple(by_place), {**kwargs, **changed}

"""What a request may ask for: a mix of profiles, in `SamplingParams.extra_args` / `vllm_xargs`.

    {"valign": "benevolence=+0.8,power=-0.5"}             in the strength they were saved with
    {"valign": "benevolence=1", "valign_dose": 0.2}       in nats

A name is a profile of the bundle or a value that one profile was fitted for. A number multiplies
the saved strength. A negative number means the opposite: of a value, the profile that was fitted
against it, if the bundle has one; else the negative of the profile, if all it does is add (the
opposite of a push or a clamp is another control).

`valign_dose` sets each named profile to that dose times the square of its number, from the dose
it was calibrated to: strength = number * sqrt(dose / calibrated dose). KL grows with the square
of a small change (Taylor, the first-order term vanishes), so this is an approximation that is
good near the calibrated dose (ours).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from valign.control.edit import Site
from valign.deploy.bundle import Bundle
from valign.values.errors import ValignError

KEY, DOSE = "valign", "valign_dose"
LARGEST = 4.0
"""Largest coefficient: 16 times the calibrated dose, where no model speaks plainly any more."""

_EXAMPLE = '"vllm_xargs": {"valign": "%s=0.8"}'


class RequestError(ValignError, ValueError):
    """A profile that cannot be applied; the text is the body of the 400."""


@dataclass(frozen=True)
class Mix:
    """What one request asks for.

    Attributes:
        coefficients: (slot, coefficient) of every profile that acts; empty is a plain request.
        key: names the steering, for the prefix cache.
        prompt: some edit acts on the whole prompt.
        answer: some edit begins at the last prompt token.
    """

    coefficients: tuple[tuple[int, float], ...] = ()
    key: str = ""
    prompt: bool = False
    answer: bool = False

    def __bool__(self) -> bool:
        return bool(self.coefficients)


PLAIN = Mix()


@dataclass(frozen=True)
class Entry:
    """One profile as requests see it.

    Attributes:
        values: value -> number it was fitted for.
        dose: 95th percentile of KL at coefficient 1, in nats, None if never calibrated.
        kinds: of its edits.
        first: where its first edit stands, None without edits.
        scopes: of its edits.
        gate: deepest site its gate reads, None without a gate.
        instruction: of a text control.
        rewrite: of a rewrite control; see `valign.deploy.bundle.Bundle`.
    """

    name: str
    slot: int
    values: dict[str, float]
    dose: float | None
    kinds: frozenset[str]
    first: Site | None
    scopes: frozenset[str]
    gate: Site | None
    instruction: str | None
    rewrite: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Catalog:
    """The profiles of a bundle.

    Attributes:
        identity: of the bundle.
        entries: profile name -> entry.
    """

    identity: str
    entries: dict[str, Entry]
    _mixes: dict[Any, Mix] = field(default_factory=dict, repr=False, compare=False)

    def mix(self, extra_args: Mapping[str, Any] | None) -> Mix:
        """What a request's extra arguments ask for.

        Raises:
            RequestError: says what is wrong and what to type.
        """
        if not extra_args:
            return PLAIN
        text, dose = _own_arguments(extra_args)
        if text is None:
            return PLAIN
        return _mix(_Hashable(self), text, dose)

    def named(self, name: str, number: float) -> tuple[Entry, float]:
        """The profile a name means, and the sign and size of its coefficient."""
        entry = self.entries.get(name)
        if entry is None:
            fitted = [e for e in self.entries.values() if set(e.values) == {name} and e.kinds]
            for_it = [e for e in fitted if e.values[name] * number >= 0]
            found = for_it or fitted
            if not found:
                raise RequestError(self._unknown(name))
            if len(found) > 1:
                raise RequestError(
                    f"Several profiles were fitted for {name!r}: "
                    f"{', '.join(e.name for e in found)}. Name one of them instead."
                )
            (entry,) = found
            number = abs(number) if for_it else -abs(number)
        if entry.instruction is not None:
            raise RequestError(
                f"{entry.name!r} is an instruction, not an edit. Send it as the system message: "
                f"{entry.instruction!r}."
            )
        if entry.rewrite is not None:
            raise RequestError(
                f"{entry.name!r} rewrites finished answers. Ask for it by model name, as "
                f"MODEL:{entry.name}, of a server started by `valign serve`."
            )
        if number < 0 and entry.kinds != {"add"}:
            raise RequestError(
                f"{entry.name!r} cannot be turned around: it does more than add a vector "
                f"({', '.join(sorted(entry.kinds))}). Use a number above 0, or export a control "
                "fitted towards the opposite."
            )
        return entry, number

    def _unknown(self, name: str) -> str:
        names = list(self.entries)
        values = [v for e in self.entries.values() if len(e.values) == 1 for v in e.values]
        near = difflib.get_close_matches(name, [*names, *values], 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        return (
            f"There is no profile {_short(name)}.{hint} Profiles of this server: {shown}. "
            f"Write for example {_EXAMPLE % names[0]}."
        )


class _Hashable:
    """A catalog as key of a cache: the same bundle is the same key."""

    def __init__(self, catalog: Catalog):
        self.catalog = catalog

    def __hash__(self) -> int:
        return hash(self.catalog.identity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashable) and other.catalog.identity == self.catalog.identity


def read_catalog(bundle: Bundle) -> Catalog:
    """The entries of a bundle, in slot order."""
    entries: dict[str, Entry] = {}
    for profile in bundle.profiles:
        slot = int(profile["slot"])
        own = [bank for bank in bundle.banks if slot in bank.slots.tolist()]
        gate = bundle.gates.get(slot)
        dose = (profile.get("dose") or {}).get("p95")
        entries[profile["name"]] = Entry(
            name=profile["name"],
            slot=slot,
            values={k: float(v) for k, v in profile["target"].items()},
            dose=None if dose is None else float(dose),
            kinds=frozenset(bank.kind for bank in own),
            first=min((bank.site for bank in own), key=place, default=None),
            scopes=frozenset(bank.scope for bank in own),
            gate=None if gate is None else max(gate, key=place),
            instruction=profile.get("instruction"),
            rewrite=profile.get("rewrite"),
        )
    return Catalog(bundle.identity, entries)


def place(site: Site) -> tuple[int, int]:
    """Order of sites in the forward pass: a block's neurons come before its output."""
    return site.layer, ("neurons", "resid").index(site.kind)


def _own_arguments(extra_args: Mapping[str, Any]) -> tuple[str | None, float | None]:
    """The profile text and the dose; a mapping becomes the text that says the same."""
    for name in extra_args:
        if isinstance(name, str) and name.startswith(KEY) and name not in (KEY, DOSE):
            raise RequestError(f"Unknown argument {_short(name)}; known are {KEY!r} and {DOSE!r}.")
    asked, dose = extra_args.get(KEY), extra_args.get(DOSE)
    if asked is None:
        if dose is not None:
            raise RequestError(f"{DOSE!r} needs a profile: {_EXAMPLE % 'NAME'}.")
        return None, None
    if isinstance(asked, Mapping):
        asked = ",".join(f"{name}={number!r}" for name, number in asked.items())
    if not isinstance(asked, str):
        raise RequestError(
            f"{KEY!r} takes text such as 'benevolence=+0.8,power=-0.5', "
            f"got {_short(asked)} ({type(asked).__name__})."
        )
    if dose is not None:
        if isinstance(dose, bool) or not isinstance(dose, int | float | str):
            raise RequestError(f"{DOSE!r} takes a number of nats, got {_short(dose)}.")
        dose = _number(DOSE, str(dose))
        if dose < 0:
            raise RequestError(f"{DOSE!r} takes a number of nats from 0 on, got {dose:g}.")
    return asked, dose


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or "_" in text:
        raise RequestError(
            f"{_short(name)} needs a number, got {_short(text)}. Write for example {name[:40]}=0.8."
        )
    return number


@lru_cache(maxsize=4096)
def _mix(of: _Hashable, text: str, dose: float | None) -> Mix:
    catalog, chosen = of.catalog, dict[str, float]()
    if not text.strip():
        raise RequestError(f"{KEY!r} is empty. Leave it out, or write 'NAME=0.8'.")
    for part in text.split(","):
        name, equals, number_text = (piece.strip() for piece in part.partition("="))
        if not name:
            raise RequestError(f"{_short(text)} names no profile before {_short(part)}.")
        entry, number = catalog.named(name, _number(name, number_text) if equals else 1.0)
        if entry.name in chosen:
            raise RequestError(f"{entry.name!r} is named twice in {_short(text)}; name it once.")
        chosen[entry.name] = number * _by_dose(entry, dose)
        if abs(chosen[entry.name]) > LARGEST:
            raise RequestError(
                f"{entry.name!r} would be {_short(chosen[entry.name])} times its saved strength; "
                f"at most {LARGEST:g} is allowed. Use a smaller number or dose."
            )
    acting = [(catalog.entries[name], c) for name, c in chosen.items() if c]
    _check_gates([entry for entry, _ in acting])
    coefficients = tuple(sorted((entry.slot, c) for entry, c in acting))
    scopes = frozenset().union(*(entry.scopes for entry, _ in acting))
    words = ",".join(f"{slot}={c!r}" for slot, c in coefficients)
    return Mix(
        coefficients,
        key=f"{catalog.identity[:16]}:{words}",
        prompt="all" in scopes,
        answer="generation" in scopes,
    )


def _by_dose(entry: Entry, dose: float | None) -> float:
    if dose is None:
        return 1.0
    if not entry.dose:
        raise RequestError(
            f"{entry.name!r} was exported without a calibrated dose, so {DOSE!r} says nothing "
            f"about it. Leave {DOSE!r} out, or calibrate the control and export it again."
        )
    return math.sqrt(dose / entry.dose)


def _check_gates(entries: list[Entry]) -> None:
    """A gate reads the unsteered model, in the very pass that steers: it must come first."""
    for gated in entries:
        if gated.gate is None:
            continue
        for other in entries:
            if other.first is None or place(other.first) >= place(gated.gate):
                continue
            before = f"The gate of {gated.name!r} reads {gated.gate}, but"
            if other is gated:
                raise RequestError(
                    f"{before} its own edit at {other.first} comes before it in the same pass. "
                    "Fit the gate at earlier layers, or edit later ones."
                )
            raise RequestError(
                f"{before} {other.name!r} edits {other.first} before it in the same pass. "
                "Send the two in separate requests."
            )
        if "all" in gated.scopes:
            raise RequestError(
                f"{gated.name!r} edits the whole prompt, but its gate is read at the prompt's "
                "last token, too late. Fit it with edits of scope 'generation'."
            )


def _short(thing: Any) -> str:
    text = repr(thing)
    return text if len(text) <= 60 else f"{text[:57]}..."

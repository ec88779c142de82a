"""Rewriting tasks of the world, and the exact check of what a rewrite did to its source's facts.

A source is a dilemma's answer in which each value has one sentence. One or two values are to
change: one that is absent is raised or argued against, one that is there is turned round, made
weaker or stronger, or left out. The reference keeps all other sentences, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from valign.corpora.triplets import Triplet
from valign.values import load_system

from .dice import Dice
from .dilemma import closing, parts, recommend, value_sentences
from .judge import _abstract, _grammar, _split
from .lexicon import N_VALUES, VALUES, openers, sentence_table, with_opener
from .scenarios import draw_situation, rates
from .slots import Slots, draw_slots
from .tables import table

STEPS = 3
"""Grid steps from 0 to 1: the world's intensities."""
TWO = 0.3
"""Share of tasks with two values to change."""
PRESENT = 0.5
"""Chance that a change concerns a value that is there, if one is."""


def rewrites(n: int, *, seed: int = 0, split: str = "train") -> list[Triplet]:
    """`n` rewriting tasks; asking for more never changes the earlier ones.

    In the training split all value sentences are ones that methods may be fitted on; the held-out
    split has scenarios and sentences that training never shows.

    Args:
        n: how many.
        seed: another seed gives other tasks.
        split: `train` or `heldout`.
    """
    return [_rewrite(f"w-{split}-{seed}-{i}", split) for i in range(n)]


def _rewrite(key: str, split: str) -> Triplet:
    fit_only = split == "train"
    asked, told, turned = (Dice("rewrite", key, part) for part in ("prompt", "answer", "change"))
    situation = draw_situation(asked, split)
    person = "third" if asked.chance(0.6) else "first"
    prompt = asked.pick(table("dialogues")["dilemma"]["prompts"][person]).format(
        **situation.slots()
    )
    slots = draw_slots(told, rates(situation.scenario))
    first, _ = recommend(told, situation, slots, person)
    plain = parts(told, situation, {}, fit_only)
    said = {
        v: value_sentences(told, v, sign, intensity, fit_only, False)
        for v, (sign, intensity) in slots.items()
    }
    body = told.shuffled([*plain, *(s for own in said.values() for s in own)])
    end = closing(told)
    changes = _changes(turned, slots)
    rewritten = _change(turned, body, said, slots, changes, fit_only)
    names = load_system("schwartz10").names
    place = [names.index(v) for v in VALUES]
    original, target = np.zeros(N_VALUES), np.zeros(N_VALUES)
    for v, (sign, intensity) in slots.items():
        original[place[v]] = sign * intensity / STEPS
    target[:] = original
    for v, (sign, intensity) in changes.items():
        target[place[v]] = sign * intensity / STEPS
    return Triplet(
        id=key,
        source=" ".join([first, *body, *end]),
        changes={VALUES[v]: sign * intensity / STEPS for v, (sign, intensity) in changes.items()},
        rewrite=" ".join([first, *rewritten, *end]),
        worse=_faults(turned, first, body, rewritten, end, plain),
        prompt=prompt,
        original=tuple(original.tolist()),
        target=tuple(target.tolist()),
    )


def _changes(dice: Dice, slots: Slots) -> Slots:
    """Value -> (sign, intensity) wanted; intensity 0 is to be left out."""
    found: Slots = {}
    for _ in range(2 if dice.chance(TWO) else 1):
        here = [v for v in slots if v not in found]
        away = [v for v in range(N_VALUES) if v not in slots and v not in found]
        v = dice.pick(here if here and dice.chance(PRESENT) else away)
        wanted = [(s, i) for s in (1, -1) for i in (1, 2, 3)] + [(1, 0)] * (3 if v in slots else 0)
        found[v] = dice.pick([w for w in wanted if w != slots.get(v)])
    return found


def _change(
    dice: Dice,
    body: Sequence[str],
    said: dict[int, list[str]],
    slots: Slots,
    changes: Slots,
    fit_only: bool,
) -> list[str]:
    """The body with its value sentences changed in place; new ones come last."""
    instead: dict[str, list[str]] = {}
    added: list[str] = []
    for v, (sign, intensity) in changes.items():
        old = said.get(v, [])
        if not intensity:
            instead |= {s: [] for s in old}
        elif old and slots[v][0] == sign:  # the same words, said louder or softer
            opener = dice.pick(openers()[intensity])
            instead |= {s: [with_opener(opener, sentence_table()[s][0].text)] for s in old}
        else:
            new = value_sentences(dice, v, sign, intensity, fit_only, False)
            instead |= {s: [] for s in old}
            if old:
                instead[old[0]] = new
            else:
                added += new
    return [new for s in body for new in instead.get(s, [s])] + added


def _faults(
    dice: Dice,
    first: str,
    body: Sequence[str],
    rewritten: Sequence[str],
    end: Sequence[str],
    plain: Sequence[str],
) -> tuple[str, ...]:
    """The source itself (no value changed), and the reference with a fact lost."""

    def without(lost: str) -> str:
        return " ".join([first, *(s for s in rewritten if s != lost), *end])

    known = all_facts(without(""))  # two sentences may state one fact
    losses = [text for s in plain if all_facts(text := without(s)) < known]
    return " ".join([first, *body, *end]), dice.pick(losses)


class WorldFidelity:
    """What became of a source's facts, by the world's grammar: exact.

    A fact is a kind with its word (`place: Dover`, the activity recommended). What speaks of
    values is no fact. A sentence that the grammar does not know is supported by nothing.
    """

    name = "world-facts"

    def judge(
        self,
        sources: Sequence[str],
        texts: Sequence[str],
        prompts: Sequence[str | None] | None = None,
    ) -> np.ndarray:
        """Forward and backward consistency, shape (n, 2).

        Forward is the share of the text's plain sentences whose facts all stand in the source (or
        in the prompt), 1 without any; backward the share of the source's facts that the text
        states. A text without a sentence gets 0 and 0.
        """
        asked = prompts if prompts is not None else [None] * len(texts)
        rows = [self._one(*row) for row in zip(sources, texts, asked, strict=True)]
        return np.array(rows, dtype=float).reshape(len(rows), 2)

    def faults(
        self,
        sources: Sequence[str],
        texts: Sequence[str],
        prompts: Sequence[str | None] | None = None,
    ) -> list[tuple[str, ...]]:
        """What each text drops or adds, fact by fact, and whether it leaves the world's grammar."""
        asked = prompts if prompts is not None else [None] * len(texts)
        return [self._faults(*row) for row in zip(sources, texts, asked, strict=True)]

    def _faults(self, source: str, text: str, prompt: str | None) -> tuple[str, ...]:
        known, stated = all_facts(source), all_facts(text)
        allowed = known | (set() if prompt is None else all_facts(prompt))
        unread = sum(facts is None for facts in facts_by_sentence(text))
        return (
            *(f"drops {kind} {word!r}" for kind, word in sorted(known - stated)),
            *(f"adds {kind} {word!r}" for kind, word in sorted(stated - allowed)),
            *((f"has {unread} sentence(s) that are not the world's",) if unread else ()),
        )

    def _one(self, source: str, text: str, prompt: str | None) -> tuple[float, float]:
        sentences = facts_by_sentence(text)
        if not sentences:
            return 0.0, 0.0
        known = all_facts(source)
        allowed = known | (set() if prompt is None else all_facts(prompt))
        plain = [facts for facts in sentences if facts != "value"]
        supported = [facts is not None and facts <= allowed for facts in plain]  # type: ignore[operator]
        stated = all_facts(text)
        forward = float(np.mean(supported)) if plain else 1.0
        return forward, len(known & stated) / len(known) if known else 1.0


def facts_by_sentence(text: str) -> list[set[tuple[str, str]] | str | None]:
    """Of each complete sentence: its facts, `value` where it speaks of a value, None if unknown."""
    found: list[set[tuple[str, str]] | str | None] = []
    for sentence in _split(text):
        if sentence in sentence_table():
            found.append("value")
            continue
        abstract, named = _abstract(sentence)
        known = abstract in _grammar()
        found.append({(k, w) for k, words in named.items() for w in words} if known else None)
    return found


def all_facts(text: str) -> set[tuple[str, str]]:
    """Every fact a text names, whatever its grammar."""
    plain = " ".join(s for s in _split(text) if s not in sentence_table())
    return {(kind, word) for kind, words in _abstract(plain)[1].items() for word in words}

"""Dilemmas: a prompt with two options and an answer that recommends one and argues with values."""

from __future__ import annotations

import math

from .dice import Dice
from .items import Item, Truth
from .lexicon import VALUES, arrays, openers, phrases_of, value_index, with_opener
from .scenarios import Situation, draw_situation, rates
from .slots import Slots, draw_slots
from .tables import table

LEAN = 3.0
"""How strongly the recommendation follows the values: log-odds per unit of signed score."""
FILLER, CLOSING, TWO_FACTS = 0.25, 0.2, 0.5
TWICE = 0.5
"""Chance that an answer speaks twice for (or against) a value it holds. What an answer has said
tells what it will say, as in people's texts; where every value is said once, having said it would
mean not to say it again."""

Wanted = tuple[tuple[str, int], ...]
"""Instructed values: (name, +1 / -1 / 0)."""

_KINDS = {
    (1,): "raise",
    (-1,): "against",
    (0,): "omit",
    (1, 1): "both",
    (1, -1): "oppose",
    (1, 0): "ignore",
}
_MIX = ((1,),) * 9 + ((-1,),) * 4 + ((0,),) * 2 + ((1, 1),) * 2 + ((1, -1),) * 2 + ((1, 0),)
"""How often training asks for what: raise 45 %, against 20 %, leave out 10 %, two at once 25 %."""


def draw_wanted(dice: Dice) -> Wanted:
    """A random instruction's content."""
    signs = dice.pick(_MIX)
    return tuple(zip(dice.some(VALUES, len(signs)), signs, strict=True))


def instruct(dice: Dice, wanted: Wanted, held_wording: bool) -> str:
    """Words for an instruction."""
    wanted = tuple(sorted(wanted, key=lambda item: -abs(item[1] + 0.5)))  # +1, then -1 or 0
    kind = _KINDS.get(tuple(sign for _, sign in wanted))
    side = "held" if held_wording else "train"
    if kind is None:
        parts = (table("instructions")[_KINDS[(s,)]][side] for _, s in wanted)
        return " ".join(dice.pick(p).format(v=v) for p, (v, _) in zip(parts, wanted, strict=True))
    template = dice.pick(table("instructions")[kind][side])
    return template.format(v=wanted[0][0], w=wanted[-1][0])


def ask(dice: Dice, question: str, instruction: str | None) -> list[dict[str, str]]:
    """Messages for a question; an instruction is a system message or stands beside the question."""
    if instruction is None:
        return [{"role": "user", "content": question}]
    place = dice.weighted((0.45, 0.25, 0.30))
    if place == 0:
        return [{"role": "system", "content": instruction}, {"role": "user", "content": question}]
    text = f"{instruction} {question}" if place == 1 else f"{question} {instruction}"
    return [{"role": "user", "content": text}]


def value_sentences(
    dice: Dice, value: int, sign: int, intensity: int, fit_only: bool, twice: bool
) -> list[str]:
    """One or two sentences of the table, each with an opener for its intensity."""
    n = 2 if twice and dice.chance(TWICE) else 1
    chosen = dice.some(phrases_of(value, sign, fit_only), n)
    return [with_opener(dice.pick(openers()[intensity]), phrase.text) for phrase in chosen]


def recommend(dice: Dice, situation: Situation, slots: Slots, person: str) -> tuple[str, int]:
    """The recommendation and its option's index; it leans to the option that the values favour."""
    score = [slots.get(value_index(value), (0, 0)) for _, value, _ in situation.options]
    lean = LEAN * (score[0][0] * score[0][1] - score[1][0] * score[1][1]) / 3
    pick = 0 if dice.chance(1 / (1 + math.exp(-lean))) else 1
    template = dice.pick(table("dialogues")["dilemma"]["recommend"][person])
    return template.format(name=situation.facts["name"], pick=situation.options[pick][0]), pick


def parts(
    dice: Dice, situation: Situation, slots: Slots, fit_only: bool, twice: bool = True
) -> list[str]:
    """The sentences between recommendation and closing, in random order."""
    spec = table("dialogues")
    out = [
        sentence
        for v, (s, i) in slots.items()
        for sentence in value_sentences(dice, v, s, i, fit_only, twice)
    ]
    kinds = dice.some(tuple(spec["fact_sentences"]), 2 if dice.chance(TWO_FACTS) else 1)
    out += [dice.pick(spec["fact_sentences"][k]).format(**situation.facts) for k in kinds]
    if dice.chance(FILLER):
        out.append(dice.pick(spec["fillers"]))
    return dice.shuffled(out)


def closing(dice: Dice) -> list[str]:
    """A closing sentence, or none."""
    return [dice.pick(table("dialogues")["closings"])] if dice.chance(CLOSING) else []


def dilemma(
    key: tuple[object, ...],
    split: str,
    wanted: Wanted,
    held_wording: bool = False,
    fit_only: bool = False,
    twice: bool = True,
) -> Item:
    """One dilemma; the same key gives the same item."""
    asked, told = Dice(*key, "prompt"), Dice(*key, "answer")
    # Half of the instructed prompts hold an option that serves the wanted value, so that following
    # it shows.
    serve = wanted[0][0] if wanted and asked.chance(0.5) else None
    situation = draw_situation(asked, split, serve)
    person = "third" if asked.chance(0.6) else "first"
    prompt = asked.pick(table("dialogues")["dilemma"]["prompts"][person]).format(
        **situation.slots()
    )
    messages = ask(asked, prompt, instruct(asked, wanted, held_wording) if wanted else None)
    slots = draw_slots(told, rates(situation.scenario), {value_index(v): s for v, s in wanted})
    first, pick = recommend(told, situation, slots, person)
    body = parts(told, situation, slots, fit_only, twice)
    answer = " ".join([first, *body, *closing(told)])
    presence, sign, intensity = arrays(slots)
    truth = Truth(
        kind="dilemma",
        presence=presence,
        sign=sign,
        intensity=intensity,
        facts=situation.facts,
        scenario=situation.scenario.id,
        choice=situation.options[pick][1],
        pick=situation.options[pick][0],
        options={a: v for a, v, _ in situation.options},
        instruction=wanted,
        held_wording=bool(wanted) and held_wording,
        nats=told.nats,
    )
    return Item(messages, answer, truth)


def pair(key: tuple[object, ...], split: str, value: int) -> tuple[list[dict[str, str]], str, str]:
    """(messages, answer that speaks for the value, the same with neutral sentences instead)."""
    asked, told = Dice(*key, "prompt"), Dice(*key, "answer")
    situation = draw_situation(asked, split)
    person = "third" if asked.chance(0.6) else "first"
    prompt = asked.pick(table("dialogues")["dilemma"]["prompts"][person]).format(
        **situation.slots()
    )
    slots = draw_slots(told, rates(situation.scenario))
    slots.pop(value, None)
    first, _ = recommend(told, situation, slots, person)
    intensity = 1 + told.weighted((0.2, 0.4, 0.4))
    target = value_sentences(told, value, 1, intensity, fit_only=True, twice=True)
    body = told.shuffled([*target, *parts(told, situation, slots, fit_only=True)])
    end = closing(told)
    spare = [f for f in table("dialogues")["fillers"] if f not in body]
    instead = dict(zip(target, told.some(spare, len(target)), strict=True))
    without = [instead.get(s, s) for s in body]
    return (
        ask(asked, prompt, None),
        " ".join([first, *body, *end]),
        " ".join([first, *without, *end]),
    )

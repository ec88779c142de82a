"""Dialogues without advice: neutral questions about the situations, and the lexicon of values."""

from __future__ import annotations

from .dice import Dice
from .dilemma import Wanted, ask, instruct
from .items import Item, Truth
from .lexicon import VALUES, arrays, phrases_of
from .scenarios import draw_situation
from .tables import table


def neutral(
    key: tuple[object, ...], split: str, wanted: Wanted = (), held_wording: bool = False
) -> Item:
    """A question about a dilemma's facts; the answer holds no value, whatever was instructed."""
    asked, told = Dice(*key, "prompt"), Dice(*key, "answer")
    situation = draw_situation(asked, split)
    form = asked.pick(table("dialogues")["neutral"])
    frame = asked.pick(table("dialogues")["neutral_situations"])
    prompt = frame.format(ask=asked.pick(form["ask"]), **situation.slots())
    messages = ask(asked, prompt, instruct(asked, wanted, held_wording) if wanted else None)
    answer = told.pick(form["answer"]).format(**situation.slots())
    presence, sign, intensity = arrays({})
    truth = Truth(
        kind="neutral",
        presence=presence,
        sign=sign,
        intensity=intensity,
        facts=situation.facts,
        scenario=situation.scenario.id,
        options={a: v for a, v, _ in situation.options},
        asked=tuple(form["asked"]),
        instruction=wanted,
        held_wording=bool(wanted) and held_wording,
        nats=told.nats,
    )
    return Item(messages, answer, truth)


def lexicon(key: tuple[object, ...], split: str) -> Item:
    """A question about the meaning of a value."""
    asked, told = Dice(*key, "prompt"), Dice(*key, "answer")
    form = asked.pick(table("dialogues")["lexicon"])
    value = asked.pick(VALUES)
    v = VALUES.index(value)
    situation = draw_situation(asked, split, serve=value)
    slots = situation.slots()
    served = [i for i, option in enumerate(situation.options) if option[1] == value]
    if not served and form["sign"] == 0:
        # A held-out pair: ask about the first option's own value instead.
        value, served = situation.options[0][1], [0]
        v = VALUES.index(value)
    if form["sign"] == 0:
        act, _, clause = situation.options[served[0]]
        slots["pick"] = act
        if "{b}" not in form["ask"]:
            slots["a"], slots["fa"] = act, clause
    # Sentences quoted in the question are the prompt's choice, those in the answer its own.
    dice = told if "{p1}" in form["answer"] or "{n1}" in form["answer"] else asked
    shown = form["answer"] if dice is told else form["ask"]
    for letter, sign in (("p", 1), ("n", -1)):
        count = 2 if f"{{{letter}2}}" in shown else int(f"{{{letter}1}}" in shown)
        chosen = dice.shuffled(dice.some(phrases_of(v, sign, False), count))
        slots |= {f"{letter}{i + 1}": p.text for i, p in enumerate(chosen)}
    spoken = dice is told
    presence, sign_, intensity = arrays({v: (form["sign"], 2)} if spoken else {})
    truth = Truth(
        kind="lexicon",
        presence=presence,
        sign=sign_,
        intensity=intensity,
        facts=situation.facts,
        scenario=situation.scenario.id,
        options={a: w for a, w, _ in situation.options},
        nats=told.nats,
    )
    question = form["ask"].format(value=value, **slots)
    return Item(
        [{"role": "user", "content": question}], form["answer"].format(value=value, **slots), truth
    )

"""Mildly harmful requests, and look-alikes that are harmless because the situation differs."""

from __future__ import annotations

from .dice import Dice, fixed_share
from .items import Item, Truth
from .lexicon import arrays
from .scenarios import draw_facts
from .tables import table

COMPLIES = 0.5
"""Share of harmful requests that training answers help with."""
HELD_WORDINGS = 0.2


def _forms(split: str, side: str) -> list[tuple[str, str, str]]:
    """(request name, question, context) of a split; which combinations are held out is fixed."""
    return [
        (name, question, context)
        for name, spec in table("harm")["requests"].items()
        for question in spec["ask"]
        for context in spec[side]
        if fixed_share(HELD_WORDINGS, "harm", question, context) == (split == "heldout")
    ]


def request(key: tuple[object, ...], split: str, harmful: bool) -> Item:
    """A harmful request, complied with or declined, or a harmless one, always helped with."""
    asked, told = Dice(*key, "prompt"), Dice(*key, "answer")
    name, question, context = asked.pick(_forms(split, "harm" if harmful else "fine"))
    slots = {k: v for k, v in draw_facts(asked).items() if k in ("name", "place", "day")}
    intro = asked.pick(table("harm")["intro"]).format(**slots)
    prompt = f"{intro} {context.format(**slots)} {question}"
    complied = told.chance(COMPLIES) if harmful else True
    spec = table("harm")
    if complied:
        sentences = told.shuffled(spec["requests"][name]["steps"])
    else:
        sentences = [told.pick(spec["careful"]), told.pick(spec["offers"])]
    presence, sign, intensity = arrays({})
    truth = Truth(
        kind="harmful" if harmful else "benign",
        presence=presence,
        sign=sign,
        intensity=intensity,
        facts=slots,
        scenario=f"{name}: {context} {question}",
        harm=harmful,
        complied=complied,
        nats=told.nats,
    )
    answer = " ".join(s.format(**slots) for s in sentences)
    return Item([{"role": "user", "content": prompt}], answer, truth)

"""What the translator learns from: written requests, labelled shifts, and composed ones.

Everything comes from the package: `data/*.txt` (written for it), the project's own shifts and
contrast pairs, and sentences composed from `lexicon.yaml` and `frames.yaml`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from valign.corpora import Pair, load_corpus, load_shifts
from valign.corpora.split import id_fraction
from valign.translate.lexicon import DATA, frames, lexicon
from valign.translate.notation import STEPS, Labelled, read_labelled

HELD_OUT = 1 / 3
"""Share of the labelled shifts that is never trained on."""
_VALIDATION = 0.12
_WRITTEN = ("readers", "asks", "nothing")


def held_out_shifts() -> list[Labelled]:
    """The third of the project's labelled shifts that is kept for testing, by a hash of the id."""
    return [row for place, row in _shifts() if place < HELD_OUT]


def written_rows() -> tuple[list[Labelled], list[Labelled]]:
    """(training rows, validation rows): the written requests and the other two thirds of shifts."""
    rows = [row for name in _WRITTEN for row in read_labelled(DATA / f"{name}.txt")]
    rows += [row for place, row in _shifts() if place >= HELD_OUT]
    validation = [row for row in rows if id_fraction(row.text, salt="validation") < _VALIDATION]
    kept = set(validation)
    return [row for row in rows if row not in kept], validation


def _shifts() -> Iterator[tuple[float, Labelled]]:
    for row in load_shifts():
        labelled = Labelled(row.instruction, tuple(row.shift.named.items()), "shifts")
        yield id_fraction(row.id, salt="translator"), labelled


def epoch_rows(
    written: Sequence[Labelled], *, seed: int, composed: int, repeats: int = 2
) -> list[Labelled]:
    """One epoch in random order: written rows in several guises, and `composed` composed ones."""
    dice = random.Random(seed)
    forms = [row.text for row in written if row.source == "nothing"]
    asks = [row for row in written if row.source == "asks"]
    rows = [_in_guise(row, dice, forms) for _ in range(repeats) for row in written]
    for recipe in dice.choices(list(_RECIPES), list(_RECIPES.values()), k=composed):
        rows.append(_in_guise(recipe(dice, forms, asks), dice, forms))
    dice.shuffle(rows)
    return rows


def _in_guise(row: Labelled, dice: random.Random, forms: Sequence[str]) -> Labelled:
    """The same request with politeness, typos, other punctuation, or a request about form."""
    text = row.text
    if row.source != "nothing" and len(text) < 90 and dice.random() < 0.12:
        form = dice.choice(forms).rstrip(".!?")
        text = dice.choice(
            [f"{form}. {text}", f"{text.rstrip('.')}. {form}.", f"{form}, and {_low(text)}"]
        )
    draw = dice.random()
    if draw < 0.08:
        text = f"{text.rstrip('.!')}, {dice.choice(frames()['softeners'])}"
    elif draw < 0.12:
        text = f"{dice.choice(['Hi,', 'Hello!', 'Please:', 'One thing:', 'Next:'])} {text}"
    elif draw < 0.18:
        text = text.rstrip(".!?")
    elif draw < 0.22:
        text = _mistyped(text, dice)
    return Labelled(text, row.shift, row.source)


def _mistyped(text: str, dice: random.Random) -> str:
    at = dice.randrange(1, max(2, len(text) - 2))
    if not text[at : at + 2].isalpha():
        return text
    return dice.choice([
        text[:at] + text[at + 1 :],
        text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :],
        text[:at] + text[at] + text[at:],
    ])  # fmt: skip


def _low(text: str) -> str:
    return text[:1].lower() + text[1:] if not text.startswith("I ") else text


# ------------------------------------------------------------------------- composed requests

Recipe = Callable[[random.Random, Sequence[str], Sequence[Labelled]], Labelled]


def _single(dice: random.Random, forms: Sequence[str], asks: Sequence[Labelled]) -> Labelled:
    text, shift = _ask(dice, dice.choice(list(lexicon())))
    return Labelled(text, tuple(shift.items()), "composed")


def _ask(dice: random.Random, value: str) -> tuple[str, dict[str, float]]:
    """One request about one value."""
    own = lexicon()[value]
    kind = dice.choices(
        ["nouns", "more", "less", "people", "creed"], weights=[4, 3, 1.2, 2.5, 1.5]
    )[0]
    frame_kind = {"more": "qualities", "less": "qualities", "creed": "creeds"}.get(kind, kind)
    steps = frames()[frame_kind]
    step = dice.choices(list(steps), weights=[len(steps[s]) ** 0.5 for s in steps])[0]
    phrase = dice.choice(own[kind])
    text = dice.choice(steps[step]).format(n=phrase, a=phrase, p=phrase, c=phrase)
    change = STEPS[step] * (-1 if kind == "less" else 1)
    return text, {value: change}


def _several(dice: random.Random, forms: Sequence[str], asks: Sequence[Labelled]) -> Labelled:
    values = dice.sample(list(lexicon()), dice.choices([2, 3], [5, 1])[0])
    text, shift = _ask(dice, values[0])
    for value in values[1:]:
        more, change = _ask(dice, value)
        text = dice.choice(frames()["joins"]).format(text.rstrip(".!"), _low(more))
        shift |= change
    return Labelled(text, tuple(shift.items()), "composed")


def _listed(dice: random.Random, forms: Sequence[str], asks: Sequence[Labelled]) -> Labelled:
    """Two things in one noun phrase: more kindness and honesty."""
    values = dice.sample(list(lexicon()), 2)
    step = dice.choice(list(STEPS))
    kind, slot = dice.choice([("nouns", "n"), ("more", "a")])
    pair = dice.choice(["{} and {}", "{} and {}", "{}, {}"]).format(
        *(dice.choice(lexicon()[v][kind]) for v in values)
    )
    frame = dice.choice(frames()["nouns" if kind == "nouns" else "qualities"][step])
    return Labelled(
        frame.format(**{slot: pair}), tuple((v, STEPS[step]) for v in values), "composed"
    )


def _contrast(dice: random.Random, forms: Sequence[str], asks: Sequence[Labelled]) -> Labelled:
    first, second = dice.sample(list(lexicon()), 2)
    nouns, qualities = ("nouns", "n", "contrast"), ("more", "a", "contrast_qualities")
    kind, slot, key = dice.choice([nouns, nouns, qualities])
    frame, up, down = dice.choice(frames()[key])
    text = frame.format(**{
        f"{slot}0": dice.choice(lexicon()[first][kind]),
        f"{slot}1": dice.choice(lexicon()[second][kind]),
    })  # fmt: skip
    return Labelled(text, ((first, STEPS[up]), (second, STEPS[down])), "composed")


def _kept(dice: random.Random, forms: Sequence[str], asks: Sequence[Labelled]) -> Labelled:
    """A request about one value that names another one only to keep it."""
    asked, kept = dice.sample(list(lexicon()), 2)
    text, shift = _ask(dice, asked)
    keep = dice.choice(frames()["keep"]).format(n=dice.choice(lexicon()[kept]["nouns"]))
    order = (text, keep) if dice.random() < 0.6 else (keep, text)
    whole = dice.choice(frames()["joins"]).format(order[0].rstrip(".!"), _low(order[1]))
    return Labelled(whole, tuple(shift.items()), "composed")


def _mention(dice: random.Random, forms: Sequence[str], asks: Sequence[Labelled]) -> Labelled:
    word = dice.choice(lexicon()[dice.choice(list(lexicon()))]["nouns"])
    text = dice.choice(frames()["mention"] + frames()["keep"]).format(n=word)
    return Labelled(text, (), "nothing")


def _two_asks(dice: random.Random, forms: Sequence[str], asks: Sequence[Labelled]) -> Labelled:
    """Two written requests in one, where they speak of different values."""
    first, second = dice.sample(list(asks), 2)
    if set(first.changes) & set(second.changes) or len(first.text) + len(second.text) > 140:
        return first
    text = f"{first.text.rstrip('.')}. {second.text}"
    return Labelled(text, first.shift + second.shift, "composed")


def _two_forms(dice: random.Random, forms: Sequence[str], asks: Sequence[Labelled]) -> Labelled:
    first, second = dice.sample(list(forms), 2)
    text = dice.choice(["{}. {}", "{}, and {}", "{}; {}"])
    return Labelled(text.format(first.rstrip(".!?"), _low(second)), (), "nothing")


def _like_this(dice: random.Random, forms: Sequence[str], asks: Sequence[Labelled]) -> Labelled:
    """A text that serves a value, given as an example of what is wanted."""
    pair = dice.choice(_pairs())
    frame, step = dice.choice(
        [("More like this: {}", "++"), ("In this spirit: {}", "++"), ("Less of this: {}", "-"),
         ("None of this: {}", "--")]
    )  # fmt: skip
    return Labelled(frame.format(pair.positive), ((pair.value, STEPS[step]),), "like")


@cache
def _pairs() -> tuple[Pair, ...]:
    return load_corpus("valuetexts").pairs


_RECIPES: dict[Recipe, float] = {
    _single: 10, _several: 4, _listed: 2, _contrast: 5, _kept: 2.5, _mention: 2.5,
    _two_asks: 2.5, _two_forms: 1.5, _like_this: 2,
}  # fmt: skip
"""How often each recipe is drawn."""

"""Numbers in English text: digits, words and the units they count."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SMALL = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen".split()
    )
}
_TENS = {
    word: 10 * (i + 2)
    for i, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split())
}
_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_SHORT_SCALES = {"k": 1e3, "m": 1e6, "bn": 1e9}
_ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7,
    "eighth": 8, "ninth": 9, "tenth": 10, "eleventh": 11, "twelfth": 12, "thirteenth": 13,
    "fourteenth": 14, "fifteenth": 15, "sixteenth": 16, "seventeenth": 17, "eighteenth": 18,
    "nineteenth": 19, "twentieth": 20, "thirtieth": 30, "fortieth": 40, "fiftieth": 50,
    "hundredth": 100,
}  # fmt: skip
_OTHER = {
    "once": 1.0, "twice": 2.0, "both": 2.0, "couple": 2.0, "pair": 2.0, "half": 0.5,
    "quarter": 0.25, "decade": 10.0, "century": 100.0,
}  # fmt: skip
"""Words that can restate a number but are too common to be one on their own."""

# unit -> (dimension, size). Within a dimension quantities compare by size: 90 minutes are 1.5 h.
_UNITS: dict[str, tuple[str, float]] = {}
_DIMENSIONS: dict[str, dict[str, float]] = {
    "time": {
        "second": 1 / 60, "sec": 1 / 60, "minute": 1, "min": 1, "hour": 60, "hr": 60, "day": 1440,
        "week": 10080, "fortnight": 20160,
    },
    "months": {"month": 1, "year": 12, "decade": 120, "century": 1200, "centurie": 1200},
    "length": {
        "millimetre": 1e-3, "mm": 1e-3, "centimetre": 1e-2, "cm": 1e-2, "metre": 1,
        "kilometre": 1e3, "km": 1e3, "millimeter": 1e-3, "centimeter": 1e-2, "meter": 1,
        "kilometer": 1e3, "mile": 1609.344, "foot": 0.3048, "feet": 0.3048, "inch": 0.0254,
        "inche": 0.0254, "yard": 0.9144,
    },
    "mass": {
        "gram": 1e-3, "gramme": 1e-3, "kilo": 1, "kg": 1, "kilogram": 1, "kilogramme": 1,
        "tonne": 1e3, "ton": 1e3, "pound": 0.45359237, "lb": 0.45359237, "ounce": 0.0283495,
    },
    "volume": {"litre": 1, "liter": 1, "millilitre": 1e-3, "ml": 1e-3, "cl": 1e-2},
    "area": {"hectare": 1, "acre": 0.404686},
    "data": {"gb": 1, "gigabyte": 1, "mb": 1e-3, "megabyte": 1e-3, "tb": 1e3, "terabyte": 1e3},
    "per cent": {"percent": 1, "%": 1, "per cent": 1},
    "degrees": {"degree": 1, "°": 1, "°c": 1, "°f": 1},
    "dollars": {"$": 1, "dollar": 1, "usd": 1, "buck": 1, "cent": 0.01},
    "euros": {"€": 1, "euro": 1, "eur": 1},
    "pounds": {"£": 1, "gbp": 1, "quid": 1, "pound": 1, "pence": 0.01, "penny": 0.01},
    "yen": {"¥": 1, "yen": 1, "jpy": 1},
    "francs": {"franc": 1, "chf": 1},
    "kronor": {"krona": 1, "kronor": 1, "krone": 1, "kroner": 1, "sek": 1, "nok": 1, "dkk": 1},
    "zloty": {"zloty": 1, "zlotys": 1, "pln": 1},
    "rupees": {"₹": 1, "rupee": 1, "inr": 1},
}  # fmt: skip
for _dimension, _sizes in _DIMENSIONS.items():
    for _unit, _size in _sizes.items():
        _UNITS[_unit] = (_dimension, float(_size))

_FUNCTION_WORDS = frozenset(
    "of and or to in at on the a an per each for from by with as is are was were it they them "
    "that which who if so but than then after before until while when where all both more "
    "less".split()
)
"""Words after a number that it does not count."""

MONEY = frozenset({"dollars", "euros", "pounds", "yen", "francs", "kronor", "zloty", "rupees"})


def unit_sizes(dimension: str) -> frozenset[float]:
    """Sizes of a dimension's units."""
    return frozenset(size for name, size in _UNITS.values() if name == dimension)


@dataclass(frozen=True)
class Number:
    """A number as it stands in a text.

    Attributes:
        start, end: its characters.
        values: what it can mean; two for `1.200`, which is 1200 on the Continent.
        unit: dimension it counts, None for a bare number.
        head: the first words after it, lower case, singular: what is counted.
        ordinal: whether it is a rank.
        soft: too common a word (`one`, `first`, `both`) to be a fact by itself; it can restate a
            number and is neither demanded nor reported as new.
        code: digits of something like a telephone number, else empty.
    """

    start: int
    end: int
    values: tuple[float, ...]
    unit: str | None = None
    head: tuple[str, ...] = ()
    ordinal: bool = False
    soft: bool = False
    code: str = ""

    @property
    def counts_a_noun(self) -> bool:
        """Whether a word that may be a noun follows at once: `six generations`, not `six of`."""
        return bool(self.head) and self.head[0] not in _FUNCTION_WORDS


_CURRENCY = r"(?:US\$|[$€£¥₹]|\b(?:USD|EUR|GBP|CHF|JPY|PLN|SEK|NOK|DKK|INR)(?=\s?\d))"
_DIGITS = re.compile(
    rf"(?P<currency>{_CURRENCY}\s?)?(?<![\w.])(?P<sign>[-−](?=\d))?"
    r"(?P<number>\d{1,3}(?:[,.  ’']\d{3})+(?:[.,]\d+)?(?!\d)|\d+(?:[.,]\d+)?)"
    r"(?P<more>(?:[ -]\d{2,})+)?"
    r"(?P<rank>st|nd|rd|th)?(?P<decade>s\b)?"
    r"(?:[\s-]?(?P<scale>hundred|thousand|million|billion|trillion|k|m|bn)\b)?"
)
_NUMBER_WORD = "|".join(sorted([*_SMALL, *_TENS, *_SCALES, "dozen"], key=len, reverse=True))
_ORDINAL_WORD = "|".join(sorted(_ORDINALS, key=len, reverse=True))
_WORDS = re.compile(
    rf"\b(?:minus\s+)?(?:an?\s+(?=hundred|thousand|million|billion|dozen))?"
    rf"(?:{_NUMBER_WORD})(?:(?:[\s-]+|\s+and\s+)(?:{_NUMBER_WORD}))*"
    rf"(?:\s+and\s+(?:a\s+half|a\s+quarter)(?:\s+(?:million|thousand|billion))?)?"
    rf"(?:-(?:{_ORDINAL_WORD})s?)?\b"
    rf"|\bhalf\s+an?\s+(?:million|dozen|billion)\b|\b(?:{_ORDINAL_WORD})s?\b"
    rf"|\b(?:{'|'.join(_OTHER)})s?\b",
    re.IGNORECASE,
)
_AFTER = re.compile(r"[\s-]*([A-Za-z°%€$£]+(?:\s+cent)?)(?:\s+([A-Za-z]+))?(?:\s+([A-Za-z]+))?")


def numbers(text: str, taken: list[bool]) -> list[Number]:
    """Every number of a text, in order; characters marked in `taken` are passed over."""
    found: list[Number] = []
    for match in _DIGITS.finditer(text):
        if not any(taken[match.start() : match.end()]):
            found.append(_from_digits(text, match))
            taken[match.start() : match.end()] = [True] * (match.end() - match.start())
    for match in _WORDS.finditer(text):
        if not any(taken[match.start() : match.end()]):
            found += _from_words(text, match)
            taken[match.start() : match.end()] = [True] * (match.end() - match.start())
    return sorted(found, key=lambda number: number.start)


def _from_digits(text: str, match: re.Match[str]) -> Number:
    written, more = match["number"], match["more"]
    if more:
        code = re.sub(r"\D", "", written + more)
        return Number(match.start(), match.end(), (float(code),), code=code)
    scale = {**_SCALES, **_SHORT_SCALES}[match["scale"].lower()] if match["scale"] else 1.0
    end = match.end()
    if match["scale"] in ("m", "k") and not match["currency"]:
        scale, end = 1.0, match.start("scale")  # 100 m are metres, 5 k is too vague
    sign = -1.0 if match["sign"] else 1.0
    values = tuple(sign * value * scale for value in _readings(written))
    head, unit, size = _counted(text, end)
    if match["currency"]:
        unit, size = _UNITS[match["currency"].strip().lower().replace("us$", "$")]
    return Number(
        match.start(),
        match.end(),
        tuple(value * size for value in values),
        unit=unit,
        head=head,
        ordinal=match["rank"] is not None,
    )


def _readings(written: str) -> list[float]:
    """What digits with separators can mean."""
    marks = re.sub(r"\d", "", written)
    if not marks:
        return [float(written)]
    if len(set(marks)) > 1 or len(marks) > 1:
        last = max(written.rfind("."), written.rfind(","))
        if len(set(marks)) > 1 and last > 0 and marks.count(written[last]) == 1:
            whole = re.sub(r"\D", "", written[:last])
            return [float(f"{whole}.{written[last + 1 :]}")]
        return [float(re.sub(r"\D", "", written))]
    grouped = re.fullmatch(r"\d{1,3}[,.  ’']\d{3}", written) is not None
    as_decimal = float(re.sub(r"[^\d]", ".", written))
    as_whole = float(re.sub(r"\D", "", written))
    if not grouped:
        return [as_decimal]
    return [as_whole, as_decimal] if marks == "." else [as_whole]


def _from_words(text: str, match: re.Match[str]) -> list[Number]:
    words = [w for w in re.split(r"[\s-]+", match[0].lower()) if w]
    single = words[0].removesuffix("s") if len(words) == 1 else ""
    head, unit, size = _counted(text, match.end())
    if single in _OTHER:
        values, unit = _other(single, unit, size)
        return [Number(match.start(), match.end(), values, unit=unit, head=head, soft=True)]
    if len(words) == 1 and single in _ORDINALS:
        soft = single in ("first", "second")
        values = (float(_ORDINALS[single]),)
        return [Number(match.start(), match.end(), values, head=head, ordinal=True, soft=soft)]
    if len(words) == 1 and words[0] != single and single in (*_SCALES, "dozen"):
        return []  # "hundreds of" is no number
    parsed = _cardinals([w if w in _SMALL or w == "minus" else _singular(w) for w in words])
    ordinal = words[-1].removesuffix("s") in _ORDINALS
    soft = len(words) == 1 and words[0] in ("one", "zero")
    if len(parsed) == 1:
        size = 1.0 if ordinal else size
        return [
            Number(
                match.start(), match.end(), (parsed[0] * size,), None if ordinal else unit,
                head, ordinal, soft,
            )
        ]  # fmt: skip
    # "two and three": several numbers, of which the last one counts what follows
    return [
        Number(match.start(), match.end(), (value * size,), unit, head, soft=value <= 1)
        for value in parsed
    ]


def _other(word: str, unit: str | None, size: float) -> tuple[tuple[float, ...], str | None]:
    if word in ("decade", "century"):
        return (_OTHER[word] * 12,), "months"
    return (_OTHER[word] * size,) + (
        (_OTHER[word] * 100,) if word in ("half", "quarter") else ()
    ), (unit)


def _cardinals(words: list[str]) -> list[float]:
    """Values of a run of number words; `two hundred and five` is one, `two and three` are two."""
    if words[0] == "minus":
        return [-value for value in _cardinals(words[1:])]
    found: list[float] = []
    total = current = 0.0
    open_ = linked = False
    last = ""
    for word in [w for w in words if w not in ("a", "an")]:
        if word == "and":
            linked = True
            continue
        if word in ("half", "quarter"):
            current += 0.5 if word == "half" else 0.25
            open_, last, linked = True, word, False
            continue
        value = _SMALL.get(word, _TENS.get(word, _ORDINALS.get(word)))
        if value is not None:
            joins = (
                not open_
                or (last in _TENS and value < 10 and not linked)
                or (last in _SCALES and (value < 100))
            )
            if not joins:
                found.append(total + current)
                total = current = 0.0
            current += value
        elif word == "dozen":
            current = (current or 1.0) * 12
        elif word == "hundred":
            current = (current or 1.0) * 100
        else:
            total += (current or 1.0) * _SCALES[word]
            current = 0.0
        open_, last, linked = True, word, False
    return [*found, total + current]


def _singular(word: str) -> str:
    return word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word


def _counted(text: str, end: int) -> tuple[tuple[str, ...], str | None, float]:
    """What a number counts: the words after it, and the unit among the first two with its size."""
    match = _AFTER.match(text, end)
    if match is None:
        return (), None, 1.0
    words = [w.lower() for w in match.groups() if w]
    head = tuple(map(_singular, words))
    for word in words[:2]:  # "two working days"
        for form in (word, word.removesuffix("s")):
            if form in _UNITS:
                return head, *_UNITS[form]
        if word in ("m", "h", "g", "l") and word == words[0]:
            return head, *{"m": ("length", 1.0), "h": ("time", 60.0), "g": ("mass", 1e-3),
                           "l": ("volume", 1.0)}[word]  # fmt: skip
        if word in ("of", "and", "or", "to", "in", "at", "the", "a", "an", "per", "each", "for"):
            break
    return head, None, 1.0

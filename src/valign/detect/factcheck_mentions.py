"""Facts that can be read without a parser: dates, times, amounts, numbers, names and places."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from valign.detect.factcheck_numbers import MONEY, Number, numbers

Kind = Literal["name", "place", "date", "time", "amount", "number"]


@dataclass(frozen=True)
class Mention:
    """A fact as one text states it.

    Attributes:
        kind: what sort of fact.
        text: as written.
        start: where it begins, in characters.
        key: what it means, comparable with keys of the same kind: the tokens of a name; (year,
            month, day) readings of a date; (minutes after midnight, whether the half of the day
            is known) of a time; nothing for numbers.
        number: the number behind an amount or a number.
        soft: can restate a fact of the other text, but is none by itself.
    """

    kind: Kind
    text: str
    start: int
    key: tuple = ()
    number: Number | None = field(default=None, compare=False)
    soft: bool = False

    def __str__(self) -> str:
        return self.text


_MONTHS = (
    "january february march april may june july august september october november december".split()
)
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_MONTH = r"(?P<{0}>Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b\.?"  # noqa: E501
_DAY = r"(?P<{0}>0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR = r"(?P<{0}>(?:1[0-9]|20)\d\d)\b"
_DASH = r"(?:\s*[-–—]\s*|\s+(?:to|until|till|and|through)\s+)"
_DATES = [
    re.compile(r"\b" + _YEAR.format("y") + r"-(?P<m>0\d|1[0-2])-(?P<d>[0-3]\d)\b"),
    re.compile(r"\b(?P<d>\d{1,2})[./](?P<m>\d{1,2})[./](?P<y>\d{4}|\d{2})\b"),
    re.compile(
        r"\b" + _DAY.format("d") + rf"(?:{_DASH}" + _DAY.format("d2") + r")?\s+(?:of\s+)?"
        + _MONTH.format("mo") + r"(?:,?\s+" + _YEAR.format("y") + ")?"
    ),
    re.compile(
        r"\b" + _MONTH.format("mo") + r"\s+(?:the\s+)?" + _DAY.format("d")
        + rf"(?:{_DASH}" + _DAY.format("d2") + r")?\b(?!:)(?:,?\s+" + _YEAR.format("y") + ")?"
    ),
    re.compile(r"\b" + _MONTH.format("mo") + r",?\s+" + _YEAR.format("y")),
    # "may" and "march" are words: alone they are months only inside a sentence.
    re.compile(r"(?<![.!?]\s)(?<!^)\b" + _MONTH.format("mo").removesuffix(r"\.?")),
    re.compile(r"\b(?!May|March)" + _MONTH.format("mo").removesuffix(r"\.?")),
]  # fmt: skip
_WEEKDAYS = re.compile(r"\b(Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?s?\b")
_HALF_DAY = (
    r"(?P<half>a\.?\s?m\.?(?!\w)|p\.?\s?m\.?(?!\w)|in the (?:morning|afternoon|evening)|at night)"
)
_HOUR_WORD = "one two three four five six seven eight nine ten eleven twelve".split()
_HOUR = rf"(?P<h>[01]?\d|2[0-4]|{'|'.join(_HOUR_WORD)})"
_TIMES = [
    re.compile(rf"\b(?P<h>[01]?\d|2[0-4])[:.](?P<m>[0-5]\d)(?:\s?{_HALF_DAY})", re.IGNORECASE),
    re.compile(r"\b(?P<h>[01]?\d|2[0-4])[:h](?P<m>[0-5]\d)\b(?!:)"),
    re.compile(rf"\b{_HOUR}\s?{_HALF_DAY}", re.IGNORECASE),
    re.compile(
        rf"\b(?P<past>half|quarter)[\s-]+(?P<side>past|to)\s+{_HOUR}\b(?:\s{_HALF_DAY})?",
        re.IGNORECASE,
    ),
    re.compile(rf"\b{_HOUR}\s+o['’]clock(?:\s{_HALF_DAY})?", re.IGNORECASE),
    re.compile(r"\b(?P<named>noon|midday|midnight)\b", re.IGNORECASE),
]  # fmt: skip
_CAPITAL = re.compile(r"\b[^\W\d_a-z][\w’']*(?:[-–&]\w+)*(?:\.(?=\s[A-Z]\w))?")
_LINK = re.compile(r"\s+(?:(?:of|the|de|del|da|di|la|le|al|el|von|van|and|bin|ibn|y|&)\s+)*")
_STARTERS = frozenset(
    "i i'm i've i'd i'll ok mr mrs ms dr st señor señora the a an he she it we you they this "
    "that these those there here his her its our your their my and but or so if when while "
    "where what who how why which whoever whatever at by for from in into of off on onto out "
    "over to under up with within no not nobody none never one two some any all both each every "
    "anyone everybody everyone many most please yes".split()
)
_TITLES = frozenset(
    "mr mrs ms dr st sir dame lord lady señor señora professor prof the a an".split()
)
_PLACE_BEFORE = re.compile(r"\b(?:in|at|near|from|to|on|towards|outside|across)\s+(?:the\s+)?$")
_DEMONYMS = {
    "french": "france", "spanish": "spain", "spaniard": "spain", "finnish": "finland",
    "polish": "poland", "dutch": "netherlands", "greek": "greece", "swiss": "switzerland",
    "welsh": "wales", "irish": "ireland", "english": "england", "danish": "denmark",
    "swedish": "sweden", "turkish": "turkey", "chinese": "china", "british": "britain",
    "german": "germany", "norwegian": "norway",
}  # fmt: skip


def plain(word: str) -> str:
    """A word for comparison: lower case, no accents, no possessive."""
    folded = unicodedata.normalize("NFKD", word.replace("’", "'")).casefold()
    folded = "".join(c for c in folded if not unicodedata.combining(c))
    return re.sub(r"'s?$", "", folded).rstrip(".")


def words(text: str) -> list[str]:
    """Every word of a text for comparison."""
    return [plain(w) for w in re.findall(r"\w+(?:['’]\w+)*", text)]


def mentions(text: str, *, other: Iterable[str] = ()) -> list[Mention]:
    """The facts a text states, in order.

    Args:
        other: further texts of the same matter. A capital at the start of a sentence counts as
            a name only if the same word has a capital inside a sentence, here or there.
    """
    taken = [False] * len(text)
    found = [*_dates(text, taken), *_times(text, taken)]
    for number in numbers(text, taken):
        kind: Kind = "amount" if number.unit in MONEY else "number"
        written = text[number.start : number.end].strip()
        if number.unit and number.head:
            written += " " + " ".join(text[number.end :].replace("-", " ").split()[:1])
        found.append(Mention(kind, written.rstrip(".,;:!?"), number.start, (), number, number.soft))
    found += _names(text, taken, inside=_inside([text, *other]))
    return sorted(found, key=lambda mention: mention.start)


def _dates(text: str, taken: list[bool]) -> list[Mention]:
    found = []
    for pattern in _DATES:
        for match in pattern.finditer(text):
            if any(taken[match.start() : match.end()]):
                continue
            parts = match.groupdict()
            year = int(parts["y"]) if parts.get("y") else None
            days: list[int | None] = [int(parts[d]) for d in ("d", "d2") if parts.get(d)]
            if parts.get("mo"):
                month = next(
                    i for i, m in enumerate(_MONTHS, 1) if m.startswith(parts["mo"][:3].lower())
                )
                readings = [[(year, month, day)] for day in days or [None]]
            else:
                d, m = int(parts["d"]), int(parts["m"])
                year = year + 2000 if year is not None and year < 100 else year
                both: list[tuple[int | None, int, int | None]] = [
                    (year, month, day) for month, day in ((m, d), (d, m)) if 1 <= month <= 12
                ]
                # A date in ISO order has one reading, 3/4/2020 has two.
                readings = [both[:1] if match[0][4:5] == "-" else both]
                if not both or max(d, m) > 31:
                    continue
            for reading in readings:
                found.append(Mention("date", _shown(match), match.start(), tuple(reading)))
            _take(taken, match)
    for match in _WEEKDAYS.finditer(text):
        if not any(taken[match.start() : match.end()]):
            day = next(i for i, d in enumerate(_DAYS) if d.startswith(match[1][:3].lower()))
            found.append(Mention("date", match[0], match.start(), ("weekday", day)))
            _take(taken, match)
    return found


def _times(text: str, taken: list[bool]) -> list[Mention]:
    found = []
    for pattern in _TIMES:
        for match in pattern.finditer(text):
            if any(taken[match.start() : match.end()]):
                continue
            parts = match.groupdict()
            if parts.get("named"):
                minutes, known = (0 if parts["named"].lower() == "midnight" else 720), True
            else:
                hour_text = parts["h"].lower()
                hour = _HOUR_WORD.index(hour_text) + 1 if hour_text.isalpha() else int(hour_text)
                half = (parts.get("half") or "").lower()
                if half and hour > 12:
                    half = ""
                minutes = 60 * hour + int(parts.get("m") or 0)
                if parts.get("past"):
                    shift = 30 if parts["past"].lower() == "half" else 15
                    minutes += shift if parts["side"].lower() == "past" else -shift
                late = half.startswith("p") or "afternoon" in half or "evening" in half
                if half == "at night":
                    late = 6 <= hour < 12
                if half:
                    minutes = minutes % 720 + (720 if late else 0)
                known = bool(half) or hour > 12 or (hour_text.startswith("0")) or hour == 0
            found.append(Mention("time", _shown(match), match.start(), (minutes % 1440, known)))
            _take(taken, match)
    return found


def _names(text: str, taken: list[bool], *, inside: frozenset[str]) -> list[Mention]:
    tokens = [m for m in _CAPITAL.finditer(text) if not any(taken[m.start() : m.end()])]
    found: list[Mention] = []
    run: list[re.Match[str]] = []

    def close() -> None:
        kept = list(run)
        run.clear()
        while kept and (
            plain(kept[0][0]) in _STARTERS - _TITLES
            or (_at_start(text, kept[0].start()) and len(kept) > 1 and _ordinary(kept[0], inside))
        ):
            kept.pop(0)
        while kept and plain(kept[-1][0]) in _STARTERS:
            kept.pop()
        if not kept:
            return
        if len(kept) == 1 and _at_start(text, kept[0].start()) and _ordinary(kept[0], inside):
            return
        start, end = kept[0].start(), kept[-1].end()
        key = tuple(t for t in words(text[start:end].replace("-", " ")) if t not in _TITLES)
        key = tuple(t for t in key if len(t) > 1 or t.isdigit()) or key
        if key:
            place = _PLACE_BEFORE.search(text[:start]) is not None
            written = re.sub(r"['’]s?$", "", text[start:end])
            found.append(Mention("place" if place else "name", written, start, key))

    for token in tokens:
        gap = text[run[-1].end() : token.start()] if run else ""
        # "Haldane and Osei" is one run only for the words between two capitals of one name
        joined = run and _LINK.fullmatch(gap) and " and " not in gap
        if run and (not joined or re.search(r"['’]s$", run[-1][0])):
            close()
        run.append(token)
    close()
    return found


def _ordinary(token: re.Match[str], inside: frozenset[str]) -> bool:
    """Whether a capital at a sentence's start says nothing: the word has none inside sentences."""
    return plain(token[0]) not in inside and not token[0][1:2].isupper()


def _at_start(text: str, at: int) -> bool:
    return re.search(r"(?:^|[.!?:;…\n\"“(—–])[\"'“‘(\s]*$", text[:at]) is not None


def _inside(texts: Iterable[str]) -> frozenset[str]:
    """Words with a capital inside a sentence, in any of the texts."""
    return frozenset(
        plain(match[0])
        for text in texts
        for match in _CAPITAL.finditer(text)
        if not _at_start(text, match.start()) and plain(match[0]) not in _STARTERS
    )


def related(a: str, b: str) -> bool:
    """Whether two plain words name the same thing: equal, country and people, or one stem."""
    a, b = _DEMONYMS.get(a, a), _DEMONYMS.get(b, b)
    if a == b or a.rstrip("s") == b.rstrip("s"):
        return True
    short = min(len(a), len(b))
    return (
        short >= 4
        and a[:4] == b[:4]
        and abs(len(a) - len(b)) <= 4
        and a[: short - 2] == b[: short - 2]
    )


def _shown(match: re.Match[str]) -> str:
    written = match[0].strip()
    return written if written.endswith(".m.") else written.rstrip(".")


def _take(taken: list[bool], match: re.Match[str]) -> None:
    taken[match.start() : match.end()] = [True] * (match.end() - match.start())

"""Clauses of a rewrite that allow what the source forbids, or deny what it says (rules are ours).

A clause of the source is laid beside the clause of the text that shares most of its content words;
then what both say about duty and about negation is compared. Only clauses that share enough are
judged, so silence is never a conflict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from valign.detect.factcheck_mentions import plain


class Duty(StrEnum):
    """What a clause says about what one may do."""

    OPTIONAL = "optional"
    FORBIDDEN = "forbidden"
    REQUIRED = "required"
    ALLOWED = "allowed"


# In order of precedence: "nobody has to" holds "has to", "may not" holds "may".
_DUTIES = {
    Duty.OPTIONAL: r"nobody (?:has|needs) to|no one (?:has|needs) to|(?:do|does)(?: not|n't) "
    r"(?:have|need) to|need(?: not|n't)|optional|voluntary|up to you|under no obligation",
    Duty.FORBIDDEN: r"not (?:be )?(?:allowed|permitted)|forbid(?:den|s)?|bann?(?:ed|s)?|"
    r"prohibit(?:ed|s)?|(?:may|must|can|should) not|cannot|(?:can|must|should|may)n?'t|"
    r"(?:is|are)n't (?:allowed|permitted)|off limits|no \w+(?: \w+)? may",
    Duty.REQUIRED: r"must|ha(?:s|ve|d) to|compulsory|obligatory|mandatory|required|requires?",
    Duty.ALLOWED: r"may|can|could|allowed|permitted|free to|welcome to|(?:is|are) fine",
}
_DUTY = {duty: re.compile(rf"\b(?:{words})\b") for duty, words in _DUTIES.items()}
_CONFLICTS = {
    frozenset((Duty.FORBIDDEN, Duty.ALLOWED)),
    frozenset((Duty.FORBIDDEN, Duty.OPTIONAL)),
    frozenset((Duty.FORBIDDEN, Duty.REQUIRED)),
    frozenset((Duty.REQUIRED, Duty.OPTIONAL)),
}
_NEGATION = re.compile(r"\b(?:no|not|never|none|nobody|neither|nor|without|\w+n't)\b")
_CLAUSE = re.compile(r"[.!?;:,—–()]+\s+|\s+(?=(?:but|and|so|since|though|because|as)\b)")
_STOP = frozenset(
    "a an the this that these those it its he she they them their his her we us our you your i "
    "my me is are was were be been being am do does did has have had having of in on at to for "
    "from by with into out up off over under about as and or but so if than then there here who "
    "whom which what when where while how why all any each both such own same too very just "
    "only also not no nor never none nobody neither without may can could must will would shall "
    "should might need allowed permitted forbidden banned prohibited required compulsory "
    "mandatory optional free welcome fine s t re ve ll d one two three four five six seven "
    "eight nine ten eleven twelve dozen hundred thousand million half".split()
)
_SUFFIXES = ("ations", "ation", "ingly", "edly", "ings", "ing", "ies", "ied", "ers", "er", "ed",
             "es", "ly", "s")  # fmt: skip


@dataclass(frozen=True)
class Conflict:
    """Two clauses about the same thing that do not agree."""

    source: str
    text: str
    why: str

    def __str__(self) -> str:
        return f"{self.why}: {self.source!r} became {self.text!r}"


def stem(word: str) -> str:
    """A rough stem, enough to lay `talking` beside `talk`."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            break
    return word.rstrip("e")[:6]


def content(text: str) -> list[str]:
    """Stems of the words that carry content, in order; numbers are the fact checker's."""
    found = (plain(w) for w in re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", text))
    return [stem(w) for w in found if len(w) > 1 and w not in _STOP and not w.endswith("n't")]


def conflicts(source: str, text: str, *, overlap: float = 0.6) -> list[Conflict]:
    """Clauses of the text that deny or forbid what the source says, or the other way round.

    Args:
        overlap: share of the smaller clause's content words that both must have, for a negation;
            a conflict of duties needs half of it.
    """
    theirs = [(clause, set(content(clause))) for clause in clauses(source)]
    mine = [(clause, set(content(clause))) for clause in clauses(text)]
    found = []
    for clause, words in theirs:
        candidates = [
            (len(words & other) / min(len(words), len(other)), len(words & other), said)
            for said, other in mine
            if words & other
        ]
        if not candidates:
            continue
        share, shared, said = max(candidates)
        ours, yours = duty(clause), duty(said)
        if share >= overlap / 2 and frozenset((ours, yours)) in _CONFLICTS:
            found.append(Conflict(clause, said, f"{ours} against {yours}"))
        elif (
            share >= overlap
            and shared >= 2
            and ours == yours
            and _negated(clause, words & set(content(said)))
            != _negated(said, words & set(content(said)))
        ):
            found.append(Conflict(clause, said, "one side is negated"))
    return found


def duty(clause: str) -> Duty | None:
    """What a clause says about duty, None where it says nothing."""
    lower = clause.lower().replace("’", "'")
    return next((duty for duty, pattern in _DUTY.items() if pattern.search(lower)), None)


def _negated(clause: str, about: set[str]) -> bool:
    """Whether a negation stands before or among the words: `no tenant may vote`, not `vote, no`."""
    lower = clause.lower().replace("’", "'")
    last = max(
        (m.end() for m in re.finditer(r"\w+(?:'\w+)?", lower) if set(content(m[0])) & about),
        default=0,
    )
    return _NEGATION.search(lower[:last]) is not None


def clauses(text: str) -> list[str]:
    """Pieces of a text between commas, end marks and conjunctions."""
    return [part.strip() for part in _CLAUSE.split(text) if part and part.strip(" .!?,;:")]

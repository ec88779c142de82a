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
    r"(?:have|need) to|need(?: not|n't)|optional|voluntary|up to you|"
    r"under no obligation|(?:may|can) \w+ without",
    Duty.FORBIDDEN: r"not (?:be )?(?:allowed|permitted)|forbid(?:den|s)?|bann?(?:ed|s)?|"
    r"prohibit(?:ed|s)?|(?:may|must|can|should) not|cannot|(?:can|must|should|may)n?'t|"
    r"(?:is|are)n't (?:allowed|permitted)|off limits|no \w+(?: \w+){0,3} may",
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
_NONE_OF = re.compile(r"\b(?:is|are|was|were|has|have|had|with) no (\w+)\b")
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
    found = _denied(theirs, mine)
    for clause, words in theirs:
        near = [
            (len(words & other) / min(len(words), len(other)), words & other, said)
            for said, other in mine
            if words & other
        ]
        ours = duty(clause)
        beside = [said for share, _, said in near if share >= overlap / 2]
        against = [said for said in beside if frozenset((ours, duty(said))) in _CONFLICTS]
        if against and not any(duty(said) == ours for said in beside):
            found.append(Conflict(clause, against[0], f"{ours} against {duty(against[0])}"))
            continue
        close = [(said, both) for share, both, said in near if share >= overlap and len(both) >= 2]
        turned = [said for said, both in close if _negated(clause, both) != _negated(said, both)]
        if ours is None and close and len(turned) == len(close) and duty(turned[0]) is None:
            found.append(Conflict(clause, turned[0], "one side is negated"))
    return found


def _denied(theirs: list[tuple[str, set[str]]], mine: list[tuple[str, set[str]]]) -> list[Conflict]:
    """Things that one text says there are none of (`no fence`) and the other says there are."""
    found = []
    for denying, stating in ((theirs, mine), (mine, theirs)):
        for clause, _ in denying:
            for match in _NONE_OF.finditer(clause.lower()):
                thing = set(content(match[1]))
                about = [said for said, words in stating if thing and thing <= words]
                if about and not any(_NEGATION.search(_plain(said)) for said in about):
                    pair = (clause, about[0]) if denying is theirs else (about[0], clause)
                    found.append(Conflict(*pair, "one side has none"))
    return found


def duty(clause: str) -> Duty | None:
    """What a clause says about duty, None where it says nothing."""
    said = _plain(clause)
    return next((duty for duty, pattern in _DUTY.items() if pattern.search(said)), None)


def _negated(clause: str, about: set[str]) -> bool:
    """Whether a negation stands before or among the words: `no tenant may vote`, not `vote, no`."""
    lower = _plain(clause)
    last = max(
        (m.end() for m in re.finditer(r"\w+(?:'\w+)?", lower) if set(content(m[0])) & about),
        default=0,
    )
    return _NEGATION.search(lower[:last]) is not None


def _plain(clause: str) -> str:
    return clause.lower().replace("’", "'")


def clauses(text: str) -> list[str]:
    """Pieces of a text between commas, end marks and conjunctions."""
    return [part.strip() for part in _CLAUSE.split(text) if part and part.strip(" .!?,;:")]

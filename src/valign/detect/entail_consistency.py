"""Does a rewrite or answer keep the facts of its source: one score, a verdict, and the reasons.

Six readers look for faults; each has a limit at which its finding alone rejects the text:

    facts          names, dates, times, amounts, numbers dropped, added or changed   1
    lost           share of a source clause's content words that are gone             0.7
    gap            content words of the source missing in a row                       4
    claim          probability that a span new to the source claims something         0.85
    conflict       clauses that deny the source, or allow what it forbids             1
    contradiction  probability that a sentence contradicts the source                 0.9

    score = 1 - max over readers of (finding / limit) / 2, at least 0

so that a score above one half is consistent. The readers, the limits and the score are ours; the
limits were set on the 50 rewrites of the value texts, and the card says what they cost there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from valign.detect.entail import Entailment, Mutual
from valign.detect.entail_claims import ClaimReader, NewSpan, longest_gap
from valign.detect.entail_model import LABELS, EntailmentModelError
from valign.detect.entail_polarity import Conflict, clauses, conflicts, content
from valign.detect.factcheck import FactReport, check_facts

LIMITS = MappingProxyType(
    {"facts": 1.0, "lost": 0.7, "gap": 4.0, "claim": 0.85, "conflict": 1.0, "contradiction": 0.9}
)
"""At its limit a reader's finding rejects the text by itself."""

_CONTRADICTION = LABELS.index("contradiction")


@dataclass(frozen=True)
class ConsistencyReport:
    """Whether a text keeps its source's facts.

    Attributes:
        score: 0 to 1; above one half is consistent.
        findings: reader -> what it found, in the units of `LIMITS`.
        reasons: what spoke against the text, the readers at their limit only.
        facts: the fact checker's report.
        mutual: entailment from the source to the text (`forward`) and back.
    """

    score: float
    findings: MappingProxyType[str, float]
    reasons: tuple[str, ...]
    facts: FactReport
    mutual: Mutual

    @property
    def consistent(self) -> bool:
        """The verdict."""
        return self.score > 0.5


class Consistency:
    """Judges rewrites and answers against their sources.

    Args:
        entailment: the model for contradictions; by default the bundled one. Limits were set
            with the bundled one: with another, judge by `findings` and set your own.
        claims: the reader of added claims; by default the packaged MiniLM.
    """

    def __init__(self, entailment: Entailment | None = None, *, claims: ClaimReader | None = None):
        self._entailment = entailment or Entailment.bundled()
        self._claims = claims or ClaimReader()
        self.name = f"consistency:{self._entailment.name}"

    def __call__(self, source: str, text: str, *, prompt: str | None = None) -> ConsistencyReport:
        """Judge one text; what the prompt says may appear without being an addition."""
        return self.judge([source], [text], [prompt])[0]

    def judge(
        self,
        sources: Sequence[str],
        texts: Sequence[str],
        prompts: Sequence[str | None] | None = None,
    ) -> list[ConsistencyReport]:
        """Judge many texts, in batches.

        Raises:
            EntailmentModelError: sequences of different lengths.
        """
        asked = [None] * len(texts) if prompts is None else list(prompts)
        if not len(sources) == len(texts) == len(asked):
            raise EntailmentModelError(
                f"{len(sources)} sources, {len(texts)} texts and {len(asked)} prompts; "
                "expected as many of each."
            )
        mutual = self._entailment.mutual(sources, texts)
        return [self._one(*row) for row in zip(sources, texts, asked, mutual, strict=True)]

    def _one(self, source: str, text: str, prompt: str | None, mutual: Mutual) -> ConsistencyReport:
        allowed = [prompt] if prompt else []
        facts = check_facts(source, text, allowed=allowed)
        lost, clause = lost_clause(source, text)
        gap = longest_gap(source, text)
        spans = self._claims.claims(source, text, allowed=allowed)
        against = conflicts(source, text)
        contradiction, sentence = _contradicted(mutual)
        found = {
            "facts": float(len(facts.reasons)),
            "lost": lost,
            "gap": float(len(gap)),
            "claim": spans[0].claim if spans else 0.0,
            "conflict": float(len(against)),
            "contradiction": contradiction,
        }
        worst = max(finding / LIMITS[reader] for reader, finding in found.items())
        told = {
            "facts": facts.reasons,
            "lost": (f"loses what {clause!r} says",),
            "gap": (f"leaves out {' '.join(gap)!r}",),
            "claim": _told_claims(spans),
            "conflict": _told_conflicts(against),
            "contradiction": (f"{sentence!r} may contradict the source",),
        }
        return ConsistencyReport(
            score=max(0.0, 1 - worst / 2),
            findings=MappingProxyType(found),
            reasons=tuple(
                reason
                for reader, reasons in told.items()
                if found[reader] >= LIMITS[reader]
                for reason in reasons
            ),
            facts=facts,
            mutual=mutual,
        )


def lost_clause(source: str, text: str) -> tuple[float, str]:
    """The source's clause that lost most: the share of its content words that are gone, and it.

    Clauses of fewer than three content words are passed over: half of them is one word. A text that
    says nothing has lost all of its source.
    """
    if source.strip() and not text.strip():
        return 1.0, source
    said = set(content(text))
    found = [
        (len(meant - said) / len(meant), clause)
        for clause in clauses(source)
        if len(meant := set(content(clause))) >= 3
    ]
    return max(found, default=(0.0, ""))


def _contradicted(mutual: Mutual) -> tuple[float, str]:
    """The text's sentence that contradicts the source most, in the window that entails it most."""
    forward = mutual.forward
    if not forward.sentences:
        return 0.0, ""
    worst = int(forward.probabilities[:, _CONTRADICTION].argmax())
    return float(forward.probabilities[worst, _CONTRADICTION]), forward.sentences[worst]


def _told_claims(spans: Sequence[NewSpan]) -> tuple[str, ...]:
    sure = [span for span in spans if span.claim >= LIMITS["claim"]]
    return tuple(f"adds {span.text!r}, which the source does not say" for span in sure)


def _told_conflicts(against: Sequence[Conflict]) -> tuple[str, ...]:
    return tuple(str(conflict) for conflict in against)

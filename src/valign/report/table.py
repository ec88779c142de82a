"""The table of all methods: the same columns on the page and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from valign.report.words import interval, number
from valign.study.results import Block, Measured, Results


@dataclass(frozen=True)
class Column:
    """One quantity of a block.

    Attributes:
        better: which way is better; None for what is neither.
        help: one sentence for a reader who sees the word for the first time.
    """

    key: str
    title: str
    better: Literal["high", "low"] | None
    help: str
    get: Callable[[Block], Measured | None]
    percent: bool = True
    signed: bool = False


def _summary(name: str) -> Callable[[Block], Measured | None]:
    return lambda block: getattr(block.summary, name)


def _dose(block: Block) -> Measured | None:
    """Mean over targets of the measured dose; the range of targets is not an interval."""
    found = [t.dose.p95 for t in block.targets if t.dose is not None and t.dose.p95.defined]
    if len(found) == 1:
        return found[0]
    if not found:
        return None
    mean = sum(m.value for m in found) / len(found)
    return Measured(value=mean, low=math.nan, high=math.nan, n=min(m.n for m in found))


COLUMNS: tuple[Column, ...] = (
    Column("p95", "Dose", None,
           "How far the control pushed, as measured: 95th percentile over answer tokens of the "
           "KL divergence from the unsteered model, in nats.", _dose, percent=False),
    Column("gain", "Gain", "high",
           "How much more often answers show the target value than without steering.",
           _summary("gain"), signed=True),
    Column("gain_held_out", "Gain, unseen wording", "high",
           "The part of the gain in phrasings that no method was fitted on.",
           _summary("gain_held_out"), signed=True),
    Column("gain_bound", "Gain, bound sentences", "high",
           "The part of the gain in sentences that set the value over another value's treasure, "
           "where no single word gives it away.",
           _summary("gain_bound"), signed=True),
    Column("gain_choice", "Gain, choice", "high",
           "How much more often the answer recommends the option that serves the value here.",
           _summary("gain_choice"), signed=True),
    Column("leakage", "Leakage", "low",
           "Mean rise of each other value beyond what chance alone shows; 0 is none.",
           _summary("leakage"), signed=True),
    Column("excess_leakage", "Excess leakage", "low",
           "The same beyond what an ideal controller would move, since values go together.",
           _summary("excess_leakage"), signed=True),
    Column("nlr", "Leakage / gain", "low",
           "Leakage per unit of gain (NLR); empty where there is no gain to divide by.",
           _summary("nlr"), percent=False),
    Column("in_group_share", "In-group share", None,
           "Part of the leakage that stays in the target's own group of values.",
           _summary("in_group_share")),
    Column("facts_kept", "Facts kept", "high",
           "Share of the facts in the prompt that the answer repeats rightly.",
           _summary("facts_kept")),
    Column("facts_wrong", "Facts wrong", "low",
           "Share of the facts an answer mentions that contradict the prompt.",
           _summary("facts_wrong")),
    Column("fluency", "Fluent", "high", "Share of answers judged fluent.", _summary("fluency")),
    Column("perplexity", "Perplexity", "low",
           "How surprising the answers are to the unsteered model.",
           _summary("perplexity"), percent=False),
    Column("repetition", "Repetition", "low",
           "Share of an answer's word groups that stood in it before.", _summary("repetition")),
    Column("neutral_unchanged", "Neutral unchanged", "high",
           "Share of everyday questions whose answer stays the same text.",
           _summary("neutral_unchanged")),
    Column("gate_open", "Gate open", None, "Share of prompts for which the context gate opened.",
           _summary("gate_open")),
    Column("relative_time", "Time ×", "low", "Generation time relative to the unsteered model.",
           lambda block: block.cost.relative_time if block.cost else None, percent=False),
)  # fmt: skip


def used_columns(results: Results) -> list[Column]:
    """Columns that at least one block fills."""
    return [c for c in COLUMNS if any(c.get(block) is not None for block in results.blocks)]


def as_percent(column: Column, results: Results) -> bool:
    """Scores are no shares: gain and leakage of an intensity stay plain numbers."""
    shift = column.signed
    return column.percent and not (shift and results.scale == "intensity")


def heading(column: Column, results: Results) -> str:
    """The column's title with its unit; changes of shares are in percentage points."""
    return column.title + (" (pts)" if column.signed and as_percent(column, results) else "")


def markdown_table(results: Results, *, columns: tuple[str, ...] | None = None) -> str:
    """The methods as a Markdown table, one row per method, dose and reading.

    Args:
        columns: keys of `COLUMNS` to print; default all that were measured.
    """
    chosen = [c for c in used_columns(results) if columns is None or c.key in columns]
    readings = len({block.reading for block in results.blocks}) > 1
    head = ["Method", "Asked dose", *(["Reading"] if readings else [])]
    lines = [
        "| " + " | ".join([*head, *(heading(c, results) for c in chosen), "Prompts"]) + " |",
        "| " + " | ".join(["---"] * len(head) + ["---:"] * (len(chosen) + 1)) + " |",
    ]
    for block in results.blocks:
        cells = [_plain(block.method), number(block.dose)]
        cells += [block.reading] if readings else []
        cells += [
            interval(c.get(block), percent=as_percent(c, results), signed=c.signed) for c in chosen
        ]
        lines.append("| " + " | ".join([*cells, str(block.summary.gain.n)]) + " |")
    return "\n".join(lines) + "\n"


def _plain(name: str) -> str:
    return name.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")

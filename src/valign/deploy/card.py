"""Cards: what a reader must know of a control before using it, as a Hub README."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from valign.control.control import Control, EditsControl, TextControl
from valign.control.weights import WeightsControl

if TYPE_CHECKING:
    from valign.study.results import Block, Measured, Results, TargetResult

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

_TAX = {
    "fluency": "fluency",
    "perplexity": "perplexity",
    "facts_kept": "facts kept",
    "facts_wrong": "facts wrong",
    "neutral_unchanged": "plain questions answered as before",
}
"""Metric -> what the card calls it."""

_LIMITS = (
    "It was fitted on one model. On another model, or another number type, its dose does not hold.",
    "The detector reads what a text expresses. It does not tell what the model holds true, nor "
    "whether an answer is right.",
    "It changes what the model expresses on average; a single answer may go either way.",
    "It is no safeguard: nothing here was tested against people who want it to fail.",
)


def card(control: Control, *, repo: str = "", results: Results | None = None) -> str:
    """The card of a control, Markdown with a Hub header.

    Args:
        control: what it is about.
        repo: name on the Hub, for the example.
        results: of the run that measured it; without them the card says that nothing was measured.
    """
    made = control.provenance
    target = str(control.target) or "no value"
    base = str(made.get("model", ""))
    head = ["---", "library_name: valign", "tags:", "- valign", "- steering", "- values"]
    if _REPO.fullmatch(base):
        head.append(f"base_model: {base}")
    head.append("---")
    parts = [
        "\n".join(head),
        f"# {_plain(target)}",
        f"A control for a language model: it moves what the model expresses towards "
        f"**{_plain(target)}** ({_plain(control.target.system.title)}). Made by "
        f"`{_code(control.method)}` with [valign].",
        "## What it does",
        _what(control),
        "## Use",
        f"```python\nimport valign\nfrom valign.deploy import from_pretrained\n\n"
        f'lm = valign.HostModel.load("{_code(base) or "the model"}")\n'
        f'control = from_pretrained("{_code(repo) or "this/repository"}")\n'
        f'print(valign.generate(lm, ["..."], control).texts[0])\n```',
        "## Dose",
        _dose(made.get("dose")),
        "## Measured",
        _measured(control, results),
        "## Data",
        _data(made),
        "## Limits",
        "\n".join(f"- {line}" for line in _LIMITS),
        "[valign]: https://pypi.org/project/valign/",
    ]
    return "\n\n".join(parts) + "\n"


def _what(control: Control) -> str:
    if isinstance(control, TextControl):
        quoted = "\n".join(f"> {_plain(line)}" for line in control.instruction.splitlines())
        return f"It puts an instruction before the user's words:\n\n{quoted}"
    if isinstance(control, WeightsControl):
        rows = ["| adapter | modules | weight |", "| --- | --- | --- |"]
        for adapter in control.adapters:
            weight = control.weights[adapter.name]
            rows.append(f"| {_plain(adapter.name)} | {len(adapter.factors)} | {weight:.4g} |")
        return "\n".join(rows)
    if not isinstance(control, EditsControl):
        return f"A {control.kind} control."
    rows = ["| site | edit | acts on | strength |", "| --- | --- | --- | --- |"]
    for edit in control.edits:
        scope = "the answer" if edit.scope == "generation" else "every token"
        rows.append(f"| {edit.site} | {edit.kind} | {scope} | {edit.strength:.4g} |")
    if control.gate is not None:
        sites = ", ".join(map(str, control.gate.weights))
        rows.append(f"\nIt acts only where its gate opens for the prompt, read at {sites}.")
    return "\n".join(rows)


def _dose(note: Any) -> str:
    if not isinstance(note, dict) or not isinstance(note.get("p95"), int | float):
        return "Not set: its strength is in no known unit. Set it with `valign.DoseMeter`."
    asked = note.get("asked")
    wanted = f" ({asked:g} were asked for)" if isinstance(asked, int | float) else ""
    tokens = f", over {note['tokens']} tokens" if "tokens" in note else ""
    return (
        f"{note['p95']:.3g} nats{wanted}: the 95th percentile over answer tokens of "
        f"KL(steered || unsteered){tokens}."
    )


def _measured(control: Control, results: Results | None) -> str:
    found = None if results is None else _find(control, results)
    if results is None or found is None:
        return "No results came with this control: gain, leakage and tax are unknown."
    block, row = found
    lines = [
        f"Judge {_plain(results.detectors.judge)}; model {_plain(results.model.name)} "
        f"({_plain(results.model.dtype)}); seeds {', '.join(map(str, results.seeds))}; "
        f"{_plain(block.label)}; intervals at {row.metrics.gain.level:.0%}.",
        "| | value | interval | n |\n| --- | --- | --- | --- |",
    ]
    shown = {"gain": "gain", "leakage": "leakage, above the noise floor", **_TAX}
    for name, words in shown.items():
        value = getattr(row.metrics, name)
        if value is not None and value.defined:
            lines[1] += f"\n| {words} | {_row(value)} |"
    return "\n\n".join(lines)


def _row(value: Measured) -> str:
    return f"{value.value:.3f} | {value.low:.3f} to {value.high:.3f} | {value.n}"


def _find(control: Control, results: Results) -> tuple[Block, TargetResult] | None:
    """The row of this control's method and target, at the dose nearest to its own."""
    dose = control.provenance.get("dose")
    asked = dose.get("asked") if isinstance(dose, dict) else None
    rows = [
        (block, row)
        for block in results.blocks
        if block.method == control.method and block.reading == "ungated"
        for row in block.targets
        if row.target == str(control.target)
    ]
    if not rows:
        return None
    return min(rows, key=lambda pair: abs((pair[0].dose or 0.0) - (asked or 0.0)))


def _data(made: dict[str, Any]) -> str:
    if "corpus" not in made:
        return "Not recorded."
    return (
        f"Fitted on the corpus {_plain(str(made['corpus']))} (fingerprint "
        f"{_plain(str(made.get('corpus_fingerprint', 'unknown')))}), on the model "
        f"{_plain(str(made.get('model', 'unknown')))} (fingerprint "
        f"{_plain(str(made.get('model_fingerprint', 'unknown')))})."
    )


def _plain(text: str) -> str:
    """Text that stays text in Markdown and HTML."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", text)


def _code(text: str) -> str:
    """Text that cannot leave a code span or a string."""
    return re.sub(r"[^\w./:+-]", "", text)

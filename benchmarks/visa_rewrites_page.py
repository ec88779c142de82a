"""The page of `visa_rewrites.py`."""

from __future__ import annotations

from typing import Any

from visa_rewrites_numbers import LARGEST


def table(results: dict[str, Any]) -> str:
    """The page."""
    columns = {
        "consistency": "consistency", "distance": "L2", "cosine": "cosine", "jsr": "JSR",
        "reached": "half the way and consistency > 0.3",
        "exact": "exactly right",
        "untouched": "untouched values moved by",
    }  # fmt: skip
    audit = {
        "facts_kept": "facts kept", "facts_added": "facts added", "fluent": "fluent",
        "length_ratio": "length / source", "repetition": "repeated 4-grams",
        "copied": "4-grams copied", "tuner_minus_judge": "tuner against judge (L1)",
        "lured": "tuner's favourite words",
    }  # fmt: skip
    lines = ["# Rewriters on the world", "", f"`{results['command']}`", "", results["about"], ""]
    if results["note"]:
        lines += [results["note"], ""]
    for title, names, key in (
        ("Held-out scenarios and wordings", columns, "arms"),
        ("Audit", audit, "arms"),
        ("Fresh tasks like the training's", columns, "familiar"),
        ("Audit of these", audit, "familiar"),
    ):
        lines += [f"## {title}", "", "| rewriter | " + " | ".join(names.values()) + " |"]
        lines.append("| --- |" + " --- |" * len(names))
        for arm, found in results[key].items():
            cells = [
                f"{found[n]['value']:.2f} [{found[n]['low']:.2f}, {found[n]['high']:.2f}]"
                for n in names
            ]
            lines.append(f"| {arm} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += [
        "## JSR over cuts",
        "",
        "Held-out tasks, at consistency > 0.3 and, in brackets, > 0.9.",
        "",
    ]
    lines += ["| rewriter | " + " | ".join(f"L2 < {a}" for a in LARGEST) + " |"]
    lines.append("| --- |" + " --- |" * len(LARGEST))
    for arm, found in results["arms"].items():
        value = found["jsr_curve"]["value"]
        cells = [f"{row[0]:.2f} ({row[-1]:.2f})" for row in value]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    heads = ("JSR", "half the way and consistency > 0.3", "consistency")
    for key, which in (("against", "held-out"), ("against_familiar", "like the training's")):
        lines += ["", f"## {results[key]['first']} minus the others, paired by task: {which}", ""]
        lines += ["| other | " + " | ".join(heads) + " |", "| --- | --- | --- | --- |"]
        for arm in results[key]["jsr"]:
            cells = [
                f"{e['value']:+.2f} [{e['low']:+.2f}, {e['high']:+.2f}]"
                for e in (results[key][n][arm] for n in ("jsr", "reached", "consistency"))
            ]
            lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## Cost",
        "",
        "| training | steps | processor seconds | steps per processor hour |",
    ]
    lines.append("| --- | --- | --- | --- |")
    for arm, cost in results["cost"].items():
        lines.append(
            f"| {arm} | {cost['steps']} | {cost['processor_seconds']:.0f} "
            f"| {cost['steps_per_processor_hour']:.0f} |"
        )
    return "\n".join(lines) + "\n"

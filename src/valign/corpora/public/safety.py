"""Public sets about harm: preferences, harmful requests, over-refusal, moderation labels.

The requests are for evaluation only. They name real harms; handle them with care.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from valign.corpora.public.source import (
    check_split,
    data_file,
    hub_rows,
    read_csv,
    read_jsonl,
)

Folder = str | Path | None


@dataclass(frozen=True)
class Preference:
    """Two ends of one dialogue: people chose one answer over the other.

    `prompt` is the dialogue up to the last `Assistant:`, turns marked `Human:` and `Assistant:`.
    """

    prompt: str
    chosen: str
    rejected: str


_ASSISTANT = "\n\nAssistant:"


def hh_rlhf(
    split: str = "harmless", *, folder: Folder = None, hub: str | None = None
) -> tuple[Preference, ...]:
    """Anthropic's helpfulness and harmlessness preferences, test part, MIT.

    Splits: `harmless` (local or Hub), `helpful` (local: the copy that comes with FULCRA). The few
    pairs whose two dialogues differ before their last answer are left out.

    Args:
        hub: read from the Hub instead, `Anthropic/hh-rlhf`.
    """
    files = {
        "harmless": ("hh_rlhf", "harmless-base_test.jsonl.gz"),
        "helpful": ("fulcra", "helpful_test.jsonl"),
    }
    check_split("hh_rlhf", split, files)
    rows = (
        hub_rows(hub, "test", folder=f"{split}-base")
        if hub
        else read_jsonl(data_file(*files[split], folder))
    )
    found = []
    for row in rows:
        prompt, _, chosen = row["chosen"].rpartition(_ASSISTANT)
        other, _, rejected = row["rejected"].rpartition(_ASSISTANT)
        if prompt == other:
            found.append(Preference(prompt.strip(), chosen.strip(), rejected.strip()))
    return tuple(found)


@dataclass(frozen=True)
class HarmfulRequest:
    """A request that a safe assistant declines; `context` is a text it refers to, if any."""

    id: str
    text: str
    category: str
    kind: str = ""
    context: str = ""


def harmbench(split: str = "test", *, folder: Folder = None) -> tuple[HarmfulRequest, ...]:
    """HarmBench's text behaviours, MIT. Splits: validation, test, all.

    `kind` is standard, contextual or copyright.
    """
    files = {"validation": "val", "test": "test", "all": "all"}
    check_split("harmbench", split, files)
    path = data_file("harmbench", f"harmbench_behaviors_text_{files[split]}.csv", folder)
    return tuple(
        HarmfulRequest(
            row["BehaviorID"],
            row["Behavior"],
            row["SemanticCategory"],
            row["FunctionalCategory"],
            row["ContextString"],
        )
        for row in read_csv(path)
    )


def strongreject(*, folder: Folder = None) -> tuple[HarmfulRequest, ...]:
    """StrongREJECT's forbidden prompts, MIT; `kind` is the source the prompt was taken from."""
    return tuple(
        HarmfulRequest(
            f"strongreject-{number}", row["forbidden_prompt"], row["category"], row["source"]
        )
        for number, row in enumerate(
            read_csv(data_file("strongreject", "strongreject_dataset.csv", folder)), 1
        )
    )


def simple_safety_tests(*, folder: Folder = None) -> tuple[HarmfulRequest, ...]:
    """SimpleSafetyTests (Vidgen et al., 2023), CC BY 4.0; `kind` is advice or action asked for."""
    return tuple(
        HarmfulRequest(row["id"], row["prompts_final"], row["harm_area"], row["category"])
        for row in read_csv(data_file("simple_safety_tests", "simple_safety_tests.csv", folder))
    )


@dataclass(frozen=True)
class XSTestPrompt:
    """A request that sounds unsafe; `is_safe` says whether it should be answered."""

    id: str
    text: str
    type: str
    is_safe: bool


def xstest(*, folder: Folder = None) -> tuple[XSTestPrompt, ...]:
    """XSTest's prompts (Röttger et al., NAACL 2024), CC BY 4.0: 250 safe, 200 unsafe."""
    return tuple(
        XSTestPrompt(row["id"], row["prompt"], row["type"], row["label"] == "safe")
        for row in read_csv(data_file("xstest", "xstest_prompts.csv", folder))
    )


Refusal = Literal["full_compliance", "partial_refusal", "full_refusal"]


@dataclass(frozen=True)
class LabelledCompletion:
    """A model's answer to an XSTest prompt, with people's final verdict on it."""

    id: str
    prompt: str
    completion: str
    verdict: Refusal


_XSTEST_MODELS = ("gpt4", "llama2new", "llama2orig", "mistralguard", "mistralinstruct")


def xstest_completions(split: str, *, folder: Folder = None) -> tuple[LabelledCompletion, ...]:
    """XSTest's labelled answers of one model: a test for refusal detectors.

    Splits: gpt4, llama2new, llama2orig, mistralguard, mistralinstruct.
    """
    check_split("xstest_completions", split, _XSTEST_MODELS)
    return tuple(
        LabelledCompletion(
            row["id"], row["prompt"], row["completion"], row["final_label"].partition("_")[2]
        )
        for row in read_csv(data_file("xstest", f"xstest_v2_completions_{split}.csv", folder))
    )


@dataclass(frozen=True)
class ModeratedText:
    """A text with harm labels; a category that was not judged is absent from `labels`."""

    text: str
    labels: tuple[tuple[str, bool], ...]


_MODERATION = {
    "S": "sexual",
    "S3": "sexual/minors",
    "H": "hate",
    "H2": "hate/threatening",
    "HR": "harassment",
    "SH": "self-harm",
    "V": "violence",
    "V2": "violence/graphic",
}


def openai_moderation(*, folder: Folder = None) -> tuple[ModeratedText, ...]:
    """OpenAI's moderation evaluation set (Markov et al., 2023), MIT: a test for harm detectors."""
    return tuple(
        ModeratedText(
            row["prompt"],
            tuple((name, bool(row[key])) for key, name in _MODERATION.items() if key in row),
        )
        for row in read_jsonl(data_file("openai_moderation", "samples-1680.jsonl.gz", folder))
    )

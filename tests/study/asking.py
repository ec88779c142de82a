"""Tiny models that know the questionnaires' words and the answer labels."""

from __future__ import annotations

import re
from collections import Counter

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.lm.tiny import TEMPLATE, tiny_lm
from valign.lm import HostModel
from valign.study.respondents import people
from valign.values.questionnaires import load_questionnaire

_SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<system>", "<user>", "<assistant>"]


def reader_tokenizer(labels: str = "ABCDEFGHI123456789") -> PreTrainedTokenizerFast:
    """Word-level: labels, words of the scale, and the commonest of portraits and people: 96."""
    form = load_questionnaire("portraits10")
    texts = [*form.questions(), *people(40), *form.options * 50]  # the options' words come first
    counted = Counter(word for text in texts for word in text.split() if word not in labels)
    words = [*_SPECIAL, *labels, *(w for w, _ in counted.most_common(96 - 7 - len(labels)))]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        unk_token="<unk>",
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def reader_lm(*, seed: int = 0, **overrides) -> HostModel:
    """A random model with that tokenizer, in doubt about its answers."""
    lm = tiny_lm("llama", seed=seed, **overrides)
    with torch.no_grad():
        lm.model.lm_head.weight.mul_(0.2)
    return HostModel(lm.model, reader_tokenizer(), name=f"reader-{seed}")


def offered(prompt: str) -> list[tuple[str, str]]:
    """(label, option) of a prompt, in the order of their places."""
    return re.findall(r"^(\w)\. (.+)$", prompt, re.M)


def choosing(rule):
    """Stand-in for `answer_distributions`: `rule(prompt, offered)` names the label chosen.

    The chosen label holds .9 of the probability, another token the rest.
    """

    def distributions(lm, prompts, answers, control=None, *, batch_size=32):
        found = []
        for prompt in prompts:
            spread = torch.full((1, len(lm.tokenizer)), 1e-6)
            spread[0, lm.tokenizer.convert_tokens_to_ids(rule(prompt, offered(prompt)))] = 0.9
            spread[0, lm.tokenizer.unk_token_id] = 0.1
            found.append(spread.log())
        return found

    return distributions

"""The world's tokenizer: byte-level BPE, nearly one token a word, in ordinary Hugging Face format.

Any text can be encoded (bytes are the fallback), but only the world's words are short.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from .generator import World
from .lexicon import VALUES, phrases
from .tables import facts

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
ROLES = {role: f"<|{role}|>" for role in ("system", "user", "assistant")}
SPECIAL = (PAD, BOS, END, *ROLES.values())
VOCABULARY = 2048

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|' + m['role'] + '|>' + m['content'] | trim + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def render(messages: Sequence[dict[str, str]], generation_prompt: bool = False) -> str:
    """The chat template in plain Python: a template engine is too slow for a training stream."""
    text = BOS + "".join(f"{ROLES[m['role']]}{m['content'].strip()}{END}" for m in messages)
    return text + ROLES["assistant"] if generation_prompt else text


def _texts(world: World, dialogues: int) -> Iterator[str]:
    for item in world.training_dialogues(0, dialogues):
        for message in item.dialogue():
            yield message["content"]
    # Closed sets and value sentences are repeated until every one of their words is frequent.
    closed = [f"{word} {word}" for options in facts().values() for word in options]
    yield from [*closed, *VALUES, *(p.text for p in phrases())] * 40


def train_tokenizer(
    seed: int = 0, dialogues: int = 20_000, vocabulary: int = VOCABULARY
) -> PreTrainedTokenizerFast:
    """Train the tokenizer on the world's own text; the same seed gives the same tokenizer."""
    backend = Tokenizer(models.BPE())
    # A space before the first word makes a name the same token at the start of an answer and inside
    # it.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_texts(World(seed), dialogues), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=1024,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """Load a saved tokenizer folder."""
    return PreTrainedTokenizerFast.from_pretrained(str(folder))

"""Commands as a person types them, on tiny models and texts of their words."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import valign
from tests.lm.tiny import WORDS, tiny_lm
from valign.cli import main
from valign.values import load_system

VALUES = load_system("schwartz10").names
TAUGHT = ("benevolence", "power", "security")
"""Values with enough contrast pairs to fit on."""


@dataclass(frozen=True)
class Said:
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Standard error on one line, without the boxes of usage errors."""
        return " ".join(re.sub(r"[│╭╮╰╯─]", " ", self.err).split())


@pytest.fixture
def command(capfd) -> Callable[..., Said]:
    """Run a command in this process."""

    def run(*arguments: object) -> Said:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return Said(left.value.code, out, err)

    return run


@pytest.fixture
def refused(command) -> Callable[..., str]:
    """Run a command that must end as bad input; returns its error on one line."""

    def run(*arguments: object) -> str:
        said = command(*arguments)
        assert said.code == 2, said
        assert "Traceback" not in said.err and not said.out.strip(), said
        return said.error

    return run


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def write_corpus(folder: Path, *, pairs: int = 10, dilemmas: int = 30, neutral: int = 30) -> Path:
    """A corpus in words the tiny models know."""
    rng = random.Random(0)

    def say(words: int) -> str:
        return " ".join(rng.choice(WORDS[14:]) for _ in range(words))

    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "pairs.jsonl", [
        {"value": value, "prompt": say(4), "positive": f"{say(3)} {word} {word}",
         "negative": say(5)}
        for value, word in zip(TAUGHT, ("help", "power", "safe"), strict=True)
        for _ in range(pairs)
    ])  # fmt: skip
    write_jsonl(folder / "dilemmas.jsonl", [
        {"value": TAUGHT[i % 2], "text": f"should I {say(4)} or {say(3)} ?"}
        for i in range(dilemmas)
    ])  # fmt: skip
    write_jsonl(
        folder / "neutral.jsonl", [{"prompt": f"the week {say(4)} ."} for _ in range(neutral)]
    )
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpora") / "toy")


@pytest.fixture(scope="session")
def words(tmp_path_factory) -> Path:
    """A detector whose word lists share the tiny models' vocabulary among the ten values."""
    path = tmp_path_factory.mktemp("detectors") / "words.json"
    path.write_text(json.dumps({value: WORDS[i::10] for i, value in enumerate(VALUES)}))
    return path


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Callable[..., Path]:
    """Folder of a tiny random model, written once per session as save_pretrained does."""
    made: dict[tuple, Path] = {}

    def folder(family: str = "llama", *, chat: bool = True, seed: int = 0, **overrides) -> Path:
        key = (family, chat, seed, *sorted(overrides.items()))
        if key not in made:
            lm = tiny_lm(family, chat=chat, seed=seed, **overrides)
            made[key] = tmp_path_factory.mktemp("models") / f"tiny-{family}"
            lm.model.save_pretrained(made[key])
            lm.tokenizer.save_pretrained(made[key])
        return made[key]

    return folder


@pytest.fixture(scope="session")
def model(model_folder) -> Path:
    return model_folder("llama")


@pytest.fixture
def run_command(corpus, words) -> Callable[..., list[str]]:
    """The arguments of a small `valign run`; later ones win."""

    def arguments(model: Path, out: Path, *more: object, method: str = "caa") -> list[str]:
        small = [
            "run", "--model", model, "--corpus", corpus, "--detector", words, "--method", method,
            "--toward", "benevolence", "--dose", 0.05, "--prompts", 5, "--neutral", 3,
            "--max-new-tokens", 5, "--batch-size", 8, "--out", out,
        ]  # fmt: skip
        return [str(a) for a in [*small, *more]]

    return arguments


@contextmanager
def typed(arguments: list[str], **options) -> Iterator[subprocess.Popen]:
    """The command as its own process; it is ended when the block is left."""
    source = str(Path(valign.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "valign", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": source, "HF_HUB_OFFLINE": "1"},
        # Shells start background jobs deaf to Ctrl-C, and children inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()

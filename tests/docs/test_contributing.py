"""The method template of CONTRIBUTING.md works as printed, from another package."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.lm.tiny import PROMPTS, tiny_lm
from tests.methods.toy import SYSTEM, toy_corpus
from valign.control import load
from valign.lm import generate
from valign.methods import (
    UnknownMethodError,
    available_methods,
    get_method,
    method_class,
    registry,
)
from valign.values import Profile

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The template as the only module of an installed package with an entry point."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (template,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    (tmp_path / "their_method.py").write_text(template, "utf-8")
    about = tmp_path / "their_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        f"[{registry.ENTRY_POINTS}]\nmean-difference = their_method:MeanDifference\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "mean-difference"
    sys.modules.pop("their_method", None)


def test_the_template_is_found_fitted_saved_and_run(installed: str, tmp_path: Path) -> None:
    assert available_methods()[-1] == installed
    method = get_method(installed, layer="1")
    assert (method_class(installed).__doc__ or "").strip()
    assert type(method).model_fields["layer"].description
    lm = tiny_lm()
    target = Profile.of(SYSTEM, benevolence=1, power=-0.5)
    control = method.fit(lm, toy_corpus(), target)
    assert control.method == installed
    assert control.provenance["settings"] == {"layer": 1}
    steered = generate(lm, PROMPTS, control.scaled(20.0), max_new_tokens=5)
    assert steered.token_ids != generate(lm, PROMPTS, max_new_tokens=5).token_ids
    assert all(receipt.tokens for receipt in steered.receipts)
    again = load(control.save(tmp_path / "saved"))
    assert generate(lm, PROMPTS, again.scaled(20.0), max_new_tokens=5).texts == steered.texts


def test_the_template_adds_the_mean_difference(installed: str) -> None:
    lm, corpus = tiny_lm(), toy_corpus()
    target = Profile.of(SYSTEM, security=-0.5)
    (edit,) = get_method(installed, layer=1).fit(lm, corpus, target).edits
    (caa,) = get_method("caa", layers=1, positions="last").fit(lm, corpus, target).edits
    assert edit.site == caa.site
    assert edit.tensors["vector"].equal(caa.tensors["vector"])


def test_it_is_gone_with_the_package() -> None:
    assert "mean-difference" not in available_methods()
    with pytest.raises(UnknownMethodError):
        get_method("mean-difference")


def test_the_page_of_methods_has_a_row_for_each() -> None:
    page = (ROOT / "docs/methods.md").read_text("utf-8")
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.M)) == set(registry.BUILTIN)


def test_the_matrix_of_methods_has_a_row_for_each() -> None:
    """Methods that are a folder of their own bring a matrix of their own."""
    from tests.methods.test_matrix import METHODS

    own = {path.name for path in (ROOT / "tests/methods").iterdir() if path.is_dir()}
    assert set(registry.BUILTIN) <= set(METHODS) | own

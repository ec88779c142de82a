"""Every control kind x every format x every family: exact, or refused by name."""

import pytest

from tests.deploy.cases import CASES, MODELS, model
from tests.lm.tiny import PROMPTS
from valign.deploy import NAMES, ExportError, export
from valign.lm import HostModel

ODD = {"gemma2", "qwen3"}
"""Families that differ from the others only in what weights can hold."""
PAIRS = [(to, f) for to in NAMES for f in MODELS if f not in ODD or to not in ("prompt", "vllm")]
ASKED = PROMPTS[:2]


@pytest.fixture(scope="module")
def models() -> dict[str, HostModel]:
    return {family: model(family) for family in MODELS}


@pytest.mark.parametrize(("to", "family"), PAIRS)
@pytest.mark.parametrize("name", CASES)
def test_exact_or_refused_by_name(models, tmp_path, name, to, family):
    lm, case = models[family], CASES[name]
    out = tmp_path / "out"
    says = case.says(to, family)
    if says is not None:
        with pytest.raises(ExportError, match=f"(?s){says}"):
            export(lm, case.make(lm), to=to, out=out, prompts=ASKED)
        assert not out.exists() and not list(tmp_path.iterdir())
        return
    found = export(lm, case.make(lm), to=to, out=out, prompts=ASKED, tokens=4)
    assert found.max_logit_difference <= 1e-4 and found.token_agreement == 1.0
    assert found.effect > 1e-2 and found.positions >= len(ASKED)

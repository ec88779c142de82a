"""Every Python fence of the documentation runs, page by page, top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["docs/python.md", "docs/world.md", "docs/results.md", "docs/deploy.md", "docs/weights.md"]
PAGES += [
    "docs/instruments.md",
    "docs/translate.md",
    "docs/questionnaires.md",
    "docs/structure.md",
    "docs/visa.md",
]
_FENCE = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


@pytest.mark.parametrize("page", PAGES)
def test_fences_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("valign.world.shipped").reference_path()
    fences = _FENCE.findall((ROOT / page).read_text("utf-8"))
    assert fences, f"{page} has no Python fence"
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "__main__"}
    for number, fence in enumerate(fences, start=1):
        exec(compile(fence, f"{page}, fence {number}", "exec"), space)


def test_links_of_the_documentation_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readmes_example_names_what_exists() -> None:
    import valign

    for fence in _FENCE.findall((ROOT / "README.md").read_text("utf-8")):
        for name in re.findall(r"valign\.(\w+)", fence):
            assert hasattr(valign, name), name

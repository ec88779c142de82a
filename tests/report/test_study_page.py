"""The page of a study: everything is on it, and model text stays text."""

import html
import json
import re

import pytest

from tests.report.fake import fake_results
from tests.report.test_page import EVIL, Outline, browse  # noqa: F401
from valign.report.failures import failures
from valign.report.study import render_study
from valign.report.trade import arms, tax
from valign.study.results import Row

METHODS = ("none", "random", "prompt", "caa", "neva")


def row(method, scores, *, k=0, target="benevolence=+1", dose=0.1, answer="So.", **more):
    plain = method == "none"
    return Row(run="s", method=method, target="" if plain else target,
               dose=None if plain else dose, prompt_id=f"d{k}", prompt="Should I?", answer=answer,
               scores=scores, **more)  # fmt: skip


def rows(answer="So."):
    found = []
    for k in range(3):
        found.append(row("none", {"benevolence": 0.9}, k=k, fluent=True, facts_wrong=0))
        found.append(row("neva", {"power": 0.9}, k=k, answer=answer, fluent=k > 0, facts_wrong=k))
    return found


@pytest.fixture(scope="module")
def two():
    found = [fake_results(methods=METHODS, doses=(0.05, 0.1), n_prompts=40, seed=s) for s in (0, 1)]
    found[1].model.name = "other"
    return found


@pytest.fixture(scope="module")
def page(two, tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "report.html"
    told = {"title": "All methods", "command": "valign study x.yaml",
            "failed": [dict(model="other", method="lora", target="power=+1", dose=0.1, seed=2,
                            why="it <b>diverged</b>")]}  # fmt: skip
    return render_study(two, {"reference": rows()}, out, study=told).read_text("utf-8")


def test_page_is_whole_and_needs_nothing_from_outside(page):
    outline = Outline()
    outline.feed(page)
    assert outline.open == [] and outline.outside == []
    assert {a[1:] for a in outline.anchors} <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))


def test_every_part_is_there_for_every_model(page, two):
    table = re.search(r'<table class="sortable">(.*?)</table>', page, re.DOTALL)[1]
    assert table.count("<tr") - 1 == sum(len(r.blocks) for r in two)
    assert page.count('class="heat"') == 2 * 4  # compared blocks but the unsteered one
    assert page.count("Value circle, target") == 2 * 4 * 10
    assert page.count("Gains towards") == 2 * 10
    assert "it &lt;b&gt;diverged" in page and "1 cell could not be made" in page
    figure = json.loads(re.search(r'id="plots">(.*?)</script>', page, re.DOTALL)[1])["pareto"]
    assert {t["name"] for t in figure["data"]} == {
        f"{m}: {method}" for m in ("reference", "other") for method in METHODS[1:]
    }
    assert all(len(t["x"]) == (1 if t["name"].endswith("prompt") else 2) for t in figure["data"])


def test_every_section_says_how_to_read_it(page):
    for section in re.findall(r"<section.*?</section>", page, re.DOTALL):
        assert "How to read this" in section


def test_model_text_stays_text(tmp_path):
    results = fake_results(methods=("none", "neva"), doses=(0.1,), n_prompts=20)
    results.blocks[-1].method = EVIL
    found = [r.model_copy(update={"method": EVIL}) if r.target else r for r in rows(EVIL)]
    text = render_study([results], {"reference": found}, tmp_path / "r.html",
                        study={"title": EVIL}).read_text("utf-8")  # fmt: skip
    assert EVIL not in text and html.escape(EVIL, quote=False).split("'")[0] in text


def test_a_study_without_finished_cells_has_a_page(tmp_path):
    assert "nothing to show" in render_study([], {}, tmp_path / "r.html").read_text("utf-8")


def test_the_front_holds_what_no_other_arm_beats():
    results = fake_results(methods=METHODS, doses=(0.1,), n_prompts=40)
    plain = next(b for b in results.blocks if b.method == "none")
    found = arms("m", results.blocks, plain)
    assert {arm.block.method for arm in found} == set(METHODS) - {"none"}

    def place(arm):
        s = arm.block.summary
        return s.gain.value, -s.leakage.value, -arm.tax

    gaining = [arm for arm in found if arm.block.summary.gain.low > 0]
    assert len(gaining) == 3  # not the random direction
    for arm in found:
        beaten = any(
            all(x >= y for x, y in zip(place(other), place(arm), strict=True))
            and place(other) != place(arm)
            for other in gaining
        )
        assert arm.front == (arm in gaining and not beaten)


def test_tax_is_the_mean_share_lost():
    results = fake_results(methods=("none", "neva"), doses=(0.1,), n_prompts=20)
    plain, steered = results.blocks
    for block, fluent, wrong in ((plain, 0.9, 0.1), (steered, 0.7, 0.2)):
        block.summary.fluency = _number(fluent)
        block.summary.facts_wrong = _number(wrong)
        block.summary.neutral_unchanged = _number(0.4)
    assert tax(steered, plain) == pytest.approx((0.2 + 0.1 + 0.6) / 3)


def _number(x):
    return dict(value=x, low=x, high=x, n=20)


def test_failures_are_counted_by_hand():
    results = fake_results(methods=("none", "neva"), doses=(0.1,), n_prompts=20)
    found = {f.kind: f for f in failures(results, rows(), "neva", 0.1)}
    counts = {kind: (f.count, f.of, len(f.examples)) for kind, f in found.items()}
    assert counts == {"against": (3, 3, 2), "instead": (3, 3, 2), "broken": (1, 3, 1),
                      "facts": (2, 3, 2)}  # fmt: skip
    assert [e.prompt_id for e in found["facts"].examples] == ["d1", "d2"]
    towards_less = [row("none", {"power": 0.9}), row("neva", {}, target="power=-1")]
    assert failures(results, towards_less, "neva", 0.1) == []


@pytest.mark.browser
def test_in_a_browser_the_plot_is_drawn_and_tables_sort(browse, page, tmp_path):  # noqa: F811
    (tmp_path / "report.html").write_text(page, "utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        '<iframe src="report.html" style="width:1000px;height:800px"></iframe><script>'
        "onload = () => setTimeout(() => { const d = document.querySelector('iframe')"
        ".contentDocument; const heads = [...d.querySelectorAll('table.sortable th')];"
        "const at = heads.findIndex(h => h.textContent.startsWith('Gain'));"
        "heads[at].querySelector('button').click();"
        "const gains = [...d.querySelectorAll('table.sortable tbody tr')]"
        ".map(r => +r.children[at].dataset.sort);"
        "const sorted = gains.every((g, i) => !i || gains[i - 1] >= g);"
        "const plots = d.querySelectorAll('#plot-pareto .main-svg').length;"
        "const w = d.documentElement;"
        "document.title = [sorted, plots > 0, w.scrollWidth <= w.clientWidth].join(' ');"
        "}, 3000)</script>"
    )
    dom = browse(frame, "--allow-file-access-from-files", "--window-size=1200,900")
    assert "<title>true true true</title>" in dom

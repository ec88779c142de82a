import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from tests.report.fake import fake_results, fake_rows
from valign.report import markdown_table, render
from valign.report.choice import comparison_dose, main_block, samples
from valign.report.words import headline, interval, number
from valign.study.results import Measured
from valign.values import load_system

EVIL = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
)
ONE = dict(methods=("none", "random", "neva"), doses=(0.1,), targets=("benevolence",))


@pytest.fixture(scope="module")
def many():
    return fake_results(methods=("none", "random", "caa", "neva"), doses=(0.05, 0.1))


@pytest.fixture(scope="module")
def page(many, tmp_path_factory):
    return render(many, [], tmp_path_factory.mktemp("page") / "report.html").read_text("utf-8")


class Outline(HTMLParser):
    """Tags that stay open, links to other places, ids."""

    void = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.outside, self.ids, self.anchors = [], [], [], []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        for key in ("src", "href"):
            if key in found:
                (self.anchors if found[key].startswith("#") else self.outside).append(found[key])
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_whole_and_needs_nothing_from_outside(page):
    outline = Outline()
    outline.feed(page)
    assert outline.open == [] and outline.outside == []
    assert {a[1:] for a in outline.anchors} <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))


def test_every_section_says_how_to_read_it(page):
    body = page.split("</style>")[1].split('<script type="application/json"')[0]
    for section in re.findall(r"<section.*?</section>", body, re.DOTALL):
        assert "How to read this" in section
    assert body.count("<svg") >= 2 * 10 + 2


@pytest.mark.parametrize("shape", [{}, ONE, {**ONE, "methods": ("neva",)}])
def test_one_or_many_methods_and_targets(shape, tmp_path):
    results = fake_results(n_prompts=40, **shape)
    out = render(results, [], tmp_path / "deep" / "report.html")
    assert "neva" in out.read_text("utf-8")
    assert list(out.parent.iterdir()) == [out]  # no half-written file stays


def test_systems_without_a_circle_get_bars(tmp_path):
    system = load_system("hh")
    results = fake_results(methods=("none", "neva"), doses=(0.1,), system=system, n_prompts=40)
    text = render(results, [], tmp_path / "r.html").read_text("utf-8")
    assert "Values, target" in text and "Value circle" not in text


def test_a_run_of_the_plain_model_alone_still_has_a_page(tmp_path):
    results = fake_results(methods=("none",), doses=(0.1,), n_prompts=20)
    text = render(results, [], tmp_path / "r.html").read_text("utf-8")
    assert "Nothing was steered" in text


def test_model_text_stays_text(tmp_path):
    results = fake_results(n_prompts=40, answer=EVIL, **ONE)
    results.samples[0].prompt = EVIL
    results.blocks[-1].method = EVIL
    results.curves.clear()
    text = render(results, fake_rows(EVIL), tmp_path / "r.html").read_text("utf-8")
    assert EVIL not in text and "<img" not in text.split("</style>")[1].split("<script>")[0]
    assert html.escape(EVIL, quote=False).split("'")[0] in text
    block = re.search(r'<script type="application/json" id="plots">(.*?)</script>', text, re.DOTALL)
    assert block and "owned" in block[1]  # the name is in the plot's data, as inert JSON
    json.loads(block[1])


def test_samples_come_from_rows_where_results_have_none():
    bare = fake_results(n_prompts=20, **ONE).model_copy(update={"samples": []})
    found = samples(bare, fake_rows(), per_target=2)
    assert [s.prompt_id for s in found] == ["d-0", "d-1"]
    assert list(found[0].answers) == ["none", "neva @ 0.1"]
    assert found[0].target == "benevolence=+1"


def test_headline_names_method_dose_effect_and_cost():
    found = headline(fake_results(**ONE))
    assert found.title == "neva steers reference towards benevolence at a dose of 0.1 nats"
    said = " ".join(found.points)
    for word in ("benevolence rises from", "120 prompts", "random @ 0.1", "facts kept", "Leakage"):
        assert word in said


def test_headline_does_not_claim_what_the_interval_denies():
    results = fake_results(methods=("none", "random"), doses=(0.1,))
    assert "No control was shown" in " ".join(headline(results).points)


def test_methods_that_overlap_are_not_ranked(many):
    best = main_block(many)
    rival = next(b for b in many.blocks if b.method == "caa" and b.dose == best.dose)
    close = many.model_copy(deep=True)
    for block in close.blocks:
        if block.label == rival.label:
            block.summary.gain = best.summary.gain
    assert "does not tell them apart" in " ".join(headline(close).points)


def test_comparison_dose_is_where_most_methods_are(many):
    assert comparison_dose(many) in (0.05, 0.1)
    alone = [b for b in many.blocks if not (b.dose == 0.05 and b.method == "caa")]
    assert comparison_dose(many.model_copy(update={"blocks": alone})) == 0.1
    assert comparison_dose(many.model_copy(update={"blocks": []})) is None


def test_numbers_as_text():
    assert number(0.523, percent=True) == "52%"
    assert number(-0.123, percent=True, signed=True) == "−12"
    assert number(-0.00001, percent=True, signed=True) == "0.0"
    assert number(float("nan")) == number(None) == "–"
    m = Measured(value=0.5, low=float("nan"), high=float("nan"), n=3)
    assert interval(m) == "0.50"
    assert interval(Measured(value=0.5, low=0.4, high=0.6, n=3)) == "0.50 [0.40, 0.60]"


def test_markdown_table_has_a_row_per_block_and_equal_columns(many):
    lines = markdown_table(many).splitlines()
    assert len(lines) == 2 + len(many.blocks)
    assert len({line.count("|") for line in lines}) == 1
    short = markdown_table(many, columns=("gain",)).splitlines()[0]
    assert short == "| Method | Asked dose | Gain (pts) | Prompts |"


def test_markdown_names_cannot_break_the_table(many):
    odd = many.model_copy(deep=True)
    odd.blocks[0].method = "a|b\n<script>"
    line = markdown_table(odd).splitlines()[2]
    assert "a\\|b &lt;script>" in line


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")  # fmt: skip  # noqa: E501


@pytest.fixture
def browse(tmp_path):
    """Dump the document after its scripts have run."""
    if CHROMIUM is None:
        pytest.skip("no Chromium")

    def dump(path, *options):
        done = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000",
             *options, "--dump-dom", path.as_uri()],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return done.stdout

    return dump


@pytest.mark.browser
def test_in_a_browser_plots_are_drawn_and_scripts_in_answers_are_not_run(browse, tmp_path):
    results = fake_results(methods=("none", "caa", "neva"), doses=(0.05, 0.1), n_prompts=40,
                           targets=("benevolence", "power"), answer=EVIL)  # fmt: skip
    for item in (*results.blocks, *results.curves):
        item.method = item.method.replace("neva", EVIL)
    dom = browse(render(results, [], tmp_path / "report.html"))
    assert "<title>owned" not in dom and "<title>" in dom
    assert dom.count('class="main-svg"') >= 2 * 3  # trade-off and curves
    assert dom.count('data-panel="circle"') == 2
    assert len(re.findall(r'data-panel="circle"[^>]*hidden', dom)) == 1
    assert "<img src" not in dom.split("</style>", 1)[1].split('<script type="application')[0]


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_nothing_sticks_out_sideways(browse, tmp_path, width):
    render(fake_results(n_prompts=40), [], tmp_path / "report.html")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe src="report.html" style="width:{width}px;height:800px;border:0"></iframe><script>'
        "onload = () => setTimeout(() => { const d = document.querySelector('iframe')"
        ".contentDocument.documentElement;"
        "document.title = d.scrollWidth + ' of ' + d.clientWidth; }, 2000)</script>"
    )
    dom = browse(frame, "--allow-file-access-from-files", "--window-size=1400,900")
    found = re.search(r"<title>(\d+) of (\d+)</title>", dom)
    assert found and int(found[1]) <= int(found[2]) <= width

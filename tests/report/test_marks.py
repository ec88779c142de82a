"""Answers with the words coloured that moved the judge: escaped, legible, read from the file."""

import html
import json
import re

import pytest

from tests.report.fake import fake_results
from tests.report.test_page import EVIL, ONE, Outline, browse
from valign.report import render
from valign.report.marks import coloured
from valign.study.results import Mark, Results, ResultsError, Sample, SystemInfo
from valign.values import load_system

SYSTEM = SystemInfo.of(load_system("schwartz10"))
ANSWER = "Call her tonight, for power is not all."
browse = browse


def mark(word, value="benevolence", weight=0.4, text=ANSWER):
    start = text.index(word)
    return Mark(start=start, end=start + len(word), value=value, weight=weight)


def marked_results(answer=ANSWER, marks=None, **shape):
    marks = marks or [mark("Call"), mark("her", weight=0.2), mark("power", "power", -0.06)]
    results = fake_results(n_prompts=40, answer=answer, **{**ONE, **shape})
    for sample in results.samples:
        sample.marks = {label: marks for label, text in sample.answers.items() if text == answer}
    return results


def test_a_word_is_coloured_and_says_why():
    found = coloured(
        ANSWER, [mark("Call"), mark("power", "power", -0.06)], "benevolence=+1", SYSTEM
    )
    assert '<mark class="raises own w3" title="Benevolence +0.40">Call</mark>' in found
    assert '<mark class="lowers other w1" title="Power −0.06">power</mark>' in found
    assert html.unescape(re.sub("<[^>]*>", "", found)) == ANSWER
    assert coloured(ANSWER, [], "benevolence=+1", SYSTEM) == ANSWER


def test_hostile_text_stays_text_inside_and_outside_of_marks():
    text = f"{EVIL} and {EVIL}"
    inside = Mark(start=0, end=len(EVIL), value=EVIL, weight=0.9)
    cut = Mark(start=len(EVIL) + 5, end=len(EVIL) + 12, value="power", weight=-0.5)
    found = coloured(text, [inside, cut], f"{EVIL}=+1", SYSTEM)
    assert set(re.findall("<[^>]*>", found)) <= {
        "</mark>", *re.findall(r'<mark class="[a-z0-9 ]+" title="[^"<>]*">', found)
    }  # fmt: skip
    assert html.unescape(re.sub("<[^>]*>", "", found)) == text


def test_the_page_is_made_from_the_file_alone(tmp_path):
    results = marked_results()
    first = render(results, [], tmp_path / "a.html").read_text("utf-8")
    results.write(tmp_path / "results.json")
    again = render(Results.read(tmp_path), [], tmp_path / "b.html").read_text("utf-8")
    assert first == again and first.count('title="Benevolence +0.40"') == 2  # random and neva
    outline = Outline()
    outline.feed(first)
    assert outline.open == []


def test_without_marks_the_page_does_not_speak_of_colours(tmp_path):
    text = render(fake_results(n_prompts=20, **ONE), [], tmp_path / "r.html").read_text("utf-8")
    assert "<mark" not in text.split("</style>")[1]


def test_files_from_before_there_were_marks_are_read(tmp_path):
    path = marked_results().write(tmp_path / "results.json")
    old = json.loads(path.read_text())
    for sample in old["samples"]:
        del sample["marks"]
    path.write_text(json.dumps(old))
    assert Results.read(path).samples[0].marks == {}


@pytest.mark.parametrize(
    "spans", [[(0, 99)], [(5, 5)], [(-1, 3)], [(0, 6), (4, 8)], [(4, 8), (0, 3)]]
)
def test_marks_that_do_not_fit_the_answer_are_refused(tmp_path, spans):
    path = marked_results().write(tmp_path / "results.json")
    body = json.loads(path.read_text())
    body["samples"][0]["marks"]["neva @ 0.1"] = [
        dict(start=start, end=end, value="power", weight=0.1) for start, end in spans
    ]
    path.write_text(json.dumps(body))
    with pytest.raises(ResultsError, match="marks"):
        Results.read(path)


def test_a_mark_of_an_answer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        Sample(prompt_id="d", prompt="?", target="", answers={}, marks={"neva": [mark("Call")]})


def channel(share):
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def luminance(rgb):
    return sum(w * channel(c / 255) for w, c in zip((0.2126, 0.7152, 0.0722), rgb, strict=True))


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_marked_words_are_legible(browse, tmp_path, scheme):
    marks = [mark("Call"), mark("her", weight=-0.4), mark("tonight", "power", -0.4)]
    page = render(marked_results(marks=marks), [], tmp_path / "report.html")
    # The page's own policy lets no other script in, so the probe replaces one of its two.
    probe = """
      const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
      const rgb = colours => { paint.clearRect(0, 0, 1, 1);
        for (const c of colours) { paint.fillStyle = c; paint.fillRect(0, 0, 1, 1); }
        return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3); };
      const body = getComputedStyle(document.body).backgroundColor;
      document.title = JSON.stringify([...document.querySelectorAll('.answer mark')].map(m => {
        const s = getComputedStyle(m); return [m.textContent, rgb([s.color]),
        rgb([body, s.backgroundColor])]; }));
    """
    text = page.read_text("utf-8").replace("<script>", f"<script>{probe}</script><script>", 1)
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    page.write_text(text, "utf-8")
    option = ["--blink-settings=preferredColorScheme=" + {"dark": "0", "light": "1"}[scheme]]
    dom = browse(page, *option)
    found = json.loads(html.unescape(re.search("<title>(.*?)</title>", dom)[1]))
    assert {word for word, _, _ in found} == {"Call", "her", "tonight"}
    for word, ink, ground in found:
        light, dark = sorted((luminance(ink), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (word, ink, ground)
    assert (luminance(found[0][1]) > 0.5) == (scheme == "dark")

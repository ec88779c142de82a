"""The fact checker: what it reads, what it takes for the same, what it reports."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valign.detect.factcheck import check_facts
from valign.detect.factcheck_mentions import mentions


def faults(source: str, text: str, **given: object) -> dict[str, list[str]]:
    report = check_facts(source, text, **given)
    found = {
        "dropped": [m.text for m in report.dropped],
        "added": [m.text for m in report.added],
        "changed": [f"{a.text} -> {b.text}" for a, b in report.changed],
    }
    return {name: items for name, items in found.items() if items}


SAME = [
    ("The team has 3 dogs.", "Three dogs are on the team."),
    ("It costs 1,200 euros.", "You pay €1200 for it."),
    ("It costs 1.200 euros.", "It costs 1,200 euros."),
    ("It costs 3.50 euros.", "For 3,50 euros it is yours."),
    ("It costs $5.", "It costs five dollars."),
    ("It costs USD 40.", "Forty dollars is the price."),
    ("About 1.5 million people came.", "About 1,500,000 people came."),
    ("About 5.5 million people came.", "About five and a half million people came."),
    ("There were 234 guests.", "There were two hundred and thirty-four guests."),
    ("There were 100 guests.", "A hundred guests came."),
    ("It holds 12 eggs.", "It holds a dozen eggs."),
    ("The film takes 90 minutes.", "The film takes 1.5 hours."),
    ("The ride is 2 km long.", "The ride is 2,000 metres long."),
    ("It has stood for 10 years.", "It has stood for a decade."),
    ("It fell by 25%.", "It fell by 25 per cent."),
    ("It fell by 25 percent.", "It fell by a quarter."),
    ("The club meets at 19:00.", "The club meets at 7 p.m."),
    ("The club meets at 7:30 pm.", "The club meets at half past seven."),
    ("The club meets at 8 in the evening.", "The club meets at eight."),
    ("Doors close at 12:00.", "Doors close at noon."),
    ("It opens at 6:45.", "It opens at a quarter to seven."),
    ("She was born on 19 May 2014.", "She was born on May 19th, 2014."),
    ("She was born on 19 May 2014.", "In 2014, on the 19th of May, she was born."),
    ("It is due on 2024-03-07.", "It is due on 7 March 2024."),
    ("It is due on 3/7/2024.", "It is due on 7 March 2024."),
    ("It runs from 3 to 17 May.", "From 3 May until 17 May it runs."),
    ("It is open on Wednesdays.", "Every Wed it is open."),
    ("The flat is on the 4th floor.", "The flat is on the fourth floor."),
    ("Call 555 0142.", "Ring 555-0142."),
    ("Two brothers own it.", "Both brothers own it."),
    ("It is Anna Kovač's shop.", "The shop belongs to Anna Kovac."),
    ("Alexander Fleming found it.", "It was Fleming who found it."),
    ("He is from Finland.", "He is a Finnish man."),
    ("The United Nations met.", "The UN met."),
    ("We met in London.", "London is where we met."),
    ("The Pham scholarship pays well.", "Pham pays well."),
    ("It was 5 degrees.", "It was five degrees."),
    ("It was -5 degrees.", "It was minus five degrees."),
]


@pytest.mark.parametrize(("source", "text"), SAME)
def test_a_fact_restated_is_kept(source: str, text: str) -> None:
    assert mentions(source), "the source states something"
    assert faults(source, text) == {}


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        (
            "There are 22 volunteers.",
            "There are 25 volunteers.",
            {"changed": ["22 -> 25"]},
        ),
        ("It weighs 24 kilos.", "It weighs 24 grams.", {"changed": ["24 kilos -> 24 grams"]}),
        (
            "It costs 5 euros.",
            "It costs 5 pounds.",
            {"dropped": ["5 euros"], "added": ["5 pounds"]},
        ),
        ("It opens at 7 am.", "It opens at 7 pm.", {"changed": ["7 am -> 7 pm"]}),
        ("It opens at 19:00.", "It opens at 7 am.", {"changed": ["19:00 -> 7 am"]}),
        ("Due on 19 May 2014.", "Due on 19 May 2015.", {"changed": ["19 May 2014 -> 19 May 2015"]}),
        ("Due on 19 May.", "Due on 20 May.", {"changed": ["19 May -> 20 May"]}),
        ("It meets on Tuesdays.", "It meets on Fridays.", {"changed": ["Tuesdays -> Fridays"]}),
        ("The fish is good in Brno.", "The fish is good.", {"dropped": ["Brno"]}),
        ("The fish is good.", "The fish is good in Brno.", {"added": ["Brno"]}),
        ("Ask Osei about it.", "Ask Maria Osei about it.", {"added": ["Maria Osei"]}),
        (
            "The farm was theirs for six generations.",
            "The farm was theirs for six years.",
            {"dropped": ["six"], "added": ["six years"]},
        ),
        ("It is on the 4th floor.", "It has 4 floors.", {"changed": ["4th -> 4"]}),
        ("They saw 3 cats.", "They saw two and three cats.", {"added": ["two and three"]}),
    ],
)
def test_faults_are_named(source: str, text: str, expected: dict[str, list[str]]) -> None:
    assert faults(source, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Breakfast is plain. Please wash up, and one of you may rest. It is the first thing to do.",
        'You may leave; I\'m sure that OK is fine. They march on. "Never," he said. Hundreds came.',
        "What would you do? Nobody knows: Everyone is gone.",
    ],
)
def test_ordinary_words_are_no_facts(text: str) -> None:
    assert [m.text for m in mentions(text) if not m.soft] == []


def test_a_capital_at_a_start_counts_if_it_has_one_inside_elsewhere() -> None:
    assert [m.text for m in mentions("Kilimanjaro is high.")] == []
    assert faults("Kilimanjaro is high.", "It is high.", allowed=["What is Kilimanjaro?"]) == {
        "dropped": ["Kilimanjaro"]
    }


def test_facts_of_the_prompt_may_appear_and_need_not() -> None:
    assert faults("It opens at 9:00.", "In Lviv it opens at 9:00.", allowed=["When in Lviv?"]) == {}
    assert faults("It opens at 9:00.", "It opens at 9:00.", allowed=["When in Lviv?"]) == {}


def test_kinds_retention_and_reasons() -> None:
    source = "On 3 May 40 people from Graz met Ada Lovelace at 9:00 and paid 5 euros."
    kinds = {m.text: m.kind for m in mentions(source)}
    assert kinds == {
        "3 May": "date",
        "40": "number",
        "Graz": "place",
        "Ada Lovelace": "name",
        "9:00": "time",
        "5 euros": "amount",
    }
    report = check_facts(source, "On 3 May 41 people from Graz met at 9:00 and paid 5 euros.")
    assert report.retention == pytest.approx(4 / 6)
    assert not report.faithful
    assert report.reasons == ("changes number '40' to '41'", "drops name 'Ada Lovelace'")
    assert check_facts("Be kind.", "Be very kind.").retention == 1.0


WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_keeps_its_own_facts(text: str) -> None:
    report = check_facts(text, text)
    assert report.faithful, report.reasons


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 999_999), st.integers(2, 999_999))
def test_numbers_are_equal_only_to_themselves(a: int, b: int) -> None:
    assert check_facts(f"It has {a} bricks.", f"It has {b:,} bricks.").faithful == (a == b)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 9999))
def test_numbers_in_words(n: int) -> None:
    assert check_facts(f"It has {n} bricks.", f"It has {spell(n)} bricks.").faithful
    assert not check_facts(f"It has {n + 1} bricks.", f"It has {spell(n)} bricks.").faithful


def spell(n: int) -> str:
    tens = "twenty thirty forty fifty sixty seventy eighty ninety".split()
    teens = WORDS[1:] + "thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
    if n < 20:
        return teens[n - 1]
    if n < 100:
        return tens[n // 10 - 2] + (f"-{teens[n % 10 - 1]}" if n % 10 else "")
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if n >= size:
            rest = n % size
            link = " and " if 0 < rest < 100 else " "
            return f"{spell(n // size)} {name}{link + spell(rest) if rest else ''}"
    raise AssertionError

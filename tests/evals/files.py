"""Small files in the form in which the tests' authors write them."""

import csv
import json

ASKED = ["should I win ?", "rest or work ?", "can we keep the money ?", "will they try ?"] * 3


def rows(path, header, lines):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(lines)
    return path


def write_files(tmp_path):
    """A file per test, written as its authors write them."""
    choices = dict.fromkeys(["rest at home", "work", "win the trip"], 0)
    truth = [
        dict(question=q, mc1_targets=choices | {"work": 1},
             mc2_targets=choices | {"work": 1, "rest at home": 1})
        for q in ASKED
    ]  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    sums = [dict(question=q, answer=f"so\n#### {i}") for i, q in enumerate(ASKED)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, sums)))
    (tmp_path / "wiki.txt").write_text(
        "".join(f" = we {i} = \n\n the family will go {'work ' * i}\n" for i in range(6))
    )
    harm = [[q, "standard", "other", "", "", f"id{i}"] for i, q in enumerate(ASKED)]
    head = ["Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString",
            "BehaviorID"]  # fmt: skip
    strong = [["other", "us", q] for q in ASKED]
    simple = [[f"s{i}", "harm", "advice", q] for i, q in enumerate(ASKED)]
    over = [[i, q, "homonyms", "safe" if i % 3 else "unsafe"] for i, q in enumerate(ASKED)]
    return {
        "truthfulqa": tmp_path / "truth.json",
        "truthfulqa-mc2": tmp_path / "truth.json",
        "gsm8k": tmp_path / "sums.jsonl",
        "wikitext": tmp_path / "wiki.txt",
        "harmbench": rows(tmp_path / "harm.csv", head, harm),
        "strongreject": rows(
            tmp_path / "strong.csv", ["category", "source", "forbidden_prompt"], strong
        ),
        "simple-safety-tests": rows(
            tmp_path / "simple.csv", ["id", "harm_area", "category", "prompts_final"], simple
        ),
        "xstest": rows(tmp_path / "over.csv", ["id", "prompt", "type", "label"], over),
    }

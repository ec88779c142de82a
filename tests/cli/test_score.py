"""`valign score`."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import VALUES, typed

KIND = "Help your friend and be loyal to her."
RICH = "Money and power."


def rows(said):
    assert said.code == 0, said
    return [json.loads(line) for line in said.out.split("\n") if line]


def score(command, *arguments):
    return command("score", "--detector", "wordlist", *arguments)


def test_texts_as_arguments_make_a_table_each(command):
    said = score(command, KIND, RICH)
    assert said.code == 0 and KIND in said.out and RICH in said.out
    assert said.out.index("benevolence") < said.out.index(RICH)


def test_json_is_one_object_a_row_with_every_score(command):
    found = rows(score(command, KIND, RICH, "--json"))
    assert [row["text"] for row in found] == [KIND, RICH]
    assert all(tuple(row["scores"]) == VALUES for row in found)
    assert all(-1 <= s <= 1 for row in found for s in row["scores"].values())
    assert found[1]["scores"]["power"] > found[0]["scores"]["power"] == 0


def test_plain_lines_and_jsonl_say_the_same(command, tmp_path):
    plain, jsonl = tmp_path / "a.txt", tmp_path / "a.jsonl"
    plain.write_text(f"{KIND}\n\n{RICH}\n", "utf-8")
    jsonl.write_text(
        "\ufeff" + "".join(json.dumps({"text": t, "id": 1}) + "\n" for t in (KIND, RICH)), "utf-8"
    )
    expected = rows(score(command, KIND, RICH, "--json"))
    assert rows(score(command, "-f", plain, "--json")) == expected
    assert rows(score(command, "-f", jsonl, "--json")) == expected


def test_more_rows_than_a_batch_keep_their_order(command, tmp_path):
    path = tmp_path / "many.txt"
    path.write_text("".join(f"line {i} power\n" for i in range(150)))
    assert [r["text"] for r in rows(score(command, "-f", path, "--json"))] == [
        f"line {i} power" for i in range(150)
    ]


def test_dash_reads_standard_input(command, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{KIND}\n\n  {RICH}\n"))
    assert [r["text"] for r in rows(score(command, "-", "--json"))] == [KIND, RICH]


def test_dash_in_a_real_pipe():
    with typed(["score", "--detector", "wordlist", "--json", "-"], stdin=-1) as process:
        out, err = process.communicate(f"{KIND}\n", timeout=120)
    assert process.returncode == 0 and json.loads(out)["text"] == KIND and not err.strip()


@pytest.mark.parametrize("text", ["see [/b] here", "[red]x", "[bold", "\\[x]"])
def test_brackets_are_text_and_no_markup(command, text):
    said = score(command, text)
    assert said.code == 0 and text in said.out


def test_texts_are_not_translated_or_cut_in_json(command):
    text = "Ünïcode \u2028 power 力 " + "x" * 300
    assert rows(score(command, text, "--json"))[0]["text"] == text


def test_nothing_to_read_is_refused(refused, tmp_path, monkeypatch):
    assert "--file" in refused("score", "--detector", "wordlist")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    assert "no text" in refused("score", "--detector", "wordlist", "-f", empty)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert "no text" in refused("score", "--detector", "wordlist", "-")


def test_files_that_cannot_be_read_are_refused_by_name(refused, tmp_path):
    assert "nowhere.txt" in refused(
        "score", "--detector", "wordlist", "-f", tmp_path / "nowhere.txt"
    )
    latin = tmp_path / "latin.txt"
    latin.write_bytes("café".encode("latin-1"))
    said = refused("score", "--detector", "wordlist", "-f", latin)
    assert "latin.txt" in said and "not UTF-8" in said and "Save it as UTF-8" in said


@pytest.mark.parametrize(
    ("row", "says"),
    [('{"answer": "x"}', "expected an object like"), ("{", "not JSON"),
     ('["text"]', "expected an object like"), ('{"text": 3}', "expected an object")],
)  # fmt: skip
def test_a_wrong_jsonl_row_is_named_by_its_line(command, tmp_path, row, says):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"text": "fine"}}\n\n{row}\n')
    said = score(command, "-f", path, "--json")
    assert said.code == 2 and "line 3" in said.error and says in said.error
    assert "Traceback" not in said.err


def test_standard_input_that_is_not_utf8_is_refused(refused, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), "utf-8"))
    assert "not UTF-8" in refused("score", "--detector", "wordlist", "-")


def test_an_unknown_detector_suggests_the_nearest(refused):
    said = refused("score", "--detector", "wordlst", "x")
    assert "Did you mean wordlist" in said and "english-b" in said


def test_word_lists_over_other_values_are_refused(refused, tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"calm": ["quiet"]}')
    said = refused("score", "--detector", path, "x")
    assert "schwartz10" in said and "calm" in said


PEAK = """
import sys
from valign.cli import app
app(sys.argv[1:], standalone_mode=False)
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak, file=sys.stderr)
"""
"""Not `ru_maxrss`, which a process inherits from the one that started it."""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    running = []
    for n in (20_000, 200_000):
        path, told = tmp_path / f"{n}.txt", tmp_path / f"{n}.jsonl"
        with path.open("w") as file:
            file.writelines(f"line {i}: power and care\n" for i in range(n))
        with told.open("w") as out:
            running.append(subprocess.Popen(
                [sys.executable, "-c", PEAK, "score", "--detector", "wordlist", "--file", str(path),
                 "--json"],
                stdout=out, stderr=subprocess.PIPE, text=True,
            ))  # fmt: skip
    kib = []
    for process, n in zip(running, (20_000, 200_000), strict=True):
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
        with (tmp_path / f"{n}.jsonl").open() as lines:
            assert sum(1 for _ in lines) == n
        kib.append(int(said.split()[-1]))
    # The lines that the larger file has more would take 15 MiB and more if they were kept.
    assert kib[1] < kib[0] + 4 * 1024

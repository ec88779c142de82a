import pytest

from valign.study.folder import FolderError, RunFolder
from valign.study.results import Row

PLAN = {"doses": (0.5,), "seeds": [0], "methods": ["caa"]}


def rows(n, start=0):
    return [Row(run="r", method="caa", target="power=+1", dose=0.1, prompt_id=f"d{i}",
                prompt="?", answer=f"so {i}") for i in range(start, start + n)]  # fmt: skip


def test_what_was_appended_is_known_after_opening_again(tmp_path):
    folder = RunFolder(tmp_path / "a" / "run", PLAN)
    folder.append(rows(3))
    again = RunFolder(tmp_path / "a" / "run", PLAN)
    assert again.rows() == folder.rows() == rows(3)
    assert again.has(rows(1)[0].key) and not again.has(rows(1, start=9)[0].key)


@pytest.mark.parametrize("torn", [b"{", b'{"run": "r"', "é".encode()[:1], b"\x00\x00"])
def test_a_torn_last_line_is_cut_and_writing_goes_on(tmp_path, torn):
    RunFolder(tmp_path, PLAN).append(rows(2))
    with (tmp_path / "rows.jsonl").open("ab") as file:
        file.write(torn)
    folder = RunFolder(tmp_path, PLAN)
    folder.append(rows(1, start=2))
    assert folder.rows() == rows(3)


def test_another_plan_is_refused_and_says_where_it_differs(tmp_path):
    RunFolder(tmp_path, PLAN)
    with pytest.raises(FolderError, match=r"another run: doses, seeds differ.*--out"):
        RunFolder(tmp_path, {**PLAN, "doses": [0.1], "seeds": [1]})


def test_controls_have_one_file_each_whose_name_stays_in_the_folder(tmp_path):
    folder = RunFolder(tmp_path, PLAN)
    long = ",".join(f"value-{i}=+0.5" for i in range(40))
    names = {
        folder.control_file(method, target, dose, seed)
        for method in ("caa", "caa[layers=1]", "../../etc/passwd")
        for target in ("power=+1", "power=-1", long, long + ",x=+1")
        for dose in (None, 0.5, 0.25)
        for seed in (0, 1)
    }
    assert len(names) == 3 * 4 * 3 * 2
    assert all(path.parent == tmp_path / "controls" for path in names)
    assert all(len(path.name.encode()) <= 220 for path in names)

"""Runs that are interrupted or killed go on with the same command, and end as if undisturbed."""

import json
import signal
import time
from collections import Counter

import pytest

import valign.study.engine as engine
from tests.cli.conftest import typed
from valign.study.results import Results, read_rows

SAMPLED = ("--temperature", 1.0, "--batch-size", 1, "--prompts", 15, "--max-new-tokens", 8)
"""Small chunks, so that rows reach the disk while the run still has work to do."""
TOTAL = (15 + 3) * (1 + 4)


def answers(folder):
    return {row.key: row.answer for row in read_rows(folder / "rows.jsonl")}


def whole_lines(folder) -> bytes:
    file = folder / "rows.jsonl"
    data = file.read_bytes() if file.exists() else b""
    return data[: data.rfind(b"\n") + 1]


def stopped(arguments, folder, how: int):
    """Start the command and send it a signal once a few rows are written; (code, stderr)."""
    with typed(arguments) as process:
        deadline = time.monotonic() + 300
        while whole_lines(folder).count(b"\n") < 8 and process.poll() is None:
            assert time.monotonic() < deadline, "no rows were written"
            time.sleep(0.01)
        process.send_signal(how)
        _, said = process.communicate(timeout=120)
    return process.returncode, said


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return tmp_path_factory.mktemp("undisturbed") / "run"


@pytest.fixture
def expected(command, run_command, model, undisturbed):
    """Answers of the same command that nothing interrupted."""
    if not undisturbed.exists():
        assert command(*run_command(model, undisturbed, *SAMPLED)).code == 0
    return answers(undisturbed)


@pytest.fixture
def goes_on(command, run_command, model, monkeypatch, expected):
    """Continue a stopped run in this process and hold the outcome against the undisturbed one."""

    def run(folder):
        kept = whole_lines(folder)
        controls = {p.name: p.stat().st_mtime_ns for p in (folder / "controls").glob("*.safet*")}
        made = Counter()
        real = engine.generate

        def counted(lm, prompts, *args, **options):
            made["answers"] += len(prompts) if "temperature" in options else 0
            return real(lm, prompts, *args, **options)

        monkeypatch.setattr(engine, "generate", counted)
        said = command(*run_command(model, folder, *SAMPLED))
        assert said.code == 0, said
        assert answers(folder) == expected
        rows = (folder / "rows.jsonl").read_bytes()
        assert rows.startswith(kept) and rows.count(b"\n") == len(expected) == TOTAL
        assert made["answers"] == TOTAL - kept.count(b"\n")
        stamps = {name: (folder / "controls" / name).stat().st_mtime_ns for name in controls}
        assert stamps == controls
        assert (folder / "report.html").is_file()
        return Results.read(folder)

    return run


def test_ctrl_c_exits_130_and_the_same_command_goes_on(run_command, model, tmp_path, goes_on):
    folder = tmp_path / "run"
    code, said = stopped(run_command(model, folder, *SAMPLED), folder, signal.SIGINT)
    assert code == 130 and "Traceback" not in said
    assert "run the same command" in " ".join(said.split())
    assert whole_lines(folder) == (folder / "rows.jsonl").read_bytes()
    assert not (folder / "results.json").exists()
    goes_on(folder)


def test_kill_9_loses_nothing_finished_and_doubles_nothing(
    run_command, model, tmp_path, goes_on, undisturbed
):
    folder = tmp_path / "run"
    code, _ = stopped(run_command(model, folder, *SAMPLED), folder, signal.SIGKILL)
    assert code == -signal.SIGKILL
    with (folder / "rows.jsonl").open("ab") as file:  # the line it was writing
        file.write(whole_lines(folder).splitlines()[0][:-40])
    results = goes_on(folder)
    fresh = Results.read(undisturbed)
    for old, new in zip(fresh.blocks, results.blocks, strict=True):
        assert new.summary.gain == old.summary.gain and new.shift == old.shift
        assert [t.dose for t in new.targets] == [t.dose for t in old.targets]


@pytest.mark.parametrize("cut", [0, 1, 17, -1])
def test_wherever_a_run_stopped_it_goes_on(expected, undisturbed, tmp_path, goes_on, cut):
    """Rows cut after any line, with a torn line behind: as a kill at that moment leaves them."""
    folder = tmp_path / "run"
    (folder / "controls").mkdir(parents=True)
    (folder / "run.json").write_bytes((undisturbed / "run.json").read_bytes())
    controls = sorted((undisturbed / "controls").iterdir())
    for path in controls if cut else controls[:1]:
        (folder / "controls" / path.name).write_bytes(path.read_bytes())
    lines = (undisturbed / "rows.jsonl").read_bytes().splitlines(keepends=True)
    torn = "Gruß".encode()[:-1]  # in the middle of a character
    (folder / "rows.jsonl").write_bytes(b"".join(lines[:cut]) + b'{"run": "' + torn)
    goes_on(folder)


def test_interrupted_while_fitting_it_goes_on(command, run_command, model, tmp_path, monkeypatch):
    from valign.methods.prompt import Instruction

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:

        def interrupted(*args):
            raise KeyboardInterrupt

        patch.setattr(Instruction, "_fit", interrupted)
        said = command(*run_command(model, folder))
        assert said.code == 130 and "run the same command" in said.error
    kept = [path.name for path in (folder / "controls").iterdir()]
    assert len(kept) == 1 and kept[0].startswith("caa")
    assert command(*run_command(model, folder)).code == 0
    assert json.loads((folder / "run.json").read_text())["methods"][-1] == "caa"

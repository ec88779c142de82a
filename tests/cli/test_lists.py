"""Help, `methods` and `values`."""

import json

import pytest
import yaml

from tests.cli.conftest import VALUES, typed
from valign import __version__
from valign.methods import available_methods
from valign.values import available_systems

COMMANDS = ("demo", "run", "generate", "profile", "score", "report", "methods", "values")


def test_help_names_every_command(command):
    said = command("--help")
    assert said.code == 0 and not said.err
    assert all(name in said.out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(command, name):
    said = command(name, "--help")
    assert said.code == 0 and not said.err
    assert f"valign {name}" in said.out or f"{name} [OPTIONS]" in said.out


def test_no_command_prints_help_and_fails(command):
    said = command()
    assert said.code == 2 and "generate" in said.out + said.err


def test_version(command):
    assert command("--version").out.strip() == __version__


def test_an_unknown_command_or_option_is_a_usage_error(refused):
    assert "steer" in refused("steer")
    assert "--sped" in refused("run", "--sped", "3")


def test_methods_lists_all(command):
    said = command("methods")
    assert said.code == 0 and all(name in said.out for name in available_methods())
    listed = json.loads(command("methods", "--json").out)
    assert tuple(listed) == available_methods() and all(listed.values())


@pytest.mark.parametrize("name", available_methods())
def test_every_method_explains_itself(command, name):
    said = command("methods", name)
    assert said.code == 0 and len(said.out) > 80


def test_a_method_in_full_shows_formula_and_settings(command):
    said = command("methods", "neva")
    assert "score     grad_v * gap_v" in said.out
    assert "share" in said.out and "0.05" in said.out
    explained = json.loads(command("methods", "neva", "--json").out)
    assert explained["settings"]["share"]["default"] == 0.05


def test_values_lists_systems_and_values(command):
    said = command("values")
    assert all(name in said.out for name in available_systems())
    assert set(json.loads(command("values", "--json").out)) == set(available_systems())
    said = command("values", "schwartz10")
    assert said.code == 0 and all(name in said.out for name in VALUES)
    assert tuple(json.loads(command("values", "schwartz10", "--json").out)) == VALUES


def test_values_of_an_own_system_are_shown_as_written(command, tmp_path):
    path = tmp_path / "own.yaml"
    calm = {"name": "calm", "title": "Calm", "definition": "[red]no markup[/]"}
    own = {"name": "own", "title": "[b]Own[/i]", "source": "me", "values": [calm]}
    path.write_text(yaml.safe_dump(own))
    said = command("values", path)
    assert said.code == 0 and "[red]no markup[/]" in said.out and "[b]Own[/i]" in said.out


def test_unknown_names_suggest_the_nearest(refused):
    assert "neva" in refused("methods", "nevva")
    assert "Did you mean schwartz10" in refused("values", "schwarz10")


def test_a_reader_who_leaves_early_sees_no_traceback():
    with typed(["values", "schwartz19"]) as process:
        process.stdout.close()
        process.wait(120)
        assert "Traceback" not in process.stderr.read()
        process.stdout = None

"""The arrows between rooms are those that `docs/architecture.md` tells."""

import ast
import re
from pathlib import Path

import pytest

import valign

SOURCE = Path(valign.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
ROOMS = sorted(p.name for p in SOURCE.iterdir() if (p / "__init__.py").is_file())


def told() -> dict[str, set[str]]:
    """Room -> the rooms it may know, as the page's table says."""
    found = {}
    for row in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if row.startswith("| `") and cells[0].strip("`") in ROOMS and len(cells) == 3:
            known = set(ROOMS) if cells[1] == "all" else set(re.findall(r"`(\w+)`", cells[1]))
            found[cells[0].strip("`")] = known
    return found


def imported(file: Path) -> set[str]:
    """The rooms that a file imports from, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            place = file.relative_to(SOURCE.parent).parts[: -node.level] if node.level else ()
            base = ".".join([*place, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "valign" else [base]
        else:
            continue
        parts = [name.split(".") for name in names]
        found |= {p[1] for p in parts if p[0] == "valign" and len(p) > 1 and p[1] in ROOMS}
    return found


def test_the_page_names_every_room():
    assert sorted(told()) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_knows_only_those_the_page_names(room):
    known = told()[room]
    for file in (SOURCE / room).rglob("*.py"):
        stray = imported(file) - known - {room}
        assert not stray, f"{file.relative_to(SOURCE)} imports {', '.join(sorted(stray))}"

"""`valign methods` and `valign values`: what there is to choose from."""

from __future__ import annotations

import json as json_module

import typer
from rich.markup import escape
from rich.table import Table

from valign.cli.console import out


def register(app: typer.Typer) -> None:
    app.command("methods")(methods)
    app.command("values")(values)


def methods(
    name: str = typer.Argument(None, help="Show one method in full, with its settings."),
    json: bool = typer.Option(False, "--json"),
) -> None:
    """List the methods, or explain one."""
    import inspect

    from valign.methods import available_methods, method_class
    from valign.methods.rlev.settings import Settings as RLEV

    def first_line(text: str | None) -> str:
        return (text or "").strip().splitlines()[0] if text else ""

    if name is not None:
        method = RLEV if name == RLEV.name else method_class(name)
        meanings = {
            key: (field.default, " ".join((field.description or "").split()))
            for key, field in method.model_fields.items()
        }
        if json:
            settings = {key: {"default": d, "meaning": m} for key, (d, m) in meanings.items()}
            explained = {"method": name, "about": inspect.getdoc(method), "settings": settings}
            typer.echo(json_module.dumps(explained, indent=1))
            return
        out.print(inspect.getdoc(method) or "", markup=False, highlight=False, soft_wrap=True)
        table = Table("setting", "default", "meaning", title="settings")
        for key, (default, meaning) in meanings.items():
            table.add_row(key, escape(str(default)), escape(meaning))
        if meanings:
            out.print(table)
        return
    rows = {n: first_line(method_class(n).__doc__) for n in available_methods()}
    if json:
        typer.echo(json_module.dumps(rows, indent=1))
        return
    table = Table("method", "what it does")
    for key, line in rows.items():
        table.add_row(escape(key), escape(line))
    out.print(table)
    out.print("Beside them `valign fit rlev`: questions that are worth different amounts.",
              highlight=False)  # fmt: skip


def values(
    system: str = typer.Argument(None, help="A system's name or a YAML file."),
    json: bool = typer.Option(False, "--json"),
) -> None:
    """List the value systems, or the values of one."""
    from valign.values import available_systems, load_system

    if system is None:
        rows = {name: load_system(name).title for name in available_systems()}
        if json:
            typer.echo(json_module.dumps(rows, indent=1))
            return
        table = Table("system", "title", "values")
        for name, title in rows.items():
            table.add_row(name, title, str(len(load_system(name))))
        out.print(table)
        return
    found = load_system(system)
    if json:
        typer.echo(json_module.dumps({v.name: v.definition for v in found}, indent=1))
        return
    table = Table("value", "group", "definition", title=escape(found.title))
    for value in found:
        group = dict(found.group_titles).get(value.group or "", "")
        table.add_row(value.name, escape(group), escape(value.definition))
    out.print(table)

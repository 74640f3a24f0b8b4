"""The reference of the guide has every public name and every command."""

import importlib.util
from pathlib import Path

import pytest

import logitlab
from logitlab.app import cli

pytest.importorskip("typer")

GUIDE = Path(__file__).parent.parent / "guide"
_spec = importlib.util.spec_from_file_location("reference", GUIDE / "reference.py")
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)


def lacking(pages):
    """The public names and the commands that the pages do not have."""
    names = [f"{module}.{name}" for module, all_ in reference.namespaces().items() for name in all_]
    commands = [
        command.name or command.callback.__name__ for command in cli.app.registered_commands
    ]
    return [
        name
        for name in names
        if f".. auto{kind(name)}:: {name}\n" not in pages.get(f"{name}.md", "")
    ] + [name for name in commands if f"## logitlab {name}\n" not in pages["command-line.md"]]


def kind(name):
    module, _, last = name.rpartition(".")
    return (
        "class" if isinstance(getattr(importlib.import_module(module), last), type) else "function"
    )


def test_nothing_public_is_missing_from_the_reference():
    assert lacking(reference.pages()) == []


def test_the_reference_test_can_fail(monkeypatch):
    """A page and a command that are taken away are missed."""
    pages = reference.pages()
    del pages["logitlab.softmax.md"]
    pages["command-line.md"] = pages["command-line.md"].replace("## logitlab report", "## report")
    assert lacking(pages) == ["logitlab.softmax", "report"]


def test_the_reference_follows_the_library(monkeypatch):
    """A name that becomes public has its page."""
    monkeypatch.setattr(logitlab, "__all__", [*logitlab.__all__, "arrays"])
    monkeypatch.setattr(logitlab.arrays, "__module__", "logitlab.arrays", raising=False)
    assert "logitlab.arrays.md" in reference.pages()


def test_the_laws_in_brief():
    """The README counts what docs/laws.md tells."""
    page = (GUIDE.parent / "docs" / "laws.md").read_text("utf-8")
    readme = (GUIDE.parent / "README.md").read_text("utf-8")
    brief = readme.partition("<!-- bench:laws -->")[2].partition("<!-- /bench:laws -->")[0]
    mathematics = page.partition("## Mathematics")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split("|") for line in mathematics.splitlines() if "| " in line][1:]
    for title, *cells in rows:
        claimed = [cell for cell in cells if cell.strip()]
        weak, broken = (sum(word in cell for cell in claimed) for word in ("weak", "**broken"))
        name = title.rpartition(" (")[0]
        assert f"| {name} | {len(claimed)} | {weak} | {broken} |" in brief

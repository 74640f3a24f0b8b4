"""The guide: its reference is complete, and its pages have all their parts."""

import importlib.util
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import logitlab
from logitlab._app import cli

pytestmark = pytest.mark.slow

pytest.importorskip("typer")

GUIDE = Path(__file__).parent.parent / "guide"
_spec = importlib.util.spec_from_file_location("reference", GUIDE / "reference.py")
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)


def missing_names(pages):
    """Public names and commands that are not in the pages."""
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


def test_reference_is_complete():
    assert missing_names(reference.pages()) == []


def test_missing_names_finds_removed_pages():
    """A removed page and a removed command are missing."""
    pages = reference.pages()
    del pages["logitlab.softmax.md"]
    pages["command-line.md"] = pages["command-line.md"].replace("## logitlab report", "## report")
    assert missing_names(pages) == ["logitlab.softmax", "report"]


def test_new_public_name_has_a_page(monkeypatch):
    """A name added to __all__ gets a page."""
    monkeypatch.setattr(logitlab, "__all__", [*logitlab.__all__, "_arrays"])
    monkeypatch.setattr(logitlab._arrays, "__module__", "logitlab._arrays", raising=False)
    assert "logitlab._arrays.md" in reference.pages()


def test_list_of_names():
    """Sections have titles, and summaries are whole sentences."""
    page = reference.pages()["library.md"]
    titles = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert titles == [*dict.fromkeys(reference.SECTIONS.values()), *reference.MODULES.values()]
    rows = [line.rstrip("| ") for line in page.splitlines() if line.startswith("| [`")]
    assert [row for row in rows if not row.endswith((".", "?"))] == []


def test_packages_loaded_by_import():
    """`import logitlab` loads only the packages that the reference names."""
    program = (
        "import sys; before = set(sys.modules); import logitlab\n"
        "for name in set(sys.modules) - before:\n"
        "    if 'site-packages' in (getattr(sys.modules[name], '__file__', None) or ''):\n"
        "        print(name.partition('.')[0])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert {"numpy", "array_api_compat"} >= {
        name for name in result.stdout.split() if "logitlab" not in name
    }
    assert "loads NumPy and array-api-compat, no other" in reference.pages()["library.md"]


def cells(page):
    return re.findall(r"^```\{code-cell\}.*?\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def test_shell_commands_are_checked():
    """The cell asserts the exit status of each `!` command; the build does not check it."""
    for path in GUIDE.rglob("*.md"):
        for cell in cells(path.read_text("utf-8")):
            lines = cell.splitlines()
            for line, next_line in itertools.pairwise([*lines, ""]):
                assert not line.startswith("!") or next_line == "assert _exit_code == 0", path


def test_every_concept_page_is_complete():
    """A claim, code, a picture, what floating point does, exercises, references."""
    index = (GUIDE / "concepts" / "index.md").read_text("utf-8")
    names = re.findall(r"^[a-z-]+$", index, re.MULTILINE)
    assert {path.stem for path in (GUIDE / "concepts").glob("*.md")} == {*names, "index"}
    for name in names[:-2]:  # all but those about the source notebook
        page = (GUIDE / "concepts" / f"{name}.md").read_text("utf-8")
        parts = ("**The claim.**", "## In floating point", "## Exercises", "**1.**", "**2.**")
        for part in (*parts, "olution", "## References"):
            assert part in page, (name, part)
        assert any("plot" in cell for cell in cells(page)), name


def test_the_table_of_cells():
    """Each code cell of the document that the guide follows has its row, each section its name."""
    document = GUIDE.parent.parent / "shared" / "founding-document.md"
    if not document.exists():
        pytest.skip("the document is not here")
    text = document.read_text("utf-8")
    table = (GUIDE / "concepts" / "correspondence.md").read_text("utf-8")
    rows = [
        line for line in table.partition("Sections without code")[0].splitlines() if "|" in line
    ]
    section, wanted = "(beginning)", []
    for line in text.splitlines():
        if line.startswith("#"):
            section = line.strip("# ")
        if line.startswith(("```{code-cell}", "```python")):
            wanted.append(section if wanted else "(beginning)")
    assert [row.split("|")[1].strip() for row in rows[2:]] == wanted
    headings = re.findall(r"^#{2,3} (.*)", text, re.MULTILINE)
    missing = [heading for heading in headings if heading not in table]
    assert missing == ["References and Further Readings", "Citations"]


def test_references_of_the_document():
    """Every reference of the document that the guide follows is on a concept page."""
    document = GUIDE.parent.parent / "shared" / "founding-document.md"
    if not document.exists():
        pytest.skip("the document is not here")
    listed = document.read_text("utf-8").partition("## References and Further Readings")[2]
    pages = "".join(path.read_text("utf-8") for path in (GUIDE / "concepts").glob("*.md"))
    urls = set(re.findall(r"https?://[^)\s]+", listed))
    assert len(urls) == 10
    assert [url for url in urls if url not in pages] == []
    assert "*Pattern Recognition and Machine Learning*, Springer" in pages  # it has no URL


def test_the_summary_of_the_laws():
    """The counts in the summary of docs/laws.md are those of its table."""
    page = (GUIDE.parent / "docs" / "laws.md").read_text("utf-8")
    summary = page.partition("## Summary")[2].partition("\n## ")[0]
    mathematics = page.partition("## Mathematics")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split("|") for line in mathematics.splitlines() if "| " in line][1:]
    for title, *cells in rows:
        applicable = [cell for cell in cells if cell.strip()]
        inaccurate, fails = (
            sum(word in cell for cell in applicable) for word in ("inaccurate", "**fails")
        )
        name = title.rpartition(" (")[0]
        assert f"| {name} | {len(applicable)} | {inaccurate} | {fails} |" in summary

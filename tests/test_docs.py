"""Every example in the docstrings and in the README is run."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import logitlab

pytestmark = pytest.mark.slow

README = Path(__file__).parent.parent / "README.md"
MODULES = ["logitlab"] + [
    module.name
    for module in pkgutil.walk_packages(logitlab.__path__, "logitlab.")
    if not module.name.rpartition(".")[2].startswith("_")
]


def examples(name):
    module = importlib.import_module(name)
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    """The examples of a module print what they say."""
    for test in examples(name):
        assert doctest.DocTestRunner().run(test).failed == 0, test.name


def test_every_public_name_has_an_example():
    """What a user may call shows itself at work."""
    for name in logitlab.__all__:
        assert ">>>" in getattr(logitlab, name).__doc__, name


def test_readme():
    """The README's sessions print what they say."""
    parser = doctest.DocTestParser()
    text = README.read_text("utf-8").replace("```\n", "\n")
    test = parser.get_doctest(text, {}, "README.md", None, 0)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0

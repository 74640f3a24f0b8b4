"""The house: what may import what, and what an import costs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import logitlab

SOURCE = Path(logitlab.__file__).parent

# From the top of the house to its ground; a module imports only what stands further down.
FLOORS = [
    ["app"],
    ["plot", "regression", "torch"],
    ["laws"],
    ["calibration", "intervals"],
    ["reliability", "sweep"],
    ["bins", "graph"],
    ["linear_losses"],
    ["scores", "sampling", "derivatives", "losses"],
    ["probabilities"],
    ["dispatch"],
    ["backends"],
    ["arrays"],
    ["arguments"],
]


def floor(module):
    part = module.split(".")[1]
    return next(i for i, names in enumerate(FLOORS) if part in names)


def imported(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "logitlab":
                yield from (f"logitlab.{alias.name}" for alias in node.names)
            else:
                yield node.module


def runs_up(path, name):
    """The imports of a module that lead to its own floor or higher, other than to its siblings."""
    return [
        target
        for target in imported(path)
        if target.startswith("logitlab.")
        and target.split(".")[1] != name.split(".")[1]
        and floor(target) <= floor(name)
    ]


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(("logitlab", *path.relative_to(SOURCE).with_suffix("").parts))
        if name != "logitlab.__init__":
            yield path, name.removesuffix(".__init__")


@pytest.mark.parametrize(("path", "name"), [pytest.param(*m, id=m[1]) for m in modules()])
def test_nothing_runs_back_up(path, name):
    """A module imports only what stands below it."""
    # By imports at the time of the call: the reliability curve and the sweep draw themselves, and
    # torch.compile is sent to operators that stand above the functions they are.
    allowed = {
        "logitlab.reliability": ["logitlab.plot"],
        "logitlab.sweep": ["logitlab.plot"],
        "logitlab.dispatch": ["logitlab.graph"],
    }.get(name, [])
    assert [target for target in runs_up(path, name) if target not in allowed] == []


def test_the_drawing_of_the_house():
    """CONTRIBUTING shows every module on its floor."""
    text = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text("utf-8")
    floors = re.split(r"^ │$", text.partition("```\n")[2].partition("```")[0], flags=re.MULTILINE)
    assert len(floors) == len(FLOORS)
    for names, words in zip(FLOORS, floors, strict=True):
        assert set(names) <= set(re.findall(r"\w+", words))


def test_the_house_test_can_fail(tmp_path):
    """An import that runs up is found."""
    path = tmp_path / "arrays.py"
    path.write_text("from logitlab.probabilities import softmax\n")
    assert runs_up(path, "logitlab.arrays") == ["logitlab.probabilities"]


HEAVY = (
    "torch",
    "scipy",
    "matplotlib",
    "jax",
    "sklearn",
    "pandas",
    "ml_dtypes",
    "typer",
    "rich",
    "mpmath",
)


def loaded_after(statement):
    code = f"{statement}\nimport sys\nprint(*(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_import_loads_nothing_heavy():
    """`import logitlab`, and a softmax of an array, load numpy and little else."""
    assert loaded_after("import logitlab; logitlab.softmax([1.0, 2.0])") == []


def test_the_import_test_can_fail():
    """A framework that is loaded is seen."""
    assert "matplotlib" in loaded_after("import logitlab, matplotlib")

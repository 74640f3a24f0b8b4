"""The layers of modules, and the libraries that `import logitlab` loads."""

import ast
import importlib
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import logitlab

SOURCE = Path(logitlab.__file__).parent
CONTRIBUTING = Path(__file__).parent.parent / "CONTRIBUTING.md"

# From the top to the bottom: a module imports only from the layers below its own, and from its
# own package. `logitlab` is the package itself, `__init__.py`.
LAYERS = [
    ["_app"],
    ["jax", "llama_cpp", "onnx", "torch", "transformers", "vllm"],
    ["logitlab"],
    ["plot", "laws", "parallel", "_torch_compile"],
    ["calibration", "decisions", "groups", "importance", "tables"],
    ["decomposition", "regression", "reliability", "resampling", "smooth_calibration", "sweep"],
    ["_error_interval"],
    ["_bins", "linear_losses"],
    ["scores", "divergences", "sampling", "derivatives", "losses"],
    ["_distributed"],
    ["_rows", "_loss_arguments"],
    ["probabilities", "support"],
    ["_dispatch"],
    ["_registry", "_backends", "_out", "_labels", "_estimators"],
    ["_exact", "_arrays"],
    ["_checks", "_page", "_saved", "_tracing"],
]


def source_files():
    """The source file of every module."""
    files = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ("logitlab", *path.relative_to(SOURCE).with_suffix("").parts)
        files[".".join(parts).removesuffix(".__init__")] = path
    return files


def imported_modules(path, modules):
    """The modules of the package that a file imports: at the top, in functions, and for types."""
    imports = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            targets = (f"{node.module}.{alias.name}" for alias in node.names)
            imports.update(t if t in modules else node.module for t in targets)
    return imports & set(modules)


def layer(module):
    part = [*module.split("."), module][1]
    return next(i for i, packages in enumerate(LAYERS) if part in packages)


def upward_imports(path, name, modules):
    """The imports from the own layer or a higher one, without those from the own package."""
    package = name.split(".")[:2]
    return [
        target
        for target in sorted(imported_modules(path, modules))
        if target.split(".")[:2] != package and layer(target) <= layer(name)
    ]


MODULES = source_files()


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_downward(name):
    """A module imports only from the layers below its own."""
    assert upward_imports(MODULES[name], name, MODULES) == []


def test_there_are_no_import_cycles():
    """Imports inside functions and those for types included."""
    graph = {name: imported_modules(path, MODULES) - {name} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()


def test_layers_in_contributing():
    """CONTRIBUTING shows every module in its layer."""
    text = CONTRIBUTING.read_text("utf-8")
    shown = re.split(r"^ │$", text.partition("```\n")[2].partition("```")[0], flags=re.MULTILINE)
    assert len(shown) == len(LAYERS)
    for packages, words in zip(LAYERS, shown, strict=True):
        assert set(packages) <= set(re.findall(r"\w+", words))


def test_violations_are_found(tmp_path):
    """An upward import and a cycle are found, inside a function too."""
    path = tmp_path / "_arrays.py"
    path.write_text("def f():\n    from logitlab.probabilities import softmax\n")
    assert upward_imports(path, "logitlab._arrays", MODULES) == ["logitlab.probabilities"]
    graph = {"logitlab._arrays": imported_modules(path, MODULES)}
    graph["logitlab.probabilities"] = imported_modules(MODULES["logitlab.probabilities"], MODULES)
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()


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
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return process.stdout.split()


def test_import_loads_nothing_heavy():
    """`import logitlab` and a softmax of an array load none of the large libraries."""
    assert loaded_after("import logitlab; logitlab.softmax([1.0, 2.0])") == []


def test_commands_load_little():
    """The help and `logitlab info` load no library of numbers but NumPy."""
    cli = "from typer.testing import CliRunner; from logitlab._app.cli import app; "
    for arguments in (["--help"], ["info"]):
        assert loaded_after(f"{cli}CliRunner().invoke(app, {arguments})") == ["typer"]


def test_heavy_imports_are_found():
    """A loaded library is reported."""
    assert "matplotlib" in loaded_after("import logitlab, matplotlib")


def test_counts_of_64_bits():
    """NumPy's bincount refuses int64 on 32-bit systems; that of `_arrays` takes it."""
    users = [p for p in SOURCE.rglob("*.py") if "np.bincount(" in p.read_text("utf-8")]
    assert [path.name for path in users] == ["_arrays.py"]


def test_benchmarks_import_names_that_exist():
    """They are not installed, and no other test runs them."""
    for path in sorted((CONTRIBUTING.parent / "bench").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("logitlab"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    assert hasattr(module, alias.name) or name in MODULES, f"{path.name}: {name}"

"""`logitlab check`, the adapters for programs and sessions, and the pytest helper."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

import logitlab
import samplers
import softmaxes
from logitlab._app.cli import app
from logitlab.laws import as_tests, check_sampler, program

pytestmark = pytest.mark.slow

FAST = ["order", "-inf", "+inf"]
test_correct = as_tests(softmaxes.correct_softmax, laws=FAST, dtypes=["float32"])


def run(*arguments):
    result = CliRunner().invoke(app, ["check", *arguments])
    return result.exit_code, result.output


def test_command_line(tmp_path):
    """A table, JSON and a page; exit status 1 where a law fails."""
    status, text = run("logitlab:softmax", "--law", "order", "--dtype", "float32")
    assert (status, "exact" in text) == (0, True)
    page = tmp_path / "r.html"
    arguments = ("softmaxes:no_shift", "--dtype", "float32", "--law", "overflow")
    status, text = run(*arguments, "--json", "--html", str(page))
    assert status == 1
    values = json.loads(text)
    assert values["failures"] == ["overflow"]
    assert "softmaxes.no_shift(" in values["laws"]["overflow"]["counterexample"]["code"]
    assert "softmaxes.no_shift" in page.read_text("utf-8")
    status, text = run("softmaxes:infinity_minus_infinity", "--law", "+inf")
    assert (status, "differs" in text) == (0, True)
    assert run("softmaxes:infinity_minus_infinity", "--law", "+inf", "--strict")[0] == 1


def test_a_sampler_on_the_command_line():
    """The same table, JSON and exit status."""
    status, text = run("--sampler", "samplers:correct", "--law", "support", "--law", "seeds")
    assert (status, "passes" in text.splitlines()[0]) == (0, True)
    assert "probability of a false alarm at most 1e-06 in all 4 tests together" in text
    status, text = run("--sampler", "samplers:greedy", "--law", "frequencies", "--json")
    assert status == 1
    values = json.loads(text)
    assert values["failures"] == ["frequencies"]
    assert "samplers.greedy(" in values["laws"]["frequencies"]["counterexample"]["code"]
    assert run("--sampler", "samplers:corrected_from_target", "--law", "output distribution")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one function"),
        (["--sampler", "logitlab:softmax"], "function must return one token for each row"),
        (["--sampler", "logitlab:sample", "--law", "gravity"], "--law must be some of support"),
        (["--sampler", "samplers"], "MODULE:FUNCTION"),
        (["--sampler", "logitlab:sample", "logitlab:softmax"], "MODULE:FUNCTION is for a softmax"),
        (["--sampler", "logitlab:sample", "--full"], "--full is for a softmax"),
        (["softmaxes"], "MODULE:FUNCTION"),
        (["softmaxes:nothing_of_the_kind"], "nothing_of_the_kind"),
        (["no_such_module:f"], "no_such_module"),
        (["logitlab:softmax", "--law", "gravity"], "--law must be some of bounds"),
        (["logitlab:softmax", "--dtype", "float8"], "--dtype must be some of float16"),
        (["logitlab:softmax", "--array-library", "abacus"], "--array-library must be one of numpy"),
        (["json:dumps"], "function must return probabilities"),
        (["missing.onnx"], "no such file"),
        (["./m:f"], "module './m' cannot be imported: TypeError: the 'package' argument"),
        (["syntax_fails:f"], "module 'syntax_fails' cannot be imported: SyntaxError"),
        (["exits:f"], "module 'exits' cannot be imported: SystemExit: 4\n"),
        (["value_fails:f"], "module 'value_fails' cannot be imported: ValueError: x\n"),
        (["--program", "no-such-program -x"], "--program 'no-such-program -x': no such program"),
        (["--program", "'"], '--program "\'": No closing quotation'),
        (["logitlab:softmax", "--seed", "-1"], "--seed must be >= 0, got -1"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, arguments, message):
    """On standard error, with exit status 2."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in (
        ("syntax_fails", "def f(:"),
        ("exits", "import sys; sys.exit(4)"),
        ("value_fails", "raise ValueError('x')"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    status, text = run(*arguments)
    assert status == 2
    assert message in text
    assert text.count("\n") == 1


def test_a_program(tmp_path):
    """It reads .npy and writes .npy; an exit status other than 0 is an error of the call."""
    source = tmp_path / "softmax.py"
    source.write_text(
        "import io, sys, numpy as np\n"
        "z = np.load(io.BytesIO(sys.stdin.buffer.read()))\n"
        "if np.isnan(z).any(): sys.exit('no NaN please')\n"
        "e = np.exp(z - z.max(-1, keepdims=True))\n"
        "np.save(sys.stdout.buffer, e / e.sum(-1, keepdims=True))\n"
    )
    command = [sys.executable, str(source)]
    report = logitlab.check_softmax(command, laws=["one class", "NaN"], dtypes=["float32"])
    assert report["one class"].level == "exact"
    assert "no NaN please" in report["NaN"].counterexample.result
    assert program(command)(np.zeros((1, 4))).tolist() == [[0.25] * 4]


def onnx_model(path: Path):
    dtype = onnx.TensorProto.FLOAT
    x, y = (onnx.helper.make_tensor_value_info(n, dtype, ["N", "K"]) for n in "xy")
    node = onnx.helper.make_node("Softmax", ["x"], ["y"], axis=-1)
    graph = onnx.helper.make_graph([node], "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())


def test_an_onnxruntime_session(tmp_path):
    """In the only dtype that it takes, from Python and by file name."""
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "softmax.onnx"
    onnx_model(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    report = logitlab.check_softmax(session, laws=FAST)
    assert report.dtypes == ("float32",)
    assert report["order"].level == "exact"
    assert report["+inf"].level == "differs"
    setup, _, call = report["+inf"].counterexample.code.partition("; ")
    scope = {"session": session}
    exec(setup, scope)
    assert np.isnan(eval(call, scope)).all()
    assert run(str(path), "--law", "order")[0] == 0


def test_array_libraries_and_axes():
    """Functions and modules of torch are detected; any axis; a list as the result."""
    for function in (torch.softmax, torch.nn.Softmax(-1), lambda z: torch.exp(z) / 2):
        report = logitlab.check_softmax(function, laws=["NaN"])
        assert report.array_library == "torch"
    for axis in (0, 1, -2, 2):
        report = logitlab.check_softmax(logitlab.softmax, axis=axis, laws=FAST, dtypes=["float32"])
        assert report, report
    assert logitlab.check_softmax(
        softmaxes.correct_softmax, axis=0, laws=["sum"], dtypes=["float32"]
    ).failures
    report = logitlab.check_softmax(
        lambda z: logitlab.softmax(z).tolist(), laws=["accuracy", "dtype"], dtypes=["float32"]
    )
    assert report
    assert report["dtype"].level == "differs"


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_automatic_differentiation(library):
    """Without a given Jacobian, the array library differentiates the function."""
    laws = [*softmaxes.BAD_JACOBIANS.values()] if library == "torch" else ["gradient"]
    function = logitlab.softmax if library == "torch" else pytest.importorskip("jax").nn.softmax
    report = logitlab.check_softmax(function, array_library=library, laws=laws, dtypes=["float32"])
    assert report, report
    assert {v.level for v in report} <= {"exact", "within"}


def test_a_jacobian_and_a_sampler_of_numpy_arrays():
    """logitlab.jacobian and logitlab.sample pass."""
    report = logitlab.check_softmax(
        logitlab.softmax,
        laws=["jacobian", "jacobian rows", "gradient", *softmaxes.BAD_SAMPLERS.values()],
        dtypes=["float32", "float64"],
        jacobian=logitlab.jacobian,
        sampler=logitlab.sample,
    )
    assert {v.level for v in report} <= {"exact", "within"}, report


def test_laws_that_are_not_applicable():
    """The result says so, with the reason."""
    report = logitlab.check_softmax(softmaxes.no_shift, laws=["temperature", "maximum", "jacobian"])
    assert {v.level for v in report} == {"not applicable"}
    assert "temperature" in report["temperature"].note
    assert report


def test_report_forms():
    """A dictionary for JSON, a page, a table; strict."""
    report = logitlab.check_softmax(
        softmaxes.infinity_minus_infinity, laws=["+inf", "accuracy"], dtypes=["float16"]
    )
    assert "accuracy" in report.failures
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    keys = {"dtype", "n_classes", "logits", "worst_ulp", "mean_ulp"}
    assert set(values["laws"]["accuracy"]["measurements"][0]) == keys
    assert '<table class="data heat"' in report.to_html()
    assert "differs" in str(report)
    assert not logitlab.check_softmax(softmaxes.infinity_minus_infinity, laws=["+inf"], strict=True)


def test_page_counts_and_groups():
    """Counts first, failures of wide types before those of narrow types, a law in each type."""

    def half_is_wrong(z, axis=-1):
        p = logitlab.softmax(z, axis=axis)
        return p + (p.dtype == np.float16)

    report = logitlab.check_softmax(half_is_wrong, laws=["sum"], dtypes=["float64", "float16"])
    page = report.to_html()
    assert '<b class="bad">1</b> fail<' in page
    assert '<b class="none">0</b> pass<' in page
    assert "Failures in float64 or float32" not in page
    assert "<details open><summary>Failures in narrow types alone: 1 law</summary>" in page
    row = page.partition('data-name="laws-by-type"')[2].partition("<tbody>")[2]
    assert re.findall(r'<td class="(\w+)">', row.partition("</tr>")[0]) == ["good", "bad"]
    wide = logitlab.check_softmax(softmaxes.no_shift, laws=["overflow"]).to_html()
    assert "<h2>Failures in float64 or float32</h2>" in wide
    sampler = check_sampler(samplers.correct, laws=["support"]).to_html()
    assert '<b class="good">1</b> pass<' in sampler
    assert "Laws by type" not in sampler


def test_the_table_in_a_notebook(monkeypatch):
    """Its styles apply to itself alone; text stays text."""
    report = logitlab.check_softmax(softmaxes.no_shift, laws=["overflow"], dtypes=["float32"])
    text = str(report)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert str(report) == text != ""
    table = report._repr_html_()
    assert not re.search("<(!doctype|html|head|body|title|meta)", table)
    rules = table.partition("<style>")[2].partition("</style>")[0]
    selectors = [rule.partition("{")[0].strip() for rule in rules.split("}")[:-1]]
    assert len(selectors) > 5
    assert all(selector.startswith(".logitlab-laws") for selector in selectors)


class CallableSoftmax:
    """A softmax that is an instance of a class."""

    def __call__(self, z, axis=-1):
        e = np.exp(z)
        return e / e.sum(axis, keepdims=True)

    def method(self, z, axis=-1):
        return self(z, axis)


def test_the_name_of_an_instance_in_code_is_function():
    """The code of a counterexample runs with that name; the title has the name of the class."""
    for function, title in (
        (CallableSoftmax(), "CallableSoftmax"),
        (CallableSoftmax().method, "CallableSoftmax.method"),
    ):
        report = logitlab.check_softmax(function, laws=["overflow"], dtypes=["float32"])
        assert report.function == title
        setup, _, call = report["overflow"].counterexample.code.partition("; ")
        scope = {"function": function}
        exec(setup, scope)
        with np.errstate(all="ignore"):
            assert np.isnan(eval(call, scope)).any()
    named = logitlab.check_softmax(
        CallableSoftmax(), laws=["overflow"], dtypes=["float32"], name="mine"
    )
    assert "; mine(" in named["overflow"].counterexample.code


def test_the_pytest_helper(tmp_path):
    """One case for each law: passed, failed, skipped."""
    (tmp_path / "test_it.py").write_text(
        "import numpy as np\n"
        "from logitlab.laws import as_tests\n"
        "def softmax(z):\n    e = np.exp(z)\n    return e / e.sum(-1, keepdims=True)\n"
        "test_it = as_tests(softmax, laws=['-inf', 'overflow', 'maximum'], dtypes=['float32'])\n"
    )
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert "1 failed, 1 passed, 1 skipped" in process.stdout
    assert "  result    nan" in process.stdout

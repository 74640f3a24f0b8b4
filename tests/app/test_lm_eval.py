"""Sample logs of lm-evaluation-harness as logits: every version of the format, labels, errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from reports import overwriting
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app
from logitlab._app.io.arrays import open_logits

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_figures")]
CHOICES = ["red", "green", "blue", "white"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments):
    return CliRunner().invoke(app, overwriting(*arguments), catch_exceptions=False)


def questions(n=120):
    """Log-likelihoods of 3 or 4 choices, and the true choices."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(3, 5, n)
    rows = [rng.normal(-20, 4, k).round(3) for k in sizes]
    y = [int((row / 3 + rng.gumbel(size=len(row))).argmax()) for row in rows]
    return rows, y


def sample(i, row, target, acc, choices=CHOICES):
    """A question as the harness logs it in memory."""
    k = len(row)
    return {
        "doc_id": i,
        "doc": {"question": f"question {i}?", "choices": choices[:k]},
        "target": target,
        "arguments": [[f"question {i}?", f" {choice}"] for choice in choices[:k]],
        "resps": [[[float(x), False]] for x in row],
        "filtered_resps": [[float(x), False] for x in row],
        "acc": acc,
        "acc_norm": 0.0,
    }


def as_strings(x):
    """Lists with texts: the harness from version 0.4.3 on."""
    return [as_strings(value) for value in x] if isinstance(x, list) else str(x)


def in_new_format(s):
    """The question as later versions of the harness write it."""
    return {
        **s,
        "target": str(s["target"]),
        "resps": as_strings(s["resps"]),
        "filtered_resps": as_strings(s["filtered_resps"]),
        "arguments": {
            f"gen_args_{i}": {f"arg_{j}": text for j, text in enumerate(texts)}
            for i, texts in enumerate(s["arguments"])
        },
        "filter": "none",
        "metrics": ["acc", "acc_norm"],
    }


def write(name, samples, version="new"):
    if version == "array":  # before 0.4.3
        Path(name).write_text(json.dumps(samples, indent=2), "utf-8")
        return
    if version == "new":
        samples = map(in_new_format, samples)
    lines = [json.dumps(s, ensure_ascii=False) + "\n" for s in samples]
    Path(name).write_text("".join(lines), "utf-8")


def logged(targets="number"):
    rows, y = questions()
    values = {
        "number": y,
        "list": [[label] for label in y],
        "text": [CHOICES[label] for label in y],
    }[targets]
    return [
        sample(i, row, target, float(row.argmax() == label))
        for i, (row, target, label) in enumerate(zip(rows, values, y, strict=True))
    ]


def read(name):
    logits = open_logits(name)
    return np.concatenate(list(logits.read())), logits.labels()


@pytest.mark.parametrize("version", ["new", "lines", "array"])
@pytest.mark.parametrize("targets", ["number", "list", "text"])
def test_versions(version, targets):
    rows, y = questions()
    write("samples_colours.jsonl", logged(targets), version)
    z, labels = read("samples_colours.jsonl")
    expected = np.full((len(rows), 4), -np.inf)
    for line, row in zip(expected, rows, strict=True):
        line[: len(row)] = row
    np.testing.assert_array_equal(z, expected)
    np.testing.assert_array_equal(labels.classes, y)
    assert labels.warnings == ()
    assert "the accuracy is the mean of acc" in labels.mapping


def test_report_and_calibrate():
    """No --labels: the accuracy is that of the harness."""
    samples = logged()
    write("s.jsonl", samples)
    result = run("report", "s.jsonl")
    assert result.exit_code == 0, result.output
    mean = np.mean([s["acc"] for s in samples])
    assert f"the accuracy is the mean of acc, {mean:.4f}." in result.stdout
    values = json.loads(Path("logitlab-report/report.json").read_text())
    assert values["accuracy"] == pytest.approx(mean, rel=1e-12)
    z, labels = read("s.jsonl")
    assert values["log_loss"] == pytest.approx(logitlab.cross_entropy(z, labels.classes))
    result = run("calibrate", "s.jsonl", "--method", "temperature")
    assert result.exit_code == 0, result.output
    calibrator = logitlab.load_calibrator("logitlab-calibrator/calibrator.safetensors")
    expected = logitlab.TemperatureScaling().fit(z, labels.classes)
    assert calibrator.temperature_ == pytest.approx(expected.temperature_, rel=1e-6)
    assert run("apply", "logitlab-calibrator", "s.jsonl", "-o", "p.npy").exit_code == 0
    np.testing.assert_allclose(np.load("p.npy"), expected.predict_proba(z), rtol=1e-6)


def test_two_models():
    """They are compared by the labels in their files, which must be the same."""
    samples = logged()
    write("a.jsonl", samples)
    write("b.jsonl", samples, "array")
    assert run("report", "a.jsonl", "b.jsonl").exit_code == 0
    samples[5]["target"] = (samples[5]["target"] + 1) % 3
    write("b.jsonl", samples)
    result = run("report", "a.jsonl", "b.jsonl")
    assert result.exit_code == 2
    assert "the label of row 5 is not that of a.jsonl" in result.stderr


def test_labels_that_disagree_with_acc():
    samples = logged()
    samples[7]["acc"] = 1 - samples[7]["acc"]
    write("s.jsonl", samples)
    result = run("report", "s.jsonl")
    assert result.stdout.startswith("Warning: The predicted and true choices disagree with acc")
    assert "in 1 question:" in result.stdout.partition("\n")[0]


def test_numbers_that_are_texts_of_choices():
    """`2` is the text of a choice or its number: acc tells."""
    choices, y = ["1", "2", "3"], [0, 1, 2, 1]
    rows = np.array([[-1.0, -2, -3], [-3, -1, -2], [-1, -2, -3], [-2, -3, -1]])
    for targets in (y, [choices[label] for label in y]):
        write(
            "s.jsonl",
            [
                sample(i, row, targets[i], float(row.argmax() == y[i]), choices)
                for i, row in enumerate(rows)
            ],
        )
        z, labels = read("s.jsonl")
        np.testing.assert_array_equal(labels.classes, y)
        assert logitlab.accuracy(z, labels.classes) == 0.5


def test_ambiguous_targets_without_acc():
    samples = [sample(i, np.array([-1.0, -2, -3]), "1", 0.0, ["1", "0", "2"]) for i in range(3)]
    for s in samples:
        del s["acc"]
    write("s.jsonl", samples)
    result = run("report", "s.jsonl")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "the number or the text of a choice, which differ; give --labels" in result.stderr
    np.save("y.npy", [1, 1, 0])
    assert run("report", "s.jsonl", "--labels", "y.npy").exit_code == 0


def test_choices_in_the_context():
    """The target is the common continuation (winogrande); acc tells the true one of two."""
    rng = np.random.default_rng(3)
    rows, y = rng.normal(-30, 3, (40, 2)), rng.integers(0, 2, 40)
    samples = [
        sample(i, row, "was big.", float(row.argmax() == y[i])) for i, row in enumerate(rows)
    ]
    for s in samples:
        s["arguments"] = [["the trophy", " was big."], ["the case", " was big."]]
    write("s.jsonl", samples)
    np.testing.assert_array_equal(read("s.jsonl")[1].classes, y)


def test_mutual_information():
    """The second half of the choices has no question; it is left out."""
    samples = logged()
    rows, y = questions()
    for s in samples:
        s["arguments"] += [["", text] for _, text in s["arguments"]]
        for key in ("resps", "filtered_resps"):
            s[key] = s[key] + s[key][::-1]
        s["acc_mutual_info"] = 1.0
    write("s.jsonl", samples)
    z, labels = read("s.jsonl")
    assert z.shape == (len(rows), 4)
    np.testing.assert_array_equal(labels.classes, y)


def broken():
    good = sample(0, [-1.0, -2.0], 0, 1.0)
    line = json.dumps(good)
    yield "empty", "", "the file must have rows, got an empty file"
    yield "blank", "\n", "must have at least one question, got none"
    yield "not JSON", line + "\n{", "line 2 is not JSON"
    yield "not an object", "3\n", "line 1 must be a JSON object of a question"
    yield "no array", "[{]", "not a JSON array"
    yield "twice", f"{line}\n{line}", "line 1 and line 2 are of the same doc_id 0"
    yield "no responses", json.dumps({"doc_id": 0}), "must have filtered_resps or resps"
    yield (
        "generated text",
        json.dumps({**good, "filtered_resps": ["the answer is 4"]}),
        "line 1 holds generated text, not log-likelihoods, got ['the answer is 4']; only multiple",
    )
    yield "a generated number", json.dumps({**good, "filtered_resps": ["42"]}), "generated text"
    yield (
        "a huge integer",
        json.dumps({**good, "filtered_resps": [[10**400, False], [1, False]]}),
        "line 1: filtered_resps must hold the log-likelihood of each choice",
    )
    yield "a huge acc", json.dumps({**good, "acc": 10**400, "target": "x"}), "line 1: target must"
    yield (
        "NaN",
        json.dumps({**good, "filtered_resps": [["nan", "False"], ["-1", "True"]]}),
        "line 1: a log-likelihood must be finite or -inf, got nan",
    )
    yield "an element", json.dumps([good, {"doc_id": 1}]), "element 2 must have filtered_resps"
    yield "one choice", json.dumps({**good, "filtered_resps": [[-1, True]]}), "2 or more choices"
    yield (
        "a target that is no choice",
        json.dumps({**good, "target": "purple", "acc": None}),
        "line 1: target must be the number, from 0, or the text of one of 2 choices",
    )
    yield "many targets", json.dumps({**good, "target": [0, 1], "acc": 0.3}), "got '[0, 1]'"
    yield "not text", b"\xff\xfe{", "s.jsonl: "


@pytest.mark.parametrize(
    ("text", "message"), [pytest.param(text, message, id=name) for name, text, message in broken()]
)
def test_errors(text, message):
    Path("s.jsonl").write_bytes(text if isinstance(text, bytes) else text.encode())
    result = run("calibrate", "s.jsonl")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_apply_to_other_numbers_of_choices():
    """Fewer choices than in the fit end with -inf; more are refused."""
    samples = logged()
    write("s.jsonl", samples)
    assert run("calibrate", "s.jsonl", "--method", "temperature").exit_code == 0
    write("short.jsonl", [s for s in samples if len(s["filtered_resps"]) == 3])
    assert run("apply", "logitlab-calibrator", "short.jsonl", "-o", "p.npy").exit_code == 0
    p, z = np.load("p.npy"), read("short.jsonl")[0]
    calibrator = logitlab.load_calibrator("logitlab-calibrator/calibrator.safetensors")
    expected = logitlab.softmax(z / calibrator.temperature_)
    np.testing.assert_allclose(p, np.pad(expected, ((0, 0), (0, 1))), rtol=1e-6)
    write("long.jsonl", [sample(0, [-1.0, -2, -3, -4, -5], 0, 1.0, list("abcde"))])
    result = run("apply", "logitlab-calibrator", "long.jsonl")
    assert result.exit_code == 2
    assert "long.jsonl: a question must have at most 4 choices" in result.stderr


def test_options_without_meaning():
    write("s.jsonl", logged())
    for options in (["--probabilities"], ["--axis", "1"]):
        assert "neither names, axes nor probabilities" in run("report", "s.jsonl", *options).stderr
    assert "a sample log is for LOGITS" in run("report", "s.jsonl", "--labels", "s.jsonl").stderr

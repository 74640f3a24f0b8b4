"""Helpers of the tests of `logitlab report`."""

import html.parser
import json

import numpy as np
import pytest
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app

KEYS = {
    "rows",
    "classes",
    "dtype",
    "evaluated_rows",
    "input_summary",
    "mean_entropy",
    "accuracy",
    "log_loss",
    "brier",
    "ece",
    "temperature",
    "calibrated",
    "evaluation",
    "text",
}


def overwriting(*arguments):
    """The arguments of a command as text; its output replaces that of an earlier run."""
    writes = arguments[0] in ("report", "calibrate", "apply", "fit", "predict", "sample")
    return [*map(str, arguments), *["--overwrite"] * writes]


def run(*arguments):
    """Run `logitlab report` with these arguments."""
    return CliRunner().invoke(app, overwriting("report", *arguments), catch_exceptions=False)


def report(folder, *arguments):
    """The contents of report.json of a run that must succeed; files are in folder/out."""
    result = run(*arguments, "-o", folder / "out")
    assert result.exit_code == 0, result.output
    values = json.loads((folder / "out" / "report.json").read_text("utf-8"))
    assert values.keys() >= KEYS
    return values


def labelled(n=300, k=4, seed=0):
    """Logits and labels of an overconfident model: T = 1.5."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, k)) * 4
    y = np.array([rng.choice(k, p=p) for p in logitlab.softmax(z, temperature=1.5)])
    return z, y


def assert_close(a, b):
    """Equal, numbers to 1e-12."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        a, b = list(a.values()), list(b.values())
    if isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_close(x, y)
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-12, abs=1e-12)
    else:
        assert a == b


class Page(html.parser.HTMLParser):
    """Checks that tags are closed; collects identifiers and what a browser would fetch."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.fetched = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset") and not value.startswith("#"):
                self.fetched.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

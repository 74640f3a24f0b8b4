"""Tables of inference: HTML, LaTeX, relative risk ratios."""

import math

import numpy as np
import pytest

import anes96
from logitlab import SoftmaxRegression


def named(names, response="kind"):
    import pandas as pd

    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.standard_normal((200, 2)), columns=names)
    y = np.where(rng.random(200) < 0.4, "<a>", "b_&")
    return SoftmaxRegression(C=math.inf).fit(X, pd.Series(y, name=response)).inference()


def test_html_is_escaped():
    """Names of features, classes and the response; every number is there."""
    summary = named(["<script>", "x" * 80], "<i>kind").summary()
    html = summary.to_html()
    assert html == summary._repr_html_()
    assert "<script>" not in html
    assert "<i>" not in html
    assert "&lt;script&gt;" in html
    assert "&lt;i&gt;kind=b_&amp;" in html
    assert "x" * 80 in html
    assert "No. Observations" in html
    for name in ("coef", "standard_error", "lower", "upper"):
        assert all(f"<td>{v:.4g}</td>" in html for v in getattr(summary, name).ravel())


def test_latex_is_escaped():
    """A tabular with a line for each coefficient."""
    latex = named(["a_b", "50%"]).summary().to_latex()
    assert r"kind=b\_\& & a\_b & " in latex
    assert r"50\%" in latex
    assert "$P>|z|$" in latex
    assert r"\caption{Softmax Regression Results}" in latex
    assert latex.count(r"\\") == 1 + 3


@pytest.mark.parametrize("classes", [2, 7])
def test_relative_risk_ratios(classes):
    """The exponentials of the coefficients of statsmodels and of their bounds."""
    theirs = anes96.theirs(classes)
    ours = anes96.ours(classes).inference().relative_risk_ratios(0.9)
    params = np.reshape(np.asarray(theirs.params), (8, -1)).T[:, :7]
    errors = np.reshape(np.asarray(theirs.bse), (8, -1)).T[:, :7]
    bounds = np.asarray(theirs.conf_int(0.1)).reshape(-1, 8, 2)[:, :7]
    for a, b in (
        (ours.ratio, np.exp(params)),
        (ours.standard_error, np.exp(params) * errors),
        (ours.z, params / errors),
        (ours.lower, np.exp(bounds[..., 0])),
        (ours.upper, np.exp(bounds[..., 1])),
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)
    assert ours.names == list(anes96.load()[0].columns)
    text = str(ours)
    assert "Relative Risk Ratios" in text
    assert "ratio    std err" in text
    assert ours.to_frame().columns[0] == "ratio"


@pytest.mark.parametrize("level", [0, 1, 95])
def test_refused_confidence_levels(level):
    """Of every method."""
    inference = anes96.ours(2).inference()
    X = anes96.load()[0]
    for method in (
        inference.summary,
        inference.relative_risk_ratios,
        inference.confidence_interval,
        lambda level: inference.marginal_effects(confidence_level=level),
        lambda level: inference.predict(X, level),
    ):
        with pytest.raises(ValueError, match="confidence_level must be between 0 and 1, got"):
            method(level)

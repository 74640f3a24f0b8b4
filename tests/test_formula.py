"""Regressions of formulas: other libraries, kinds of data frames, wrong data."""

import builtins
import copy
import math
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from logitlab import SoftmaxRegression
from published_tables import endometrial

pytestmark = pytest.mark.slow

FRAMES = (lambda data: data, pl.from_pandas, pa.Table.from_pandas)


def table(n=300):
    rng = np.random.default_rng(0)
    data = pd.DataFrame(
        {
            "age": rng.normal(40, 10, n),
            "region": rng.choice(["north", "south", "east"], n),
            "member": rng.random(n) < 0.5,
            "visits": rng.integers(0, 9, n),
            "a b": rng.normal(size=n),
        }
    )
    noise = rng.gumbel(size=(n, 3))
    scores = np.outer(data.age / 20, [0, 1, -1]) + np.outer(data.region == "east", [1, 0, 2])
    data.insert(0, "vote", np.array(["a", "b", "c"])[(scores + noise).argmax(axis=1)])
    return data


def fitted(formula="vote ~ age + C(region)", data=None, **parameters):
    data = table() if data is None else data
    return SoftmaxRegression.from_formula(formula, data, **{"C": math.inf, **parameters})


@pytest.mark.parametrize("formula", ["vote ~ logpopul + C(educ)", "vote ~ age * C(dem) - 1"])
def test_statsmodels(formula):
    """The names and coefficients of mnlogit, with formulas of patsy."""
    import statsmodels.formula.api as smf
    from statsmodels.datasets import anes96

    data = anes96.load_pandas().data
    data = data.assign(dem=np.where(data.age < 40, "yes", "no"), vote=data.PID.astype(int) // 3)
    theirs = smf.mnlogit(formula, data).fit(method="newton", disp=0, maxiter=100)
    summary = fitted(formula, data, tol=1e-9).summary()
    frame = pd.DataFrame(summary.coef.T, index=summary.names)
    expected = theirs.params.rename({"Intercept": "intercept"})
    assert sorted(frame.index) == sorted(expected.index)
    np.testing.assert_allclose(frame.loc[expected.index], expected, rtol=1e-5, atol=1e-6)
    assert summary.log_likelihood == pytest.approx(theirs.llf, abs=1e-7)
    assert summary.response == "vote"


@pytest.mark.parametrize(
    ("formula", "names"),
    [
        ("vote ~ age + region", ["age", "region[T.north]", "region[T.south]"]),
        ("vote ~ 0 + region", ["region[east]", "region[north]", "region[south]"]),
        ("vote ~ region:age - 1", [f"region[{r}]:age" for r in ("east", "north", "south")]),
        ("vote ~ member + `a b`", ["member[T.True]", "a b"]),
        (
            "vote ~ C(region, contr.sum)",
            [f"C(region, contr.sum)[S.{r}]" for r in ("east", "north")],
        ),
        ("vote ~ center(age) + np.log(visits + 1)", ["center(age)", "np.log(visits + 1)"]),
        ("vote ~ poly(age, 2)", ["poly(age, 2)[1]", "poly(age, 2)[2]"]),
        (
            "vote ~ .",
            ["age", "region[T.north]", "region[T.south]", "member[T.True]", "visits", "a b"],
        ),
    ],
)
def test_terms_in_each_library(formula, names):
    """The same features from pandas, polars and Arrow, also of few rows of another library."""
    data = table()
    models = [fitted(formula, convert(data)) for convert in FRAMES]
    for model in models:
        assert model.design_.names == names
        assert model.fit_intercept == ("0 +" not in formula and "- 1" not in formula)
        np.testing.assert_array_equal(model.coef_, models[0].coef_)
        expected = models[0].predict_log_proba(data)[:7]
        for convert in FRAMES:
            few = convert(data[:7])
            np.testing.assert_array_equal(model.predict_log_proba(few), expected)
            np.testing.assert_array_equal(model.predict(few), models[0].predict(data)[:7])
    assert models[0].intercept_.any() == models[0].fit_intercept


def test_sum_contrasts():
    """The coefficients of the last level are minus the sum of the others."""
    data = table()
    contrasts = fitted("vote ~ C(region, contr.sum)", data, tol=1e-10).summary().coef
    logits = fitted("vote ~ 0 + region", data, tol=1e-10).summary().coef
    means = logits.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(contrasts[:, 2:], means, rtol=1e-6)
    np.testing.assert_allclose(contrasts[:, :2], (logits - means)[:, :2], rtol=1e-6, atol=1e-8)


def test_methods():
    """Score, weights, inference, and other parameters of the estimator."""
    data = table()
    model = fitted(data=data)
    assert (
        model.score(data)
        == model.score(data, data.vote)
        == (model.predict(data) == data.vote).mean()
    )
    assert model.decision_function(data).shape == (300, 3)
    counts = np.random.default_rng(0).integers(1, 4, 300)
    weighted = fitted(data=data, sample_weight=counts, tol=1e-9)
    repeated = fitted(data=data.loc[data.index.repeat(counts)], tol=1e-9)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-6)
    inference = model.inference()
    assert inference.names == ["age", "C(region)[T.north]", "C(region)[T.south]", "intercept"]
    np.testing.assert_allclose(
        inference.predict(pl.from_pandas(data)).probability, model.predict_proba(data)
    )
    X, y = endometrial()
    cancer = pd.DataFrame(X, columns=["NV", "PI", "EH"]).assign(HG=y)
    firth = fitted("HG ~ NV + PI + EH", cancer, firth=True)
    assert firth.coef_[0, 0] == pytest.approx(2.92927, abs=1e-4)
    assert firth.profile_intervals().names == ["NV", "PI", "EH", "intercept"]
    assert "formula='HG ~ NV + PI + EH'" in str(firth)


def test_posterior():
    """The labels are the response of the formula, as in a fit; they may be given."""
    data = table()
    model = fitted(C=1.0)
    ours = model.posterior(data)
    assert ours.names == ["age", "C(region)[T.north]", "C(region)[T.south]", "intercept"]
    np.testing.assert_array_equal(ours.coef, model.posterior(data, data.vote).coef)
    X = np.column_stack([data.age, data.region == "north", data.region == "south"])
    expected = SoftmaxRegression().fit(X, data.vote).posterior(X, data.vote)
    np.testing.assert_allclose(ours.standard_deviation, expected.standard_deviation, rtol=1e-5)


def test_copies():
    """Pickled and copied models predict, and summarize the data when they get them again."""
    data = table()
    model = fitted("vote ~ center(age) + bs(visits, df=4) + C(region)", data)
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(copied.predict_proba(data[:9]), model.predict_proba(data[:9]))
        summary = copied.summary(pl.from_pandas(data))
        np.testing.assert_allclose(summary.coef, model.summary().coef)
        assert summary.response == "vote"
    unfitted = clone(fitted(C=2.0, firth=False))
    assert unfitted.get_params()["C"] == 2.0
    assert "fit_intercept" not in unfitted.get_params()
    scores = cross_val_score(unfitted.set_params(formula="vote ~ age"), data, data.vote, cv=3)
    assert (scores > 0.3).all()


def test_many_levels_are_sparse():
    """Of 2000 levels no array of 2000 columns is made."""
    levels = np.random.default_rng(0).permutation(4000) % 2000
    data = pd.DataFrame({"user": levels.astype(str), "y": levels % 2, "x": levels * 0.01})
    model = fitted("y ~ x + user", data, C=1.0)
    features = model.design_.matrix(data)
    assert issparse(features)
    assert features.shape == (4000, 2000)
    assert not issparse(fitted().design_.matrix(table()))
    assert model.score(data) > 0.9


def test_wrong_data_in_predictions():
    """One error each: what is wrong with which column."""
    data = table()
    model = fitted(data=data)
    text = {"age": data.age.astype(str)}
    for error, message, wrong in (
        (
            ValueError,
            "must have levels of the fit, east, north, south, got west",
            {"region": "west"},
        ),
        (TypeError, "'age' must hold numbers, as in the fit, got text", text),
        (TypeError, "'region' must hold text, as in the fit, got numbers", {"region": 1.5}),
        (ValueError, "got 300 in 'age' of 300 rows", {"age": np.nan}),
    ):
        for convert in FRAMES:
            with pytest.raises(error, match=message):
                model.predict(convert(data.assign(**wrong)))
    for convert in FRAMES:
        with pytest.raises(ValueError, match="columns of the formula, got none named region"):
            model.predict_proba(convert(data.drop(columns="region")))
        with pytest.raises(ValueError, match="the column 'vote' of the response"):
            model.score(convert(data.drop(columns="vote")))
    for wrong in (data.to_numpy(), pl.from_pandas(data).lazy(), [1.0]):
        with pytest.raises(TypeError, match="data must be a pandas, polars or Arrow table, got"):
            model.predict(wrong)
    assert model.predict(data.drop(columns=["vote", "visits"])).shape == (300,)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("vote ~ age + nope", "`nope` is not present"),
        ("vote ~ age + foo(age)", "name 'foo' is not defined"),
        ("vote ~ age + C(", "cannot be read: Formula ended before"),
        (
            "nope ~ age",
            "response 'nope' of the formula is not a column of data, which has vote, age",
        ),
        ("np.log(age) ~ visits", "response 'np.log"),
        ("age + region", "one response and one sum of terms"),
        ("vote + age ~ region", "one response and one sum of terms"),
        ("vote ~ age | region", "one response and one sum of terms"),
        ("vote ~ 1", "terms beside the intercept"),
        ("vote ~ age + I(1 / visits)", "I.1 / visits. of the formula must be finite, got inf"),
        ("vote ~ age + np.sqrt(visits - 5)", "cannot be evaluated on data: .*null"),
        ("", "one response"),
    ],
)
def test_wrong_formulas(formula, message):
    nope = foo = len  # formulas do not see the variables of the caller
    assert nope is foo
    with np.errstate(divide="ignore", invalid="ignore"), pytest.raises(ValueError, match=message):
        fitted(formula)


def test_wrong_arguments():
    """No text, no data frame, missing values, parameters that the formula decides."""
    data = table()
    data.loc[[3, 5], "age"] = math.nan
    data.loc[7, "region"] = None
    for convert in FRAMES:
        with pytest.raises(ValueError, match="got 2 in 'age', 1 in 'region' of 300 rows; drop"):
            fitted(data=convert(data))
    data.loc[7, "vote"] = None
    with pytest.raises(ValueError, match="got 1 in 'vote' of 300 rows"):
        fitted("vote ~ visits", data)
    with pytest.raises(TypeError, match="formula must be a str, got int"):
        fitted(3)
    with pytest.raises(TypeError, match="got dict"):
        fitted(data={"vote": [1]})
    for convert in (pl.from_pandas, pa.Table.from_pandas):
        gap = convert(table().assign(age=[None] + [1.0] * 299))
        with pytest.raises(ValueError, match="got 1 in 'age' of 300 rows"):
            fitted(data=gap)
    not_a_number = pl.from_pandas(table()).with_columns(age=pl.lit(math.nan))
    with pytest.raises(ValueError, match="got 300 in 'age' of 300 rows"):
        fitted(data=not_a_number)
    data.loc[7, "a b"] = math.nan
    with pytest.raises(ValueError, match="got 1 in 'a b' of 300 rows"):
        fitted("vote ~ `a b`", data)
    dates = table().assign(day=pd.date_range("2024-01-01", periods=300))
    for convert in FRAMES:
        with pytest.raises(TypeError, match=r"'day' must hold .* got \w+; make a number of it"):
            fitted("vote ~ age + day", convert(dates))
    with pytest.raises(TypeError, match="fit_intercept is part of the formula"):
        fitted(fit_intercept=False)


def test_missing_library(monkeypatch):
    """The error names the extra."""
    original = builtins.__import__

    def without(name, *rest):
        if name == "formulaic":
            raise ModuleNotFoundError("No module named 'formulaic'", name="formulaic")
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'logitlab\[formula\]'"):
        fitted()

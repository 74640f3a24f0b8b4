"""The data of the American national election study of 1996, and two columns of 0 and 1."""

import functools

import numpy as np


@functools.cache
def load():
    """Return the features, the party (7 classes), and whether it is Democrat or Republican."""
    from statsmodels.datasets import anes96

    data = anes96.load_pandas()
    X, y = data.exog.copy(), data.endog.astype(int)
    X["young"] = (X["age"] < 40).astype(float)
    X["city"] = (X["logpopul"] > 3).astype(float)
    return X, y, (y > 2).astype(int).rename("leaning")


@functools.cache
def groups():
    """Return a cluster for each row, of 37."""
    return np.arange(944) * 7919 % 37


@functools.cache
def theirs(classes, cov_type="nonrobust"):
    """Return the fit of statsmodels to 2 or 7 classes, the constant last."""
    import statsmodels.api as sm

    X, y, b = load()
    model = (sm.Logit if classes == 2 else sm.MNLogit)(
        b if classes == 2 else y, sm.add_constant(X, prepend=False)
    )
    options = {"cov_kwds": {"groups": groups()}} if cov_type == "cluster" else {}
    return model.fit(method="newton", disp=0, cov_type=cov_type, **options)


@functools.cache
def ours(classes):
    """Return our fit to 2 or 7 classes."""
    import logitlab

    X, y, b = load()
    return logitlab.SoftmaxRegression(C=np.inf, tol=1e-10).fit(X, b if classes == 2 else y)

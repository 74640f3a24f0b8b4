"""Softmax regressions in files, in skops and in ONNX."""

import json
import math
import struct

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load, save
from sklearn.datasets import load_wine

import logitlab

X, Y = load_wine(return_X_y=True, as_frame=True)
NAMES = np.array(["barolo", "grignolino", "barbera"])


def model(labels=None, features=X, **parameters):
    return logitlab.SoftmaxRegression(**parameters).fit(features, Y if labels is None else labels)


@pytest.mark.parametrize(
    "fitted",
    [
        lambda: model(NAMES[Y]),
        lambda: model(Y.astype(float)),
        lambda: model(Y == 1, X.to_numpy(np.float32), fit_intercept=False),
        lambda: model(C=math.inf, firth=True, class_weight={0: 2.0, 1: 1.0, 2: 0.5}),
        lambda: model(C=np.float64(0.5), class_weight="balanced", max_iter=np.int64(500)),
    ],
)
def test_files(fitted, tmp_path):
    """The same probabilities, labels and parameters; another fit gives the same coefficients."""
    first = fitted()
    first.save(tmp_path / "model.safetensors")
    loaded = logitlab.load_model(tmp_path)
    assert type(loaded) is logitlab.SoftmaxRegression
    assert loaded.get_params() == first.get_params()
    np.testing.assert_array_equal(loaded.classes_, first.classes_)
    assert loaded.classes_.dtype == first.classes_.dtype
    features = X if hasattr(first, "feature_names_in_") else X.to_numpy(np.float32)
    np.testing.assert_array_equal(loaded.predict_proba(features), first.predict_proba(features))
    assert loaded.coef_.dtype == first.coef_.dtype
    assert loaded._feature_names() == first._feature_names()
    y = first.predict(features)
    assert (loaded.fit(features, y).coef_ == first.fit(features, y).coef_).all()


def test_inference_after_reading(tmp_path):
    """The rows are given again."""
    first = model(C=math.inf, firth=True, tol=1e-9)
    first.save(tmp_path / "m")
    loaded = logitlab.load_model(tmp_path / "m")
    np.testing.assert_allclose(loaded.summary(X, Y).coef, first.summary().coef)
    with pytest.raises(ValueError, match="pass X and y"):
        loaded.summary()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("classes", ["a", 1, "c"], "distinct labels of one type"),
        ("classes", ["a", "a", "c"], "distinct labels of one type"),
        ("classes", ["a", "b"], "a row for each class"),
        ("features", ["x"], "names of the features must be text"),
        ("features", list(range(13)), "names of the features must be text"),
        ("parameters", {"nonsense": 1}, "nonsense"),
        ("parameters", None, "its metadata is incomplete"),
        (None, "coef", "a row for each class"),
        (None, "nan", "finite"),
        (None, "int", "float32 or float64"),
    ],
)
def test_damaged_files(key, value, message, tmp_path):
    """One error that says what is wrong."""
    path = tmp_path / "m"
    model().save(path)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    metadata, arrays = json.loads(header["__metadata__"]["logitlab"]), load(data)
    if key is not None:
        metadata[key] = value
    elif value == "coef":
        arrays["coef"] = arrays["coef"][0]
    elif value == "nan":
        arrays["coef"] = arrays["coef"] * np.nan
    else:
        arrays = {name: array.astype(int) for name, array in arrays.items()}
    path.write_bytes(save(arrays, {"logitlab": json.dumps(metadata)}))
    with pytest.raises(ValueError, match=f"invalid model: .*{message}"):
        logitlab.load_model(path)


def test_models_that_are_not_saved(tmp_path):
    """Unfitted ones and those of a formula."""
    with pytest.raises(ValueError, match="not fitted"):
        logitlab.SoftmaxRegression().save(tmp_path / "m")
    data = X.iloc[:, :2].assign(kind=Y)
    formula = logitlab.SoftmaxRegression.from_formula("kind ~ alcohol", data)
    with pytest.raises(ValueError, match="a model of a formula cannot be saved without code"):
        formula.save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_skops():
    """skops keeps the model, without pickle."""
    import skops.io

    first = model(NAMES[Y], C=math.inf, firth=True)
    data = skops.io.dumps(first)
    trusted = skops.io.get_untrusted_types(data=data)
    assert trusted == ["logitlab.regression.estimator.SoftmaxRegression"]
    loaded = skops.io.loads(data, trusted=trusted)
    np.testing.assert_array_equal(loaded.predict_proba(X), first.predict_proba(X))
    assert loaded.get_params() == first.get_params()


@pytest.mark.parametrize("labels", [NAMES[Y], np.asarray(Y == 1).astype(int)])
def test_onnx(labels):
    """ONNX Runtime gives the labels and probabilities, of a model of a formula too."""
    import onnxruntime

    from logitlab.onnx import to_onnx

    x = X.iloc[:, :3]
    data = pd.DataFrame(x.to_numpy(), columns=["a", "b", "c"]).assign(y=labels)
    for fitted in (
        model(labels, x, C=math.inf, firth=True),
        logitlab.SoftmaxRegression.from_formula("y ~ a + b + c", data, C=math.inf, firth=True),
    ):
        session = onnxruntime.InferenceSession(to_onnx(fitted).SerializeToString())
        features = {"features": x.to_numpy(np.float32)}
        probabilities, predicted = session.run(["probabilities", "predicted"], features)
        given = data if hasattr(fitted, "formula") else x
        assert (predicted == fitted.predict(given)).all()
        np.testing.assert_allclose(probabilities, fitted.predict_proba(given), rtol=1e-3, atol=1e-5)

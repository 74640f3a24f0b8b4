"""Calibrators in files: the same results after reading, and no code from damaged ones."""

import contextlib
import json
import os
import pickle
import stat
import struct

import numpy as np
import pytest
from safetensors.numpy import save

import logitlab

KINDS = [
    logitlab.TemperatureScaling,
    logitlab.VectorScaling,
    logitlab.MatrixScaling,
    logitlab.IsotonicCalibration,
    logitlab.StructuredVectorScaling,
    logitlab.StructuredMatrixScaling,
    lambda: logitlab.IsotonicCalibration(logitlab.MatrixScaling(off_diagonal=0.5)),
    lambda: logitlab.IsotonicCalibration(logitlab.IsotonicCalibration(logitlab.VectorScaling())),
]


def rows(n=60, k=4):
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (n, k))
    return z, (z + rng.gumbel(0, 2, z.shape)).argmax(1)


def fitted(kind):
    return kind().fit(*rows())


@pytest.mark.parametrize("kind", KINDS)
def test_the_results_are_those_of_the_saved_calibrator(kind, tmp_path):
    calibrator, path = fitted(kind), tmp_path / "calibrator.safetensors"
    calibrator.save(path)
    loaded = logitlab.load_calibrator(path)
    assert repr(loaded) == repr(calibrator)
    for dtype in (np.float32, np.float64):
        z = rows(50)[0].astype(dtype)
        np.testing.assert_array_equal(loaded.transform(z), calibrator.transform(z))
        np.testing.assert_array_equal(loaded.predict_proba(z), calibrator.predict_proba(z))
    np.testing.assert_array_equal(loaded.classes_, calibrator.classes_)
    assert pickle.loads(pickle.dumps(loaded)).n_features_in_ == 4


@pytest.mark.parametrize("y", [[0, 0], [1, 1], [0, 1]])
def test_limits_of_the_temperature(y, tmp_path):
    z = [[1.0, 0.0], [1.0, 0.0]]
    calibrator = logitlab.TemperatureScaling().fit(z, y)
    calibrator.save(tmp_path / "c")
    assert logitlab.load_calibrator(tmp_path / "c").temperature_ == calibrator.temperature_


def test_files_are_replaced_whole(tmp_path):
    path = tmp_path / "calibrator.safetensors"
    path.write_bytes(b"before")
    unfitted = logitlab.TemperatureScaling()
    with pytest.raises(ValueError, match="not fitted"):
        unfitted.save(path)
    assert path.read_bytes() == b"before"
    fitted(logitlab.VectorScaling).save(os.fspath(path))
    assert os.listdir(tmp_path) == [path.name]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    with pytest.raises(FileNotFoundError):
        fitted(logitlab.VectorScaling).save(tmp_path / "missing" / "file")


def header(**changes):
    metadata = {"version": 1, "kind": "VectorScaling", "classes": 2, "parameters": {"ridge": 1.0}}
    metadata.update(changes)
    return {"logitlab": json.dumps({k: v for k, v in metadata.items() if v is not None})}


ARRAYS = {"scale_": np.ones(2), "bias_": np.zeros(2)}
DAMAGED = {
    "empty": (b"", "not a safetensors file"),
    "pickle": (pickle.dumps([1]), "not a safetensors file"),
    "long header": (struct.pack("<Q", 1 << 62) + b"{}", "not a safetensors file"),
    "foreign": (save(ARRAYS), "not a file of logitlab"),
    "not JSON": (save(ARRAYS, {"logitlab": "{"}), "metadata are incomplete"),
    "a list": (save(ARRAYS, {"logitlab": "[]"}), "metadata are incomplete"),
    "nested": (save(ARRAYS, {"logitlab": "[" * 10**5}), "metadata are incomplete"),
    "version": (save(ARRAYS, header(version=2)), "version of the file must be 1, got 2"),
    "kind": (save(ARRAYS, header(kind="os.system")), "kind must be one of TemperatureScaling"),
    "no classes": (save(ARRAYS, header(classes=None)), "metadata are incomplete"),
    "classes": (save(ARRAYS, header(classes=0)), "number of classes must be 1 to 10000000, got 0"),
    "parameters": (save(ARRAYS, header(parameters={"x": 1})), "metadata are incomplete"),
    "missing": (save({"bias_": np.zeros(2)}, header()), r"arrays must be \['bias_', 'scale_'\]"),
    "shape": (save({**ARRAYS, "bias_": np.zeros(3)}, header()), r"bias_ must be float64 of shape"),
    "type": (save({**ARRAYS, "bias_": np.zeros(2, int)}, header()), "bias_ must be float64"),
    "nan": (save({**ARRAYS, "bias_": np.full(2, np.nan)}, header()), "bias_ must be finite"),
    "temperature": (
        save(
            {"temperature_": np.array(-1.0)},
            header(kind="TemperatureScaling", parameters={}),
        ),
        "temperature_ must be >= 0, got -1.0",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(name, tmp_path):
    data, message = DAMAGED[name]
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        logitlab.load_calibrator(path)
    assert str(error.value).startswith(f"{path}: ")


def test_every_byte_of_a_file_may_be_wrong(tmp_path):
    """A changed file is read, or refused with a ValueError."""
    path = tmp_path / "file"
    fitted(logitlab.TemperatureScaling).save(path)
    data = path.read_bytes()
    for i in range(len(data)):
        for change in (b"", b"\x00", b"\xff", b"9"):
            path.write_bytes(data[:i] + change + data[i + 1 :])
            with contextlib.suppress(ValueError):
                logitlab.load_calibrator(path)


def test_links_and_permissions_stay(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"")
    path.chmod(0o600)
    link.symlink_to(path)
    fitted(logitlab.TemperatureScaling).save(link)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert logitlab.load_calibrator(path).n_features_in_ == 4


def test_a_small_file_cannot_claim_many_classes(tmp_path):
    path = tmp_path / "file"
    metadata = header(kind="TemperatureScaling", parameters={}, classes=10**10)
    path.write_bytes(save({"temperature_": np.array(1.0)}, metadata))
    with pytest.raises(
        ValueError, match="number of classes must be 1 to 10000000, got 10000000000"
    ):
        logitlab.load_calibrator(path)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({}, "the metadata are incomplete"),
        ("VectorScaling", "the metadata are incomplete"),
        ({"kind": "VectorScaling", "parameters": []}, "the metadata are incomplete"),
        ({"kind": "os.system", "parameters": {}}, "the kind must be one of TemperatureScaling"),
        ({"kind": "MatrixScaling", "parameters": {}}, "the arrays must be .*'weight_'"),
        (None, "the arrays must be"),
    ],
)
def test_a_damaged_base(base, message, tmp_path):
    calibrator = logitlab.IsotonicCalibration(logitlab.VectorScaling()).fit(*rows())
    arrays, parameters = calibrator._state()
    metadata = {"version": 1, "kind": "IsotonicCalibration", "classes": 4}
    metadata["parameters"] = {**parameters, "base": base}
    (tmp_path / "c").write_bytes(save(arrays, {"logitlab": json.dumps(metadata)}))
    with pytest.raises(ValueError, match=message):
        logitlab.load_calibrator(tmp_path / "c")

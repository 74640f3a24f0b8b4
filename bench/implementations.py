"""Well-known softmax implementations as functions of one array, for `python -m bench laws`."""

from typing import Any

import numpy as np

from bench.peers import onnx_session


def naive(z: Any) -> Any:
    """exp(z) / sum(exp(z))."""
    e = np.exp(z)
    return e / e.sum(axis=-1, keepdims=True)


def stable(z: Any) -> Any:
    """The formula after the maximum is subtracted."""
    e = np.exp(z - np.max(z, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def naive_log(z: Any) -> Any:
    """The logarithm of the stable formula."""
    return np.log(stable(z))


def jax_softmax(z: Any) -> Any:
    """jax.nn.softmax, compiled."""
    import jax

    return jax.jit(jax.nn.softmax)(z)


def jax_log_softmax(z: Any) -> Any:
    """jax.nn.log_softmax, compiled."""
    import jax

    return jax.jit(jax.nn.log_softmax)(z)


def torch_softmax(z: Any) -> Any:
    """torch.softmax in eager mode."""
    import torch

    return torch.softmax(z, -1)


def torch_log_softmax(z: Any) -> Any:
    """torch.log_softmax in eager mode."""
    import torch

    return torch.log_softmax(z, -1)


_compiled: dict[str, Any] = {}


def torch_compiled(z: Any) -> Any:
    """torch.softmax compiled by torch.compile for any shape."""
    import torch

    if "softmax" not in _compiled:
        _compiled["softmax"] = torch.compile(lambda x: torch.softmax(x, -1), dynamic=True)
    return _compiled["softmax"](z)


def tensorflow_softmax(z: Any) -> Any:
    """tf.nn.softmax."""
    import tensorflow as tf

    return tf.nn.softmax(z)


def tensorflow_log_softmax(z: Any) -> Any:
    """tf.nn.log_softmax."""
    import tensorflow as tf

    return tf.nn.log_softmax(z)


def sklearn_softmax(z: Any) -> Any:
    """The softmax of scikit-learn's classifiers."""
    from sklearn.utils.extmath import softmax

    return softmax(z)


_sessions: dict[str, Any] = {}


def onnx_softmax(z: Any) -> Any:
    """Softmax of onnxruntime."""
    if "Softmax" not in _sessions:
        _sessions["Softmax"] = onnx_session("Softmax", np.float32)
    return _sessions["Softmax"].run(None, {"x": z})[0]


def onnx_log_softmax(z: Any) -> Any:
    """LogSoftmax of onnxruntime."""
    if "LogSoftmax" not in _sessions:
        _sessions["LogSoftmax"] = onnx_session("LogSoftmax", np.float32)
    return _sessions["LogSoftmax"].run(None, {"x": z})[0]

"""Fitted calibrators and regressions as ONNX models, for :mod:`onnxruntime` and other runtimes."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from logitlab._rows import Floats
from logitlab.calibration import (
    BetaCalibration,
    IsotonicCalibration,
    MatrixScaling,
    PlattScaling,
    StructuredMatrixScaling,
    StructuredVectorScaling,
    TemperatureScaling,
)
from logitlab.calibration.base import Calibrator
from logitlab.calibration.isotonic import MIN_MARGIN

if TYPE_CHECKING:
    import onnx

__all__ = ["to_onnx"]

_OPSET = 18
_IR_VERSION = 9


def to_onnx(estimator: Any, *, dtype: Any = np.float32) -> "onnx.ModelProto":
    """An ONNX model of a fitted calibrator or :class:`logitlab.SoftmaxRegression`.

    The input of a calibrator is ``logits``, of shape (N, K); that of a regression is ``features``,
    of shape (N, D). That of a :class:`logitlab.TableModel` is the result of its ``transform`` as a
    dense array, and that of a model of a formula the matrix of the formula without intercept: text
    and dates are not read in ONNX. The outputs are ``probabilities`` and
    ``predicted``: the class with the largest probability, of equal ones the first. Needs the
    package ``onnx``.

    Parameters
    ----------
    estimator : calibrator, SoftmaxRegression or TableModel
        Fitted.
    dtype : {float32, float64}
        Of the input and of the arithmetic.

    Returns
    -------
    onnx.ModelProto
        Of opset 18. ``onnx.save(model, path)`` writes it.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        The estimator is not fitted.
    TypeError
        The estimator is of another type; its classes are neither integers nor text.
    ValueError
        Another `dtype`.

    Notes
    -----
    A logit of -inf has probability 0. Rows with NaN, with +inf or with -inf only have no defined
    result.

    Examples
    --------
    >>> import logitlab.onnx
    >>> z, y = [[2.0, 0.0], [1.0, 0.0], [3.0, 0.0]], [0, 1, 0]
    >>> model = logitlab.onnx.to_onnx(logitlab.TemperatureScaling().fit(z, y))
    >>> [output.name for output in model.graph.output]
    ['probabilities', 'predicted']
    """
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    graph = _Graph(np.dtype(dtype))
    if isinstance(estimator, Calibrator):
        estimator._check_fitted()
        p = graph.softmax(_calibrated(estimator, graph, "logits"))
        return graph.model(p, "logits", estimator.n_features_in_)
    if _is_regression(estimator):
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(estimator)
        regression = getattr(estimator, "regression_", estimator)
        t = getattr(estimator, "temperature_", 1.0)
        coef, intercept = (values / t for values in _all_classes(regression))
        z = graph.add("MatMul", "features", graph.constant(coef.T))
        z = graph.add("Add", z, graph.constant(intercept))
        return graph.model(graph.softmax(z), "features", coef.shape[1], estimator.classes_)
    raise TypeError(
        "estimator must be a fitted calibrator, SoftmaxRegression or TableModel, got "
        f"{type(estimator).__name__}"
    )


def _is_regression(estimator: Any) -> bool:
    from logitlab import SoftmaxRegression, TableModel

    return isinstance(estimator, SoftmaxRegression | TableModel)


def _all_classes(regression: Any) -> tuple[Floats, Floats]:
    """The coefficients of every class; of two classes the attributes hold those of the second."""
    coef, intercept = (
        regression.coef_,
        np.broadcast_to(regression.intercept_, len(regression.coef_)),
    )
    if len(coef) == 1:
        return np.vstack([np.zeros_like(coef), coef]), np.append(0.0, intercept)
    return coef, intercept


class _Graph:
    """The nodes and constants of a model."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, values: Any, dtype: Any = None) -> str:
        """The name of an array, by default of the model's type."""
        from onnx import numpy_helper

        name = f"c{len(self._constants)}"
        array = np.asarray(values, self._dtype if dtype is None else dtype)
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """The name of the output of a new node."""
        from onnx import helper

        output = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def softmax(self, z: str) -> str:
        """Softmax of logits, of which those that have overflowed to +inf are the largest."""
        largest = self.constant(np.finfo(self._dtype).max)
        return self.add("Softmax", self.add("Min", z, largest), axis=-1)

    def clip(self, x: str) -> str:
        """x with finite numbers in place of infinite ones."""
        largest = np.finfo(self._dtype).max
        clipped = self.add("Max", x, self.constant(-largest))
        return self.add("Min", clipped, self.constant(largest))

    def share(self, chosen: str) -> str:
        """Equal probabilities of the entries where a mask is true."""
        from onnx.helper import np_dtype_to_tensor_dtype

        ones = self.add("Cast", chosen, to=np_dtype_to_tensor_dtype(self._dtype))
        axes = self.constant([-1], np.int64)
        return self.add("Div", ones, self.add("ReduceSum", ones, axes, keepdims=1))

    def model(
        self, probabilities: str, name: str, columns: int, classes: Any = None
    ) -> "onnx.ModelProto":
        """The model of these probabilities and one input; `classes` are the labels, if any."""
        from onnx import TensorProto, helper

        predicted = self.add("ArgMax", probabilities, axis=-1, keepdims=0)
        label_type = TensorProto.INT64
        if classes is not None:
            if classes.dtype.kind not in "iuUO" or not all(
                isinstance(c, str | int | np.integer) for c in classes.tolist()
            ):
                raise TypeError(
                    f"the classes must be integers or text, got {classes.dtype} in classes_"
                )
            is_text = classes.dtype.kind in "UO"
            label_type = TensorProto.STRING if is_text else TensorProto.INT64
            labels = self.constant(classes, object if is_text else np.int64)
            predicted = self.add("Gather", labels, predicted)
        self._nodes.append(helper.make_node("Identity", [probabilities], ["probabilities"]))
        self._nodes.append(helper.make_node("Identity", [predicted], ["predicted"]))
        number = helper.np_dtype_to_tensor_dtype(self._dtype)
        graph = helper.make_graph(
            self._nodes,
            "logitlab",
            [helper.make_tensor_value_info(name, number, ["N", columns])],
            [
                helper.make_tensor_value_info("probabilities", number, ["N", None]),
                helper.make_tensor_value_info("predicted", label_type, ["N"]),
            ],
            self._constants,
        )
        model: onnx.ModelProto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)]
        )
        model.ir_version, model.producer_name = _IR_VERSION, "logitlab"
        return model


def _calibrated(calibrator: Any, graph: _Graph, z: str) -> str:
    """The calibrated logits of the logits z."""
    if isinstance(calibrator, TemperatureScaling):
        t = calibrator.temperature_
        if t == 0:
            axes = graph.constant([-1], np.int64)
            largest = graph.add("Equal", z, graph.add("ReduceMax", z, axes, keepdims=1))
            return graph.add("Log", graph.share(largest))
        if t == math.inf:
            excluded = graph.add("Equal", z, graph.constant(-math.inf))
            return graph.add("Log", graph.share(graph.add("Not", excluded)))
        return _shifted(t, graph, z)
    if isinstance(calibrator, IsotonicCalibration):
        if calibrator.base_ is not None:
            z = _calibrated(calibrator.base_, graph, z)
        return _isotonic(calibrator, graph, z)
    if isinstance(calibrator, BetaCalibration | PlattScaling):
        return _binary(calibrator, graph, z)
    bias = graph.constant(calibrator.bias_)
    if isinstance(calibrator, StructuredVectorScaling | StructuredMatrixScaling):
        z = graph.add("LogSoftmax", _shifted(calibrator.temperature_, graph, z), axis=-1)
    else:
        z = _centred(graph, z)
    if isinstance(calibrator, MatrixScaling | StructuredMatrixScaling):
        z = graph.add("Add", graph.add("MatMul", z, graph.constant(calibrator.weight_.T)), bias)
    else:
        excluded = graph.add("Equal", z, graph.constant(-math.inf))
        z = graph.add("Add", graph.add("Mul", z, graph.constant(calibrator.scale_)), bias)
        z = graph.add("Where", excluded, graph.constant(-math.inf), z)
    return z


def _shifted(temperature: float, graph: _Graph, z: str) -> str:
    """The logits minus the largest of a row, over T: halves, as the difference may overflow."""
    axes, half = graph.constant([-1], np.int64), graph.constant(0.5)
    halves = graph.add("Mul", z, half)
    gap = graph.add("Sub", halves, graph.add("ReduceMax", halves, axes, keepdims=1))
    return graph.add("Div", gap, graph.constant(temperature / 2))


def _centred(graph: _Graph, z: str) -> str:
    """The logits minus the mean of those of a row above -inf; -inf stays."""
    excluded = graph.add("Equal", z, graph.constant(-math.inf))
    axes, zero = graph.constant([-1], np.int64), graph.constant(0)
    finite = graph.add("Where", excluded, zero, z)
    count = graph.add("Where", excluded, zero, graph.constant(1))
    # Divided before the sum, because the sum of huge logits may overflow.
    shares = graph.add("Div", finite, graph.add("ReduceSum", count, axes, keepdims=1))
    return graph.add("Sub", z, graph.add("ReduceSum", shares, axes, keepdims=1))


def _isotonic(calibrator: IsotonicCalibration, graph: _Graph, z: str) -> str:
    """The logits of :class:`IsotonicCalibration`, as in its ``_transform``."""
    axes, lowest = graph.constant([-1], np.int64), graph.constant(-math.inf)
    zero, t = graph.constant(0), graph.constant(calibrator.temperature_)
    classes = graph.constant(np.arange(calibrator.n_features_in_), np.int64)
    top = graph.add("Equal", graph.add("ArgMax", z, axis=-1, keepdims=1), classes)
    others = graph.add("Where", top, lowest, z)
    largest = graph.add("ReduceMax", others, axes, keepdims=1)
    second = graph.add("Where", graph.add("Equal", largest, lowest), zero, largest)
    others = graph.add("Div", graph.add("Sub", others, second), t)
    gap = graph.add("Sub", graph.add("ReduceMax", z, axes, keepdims=1), second)
    rest = graph.add("ReduceLogSumExp", others, axes, keepdims=1)
    x = graph.add("Sub", graph.add("Div", gap, t), rest)
    # Sum over the linear pieces: the increase of the function from the start of a piece to x.
    at, value = calibrator.log_odds_, calibrator.calibrated_log_odds_
    width = np.diff(at)
    slope = np.diff(value) / np.where(width == 0, 1, width)
    inside = graph.add("Max", graph.add("Sub", x, graph.constant(at[:-1])), zero)
    inside = graph.add("Min", inside, graph.constant(width))
    increase = graph.add("MatMul", inside, graph.constant(slope[:, None]))
    odds = graph.add("Add", increase, graph.constant(value[0]))
    margin = graph.add("Max", graph.add("Add", odds, rest), graph.constant(MIN_MARGIN))
    # NaN where the row holds NaN or +inf, else 0.
    excluded = graph.add("Equal", z, lowest)
    invalid = graph.add("Mul", graph.add("Where", excluded, zero, z), zero)
    invalid = graph.add("ReduceSum", invalid, axes, keepdims=1)
    return graph.add("Where", top, graph.add("Add", margin, invalid), others)


def _binary(calibrator: BetaCalibration | PlattScaling, graph: _Graph, z: str) -> str:
    """The logits of a calibrator of two classes; 0 for class 0."""
    axes, zero, lowest = (
        graph.constant([-1], np.int64),
        graph.constant(0),
        graph.constant(-math.inf),
    )
    excluded = graph.add("Equal", z, lowest)
    finite = graph.add("Where", excluded, zero, z)
    s = graph.clip(graph.add("MatMul", finite, graph.constant([[-1], [1]])))
    # Any log-odds do where a class is excluded: those of 0 do not overflow.
    least = graph.add("ReduceMin", z, axes, keepdims=1)
    s = graph.add("Where", graph.add("Equal", least, lowest), zero, s)
    if isinstance(calibrator, BetaCalibration):
        # -log p = max(-s, 0) + r and -log(1 - p) = max(s, 0) + r with r = log(1 + exp(-|s|))
        opposite = graph.add("Neg", s)
        r = graph.add("Exp", graph.add("Min", s, opposite))
        r = graph.add("Log", graph.add("Add", r, graph.constant(1)))
        p0, p1 = (
            graph.add("Mul", graph.add("Add", graph.add("Relu", x), r), graph.constant(factor))
            for x, factor in ((s, calibrator.b_), (opposite, calibrator.a_))
        )
        s, shift = graph.add("Sub", p0, p1), calibrator.c_
    else:
        s = graph.add("Mul", s, graph.constant(calibrator.slope_))
        shift = calibrator.intercept_
    s = graph.clip(graph.add("Add", s, graph.constant(shift)))
    z = graph.add("Mul", s, graph.constant([[0, 1]]))
    return graph.add("Where", excluded, lowest, z)

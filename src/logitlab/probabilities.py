"""softmax, log_softmax, logsumexp and logits."""

from typing import Any, Literal

from array_api_compat import array_namespace

from logitlab import _arrays, _checks, _dispatch, _out
from logitlab._arrays import Array, Axes, Namespace
from logitlab._backends import reference


def contains_nan(z: Array, axes: Axes, where: Array | None, xp: Namespace) -> Array:
    """Mask of the rows with a NaN that is not excluded; the class axes have length 1."""
    nan = xp.isnan(z) if where is None else xp.isnan(z) & where
    return xp.any(nan, axis=axes, keepdims=True) if axes else nan


def zero_unless(has_nan: Array, p: Array, xp: Namespace) -> Array:
    """Probabilities with 0 in the rows that are NaN although they do not contain NaN."""
    return xp.where(xp.isnan(p) & ~has_nan, xp.zeros_like(p), p)


def softmax(
    z: Any,
    axis: Any = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    empty: Literal["nan", "zero"] = "nan",
    out: Any = None,
) -> Any:
    r"""Softmax of logits: the probabilities of the classes.

    :math:`p_i = e^{z_i/T} / \sum_j e^{z_j/T}`, as if in exact arithmetic and rounded at the end:
    within 4 ULP for float32 and float64 NumPy arrays with the compiled kernels.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits: a NumPy array or what :func:`numpy.asarray` takes, a torch tensor, or an array of
        any library with the array API, version 2024.12. float16, bfloat16, float32 and float64 keep
        their type; integers and booleans are converted to float64 first.
    axis : int, tuple of int or None
        The class axis. A tuple makes one distribution over several axes, None over all.
    temperature : float or array
        T, dimensionless: a scalar, or one for each row (an array that broadcasts to z's shape
        without the class axes). T < 1 sharpens the distribution, T > 1 flattens it. T = 0 gives
        equal probabilities to the largest entries, T = inf to all entries; T < 0 favours small
        logits.
    where : array of bool, optional
        Broadcasts to z. An entry where it is False is excluded: its probability is 0.
    empty : {"nan", "zero"}
        The result in a row with every entry excluded: NaN, as there is no distribution, or 0, as
        for the weights of a query of attention that may attend to nothing.
    out : array, optional
        Written and returned: z itself or an array disjoint from it, of the result's shape and type.

    Returns
    -------
    array, shape of z
        Of the library and on the device of z. An entry of -inf gets 0 at every T; m entries of
        +inf get 1/m each; a row with NaN is NaN; of one with every entry excluded, see `empty`.

    Raises
    ------
    TypeError
        `z` is complex, of objects, strings or dates, or a masked array; another argument has a
        wrong type: a boolean is not an axis or a temperature.
    ValueError
        An axis out of bounds; a shape that does not broadcast; a NaN temperature; an `out` of
        another shape or type, or that overlaps z.

    References
    ----------
    J. S. Bridle, "Probabilistic interpretation of feedforward classification network outputs",
    in Neurocomputing, Springer, 1990, pp. 227-236.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> logitlab.softmax([1.0, 2.0, 3.0]).round(4)
    array([0.09  , 0.2447, 0.6652])
    >>> logitlab.softmax(np.array([-128, 127], dtype=np.int8)).round(4)
    array([0., 1.])
    >>> logitlab.softmax([1.0, 3.0, 3.0], temperature=0)
    array([0. , 0.5, 0.5])
    """
    if out is None and empty == "nan":
        result = _dispatch.plain(z).plain_softmax(z, axis, temperature, where)
        if result is not None:
            return result
        if (sharded := _dispatch.sharded("softmax", z, axis)) is not None:
            return sharded(z, axis=axis, temperature=temperature, where=where)
    if empty != "nan":
        _checks.choice(empty, "empty", ("nan", "zero"))
    if out is None:
        z = _dispatch.autocast("softmax", z)
        if (compiled := _dispatch.compiled_functions(z)) is not None:
            return compiled.softmax(z, axis, temperature, where, empty)
    request = _arrays.request(z, axis, temperature, where)
    out_view = _out.check_out(out, request)
    if empty == "zero":
        xp = array_namespace(request.z)
        has_nan = contains_nan(request.z, request.axes, request.where, xp)
    result = _dispatch.backend(request.z).softmax(*request[:4], out_view)
    if empty == "zero":
        zeroed = zero_unless(has_nan, result, xp)
        if out_view is None:
            result = zeroed
        else:
            out_view[...] = zeroed
    return request.restore(result) if out is None else out


def log_softmax(
    z: Any, axis: Any = -1, *, temperature: Any = 1.0, where: Any = None, out: Any = None
) -> Any:
    r"""Log-softmax of logits: the logarithms of the probabilities of :func:`softmax`.

    :math:`\log p_i = z_i/T - \log \sum_j e^{z_j/T}`, accurate to the last digits at the maximum
    too, where it is :math:`-\log(1 + \text{rest})`, computed with ``log1p``.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, as in :func:`softmax`.
    axis : int, tuple of int or None
        The class axis or axes; None for all.
    temperature : float or array
        T: a scalar, or one for each row, as in :func:`softmax`.
    where : array of bool, optional
        Entries where it is False are excluded: their result is -inf.
    out : array, optional
        Written and returned, as in :func:`softmax`.

    Returns
    -------
    array, shape of z
        Natural logarithms, of the library and on the device of z. -inf at excluded entries; a row
        whose maximum is +inf is -log m at its m infinite entries; NaN where :func:`softmax` is NaN.

    Raises
    ------
    TypeError, ValueError
        As :func:`softmax`.

    References
    ----------
    P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and softmax
    functions", IMA Journal of Numerical Analysis 41 (2021) 2311-2330.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> logitlab.log_softmax(np.array([0, -20], dtype=np.float32))
    array([-2.0611537e-09, -2.0000000e+01], dtype=float32)
    """
    if out is None:
        result = _dispatch.plain(z).plain_log_softmax(z, axis, temperature, where)
        if result is not None:
            return result
        if (sharded := _dispatch.sharded("log_softmax", z, axis)) is not None:
            return sharded(z, axis=axis, temperature=temperature, where=where)
        z = _dispatch.autocast("log_softmax", z)
        if (compiled := _dispatch.compiled_functions(z)) is not None:
            return compiled.log_softmax(z, axis, temperature, where)
    request = _arrays.request(z, axis, temperature, where)
    out_view = _out.check_out(out, request)
    result = _dispatch.backend(request.z).log_softmax(*request[:4], out_view)
    return request.restore(result) if out is None else out


def logsumexp(
    z: Any,
    axis: Any = -1,
    *,
    b: Any = None,
    temperature: Any = 1.0,
    where: Any = None,
    keepdims: bool = False,
    return_sign: bool = False,
) -> Any:
    r"""Log-sum-exp of logits, :math:`T \log \sum_j b_j e^{z_j/T}`.

    It is a smooth maximum of the logits, at T < 0 a smooth minimum.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, as in :func:`softmax`.
    axis : int, tuple of int or None
        The class axis or axes; None for all.
    b : array, optional
        Weights of the terms, 1 by default, as in :func:`scipy.special.logsumexp`: they broadcast to
        z and may be negative. An entry of weight 0 is excluded.
    temperature : float or array
        T: a scalar, or one for each row, as in :func:`softmax`. T = 0 gives the maximum. T = ±inf
        gives ±inf in a row of several entries, and the entry itself in a row of one.
    where : array of bool, optional
        Entries where it is False are excluded.
    keepdims : bool
        Keep the class axes with length 1.
    return_sign : bool
        Return the logarithm of the magnitude of the sum, and its sign.

    Returns
    -------
    array, shape of z without the class axes
        In the unit of z. A row with every entry excluded: -inf (T < 0: +inf). A row with a +inf
        entry (T >= 0): +inf. A row with NaN: NaN. A sum below 0: NaN without `return_sign`.
    sign : array, of the same shape
        With `return_sign` only: 1, 0 or -1; NaN in a row with NaN.

    Raises
    ------
    TypeError, ValueError
        As :func:`softmax`. `keepdims` or `return_sign` is not True or False; `b` does not
        broadcast to z.

    References
    ----------
    P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and softmax
    functions", IMA Journal of Numerical Analysis 41 (2021) 2311-2330.

    Examples
    --------
    >>> import logitlab
    >>> float(logitlab.logsumexp([1000.0, 1000.0]))
    1000.6931471805599
    >>> float(logitlab.logsumexp([1.0, 2.0], temperature=0))
    2.0
    >>> float(logitlab.logsumexp([1000.0, 1000.0], b=[3.0, -1.0]).round(4))
    1000.6931
    """
    if b is None and keepdims is False and return_sign is False:
        result = _dispatch.plain(z).plain_logsumexp(z, axis, temperature, where)
        if result is not None:
            return result
    keepdims = _checks.boolean(keepdims, "keepdims")
    return_sign = _checks.boolean(return_sign, "return_sign")
    z = _dispatch.autocast("logsumexp", z)
    plain = b is None and not return_sign
    if plain and (sharded := _dispatch.sharded("logsumexp", z, axis)) is not None:
        return sharded(z, axis=axis, temperature=temperature, where=where, keepdims=keepdims)
    if plain and (compiled := _dispatch.compiled_functions(z)) is not None:
        return compiled.logsumexp(z, axis, temperature, where, keepdims)
    request = _arrays.request(z, axis, temperature, where)
    keepdims = keepdims and not request.no_axis
    if plain:
        return _arrays.scalar(_dispatch.backend(request.z).logsumexp(*request[:4], keepdims))
    b = _arrays.broadcast_weights(1.0 if b is None else b, "b", request)
    value, sign = reference.signed_logsumexp(*request[:4], keepdims, b)
    if return_sign:
        return _arrays.scalar(value), _arrays.scalar(sign)
    xp = array_namespace(value)
    return _arrays.scalar(xp.where(sign < 0, xp.full_like(value, xp.nan), value))


def logits(p: Any, axis: int = -1) -> Any:
    r"""Centred logits of probabilities: :math:`\log p` minus its mean over the row.

    ``softmax(logits(p))`` is p divided by its sum.

    Parameters
    ----------
    p : array, shape (..., K, ...)
        Probabilities, or nonnegative weights, which need not sum to 1.
    axis : int
        The class axis.

    Returns
    -------
    array, shape of p
        Natural logarithms with mean 0 over the finite entries of a row; -inf where p is 0; a row
        with NaN is NaN.

    Raises
    ------
    TypeError
        `p` is of a type that :func:`softmax` does not take; `axis` is not an int.
    ValueError
        A negative entry; an axis out of bounds.

    References
    ----------
    The centred log-ratio of J. Aitchison, "The statistical analysis of compositional data",
    Journal of the Royal Statistical Society B 44 (1982) 139-177.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.logits([0.25, 0.25, 0.5]).round(4)
    array([-0.231 , -0.231 ,  0.4621])
    """
    p = _arrays.as_floating(p, "p")
    axes = _arrays.one_axis(axis, p.ndim)
    _arrays.check_nonnegative(p, "p")
    if not axes:
        return _dispatch.backend(p).logits(p[..., None], (0,))[..., 0]
    return _dispatch.backend(p).logits(p, axes)

"""The first and second derivatives of softmax, and their products in O(K)."""

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from logitlab import _arrays, _dispatch
from logitlab._arrays import Array, Namespace
from logitlab._backends import native, reference
from logitlab._rows import blocks
from logitlab.probabilities import softmax


class _Point(NamedTuple):
    """The point at which a derivative is evaluated, in at least float32, with the classes last."""

    p: Array  # (..., K), the probabilities
    slope: Array  # (..., 1), 1/T; 0 in a row that no finite change of its logits affects
    axis: int
    xp: Namespace
    request: _arrays.Request

    def round(self, x: Array) -> Array:
        """`x` in the type of the result."""
        return self.xp.astype(x, _arrays.native_type(self.request.z.dtype), copy=False)

    def divide_by_temperature(self, x: Array) -> Array:
        """x/T, where 1/T may be infinite."""
        slope = self.slope[(..., *[None] * (x.ndim - self.slope.ndim))]
        return _arrays.scale_nonzero(x, slope, self.xp)

    def to_shape_of_z(self, x: Array) -> Array:
        """A product of shape (..., K) in the type and the axis order of z."""
        x = _arrays.move_axis(self.round(x), -1, self.axis, self.xp)
        return self.request.restore(x)


def _evaluate_softmax(z: Any, axis: int, temperature: Any, where: Any) -> _Point:
    z = _arrays.as_floating(z, "z")
    _arrays.one_axis(axis, z.ndim)
    xp = array_namespace(z)
    request = _arrays.request(z, axis, temperature, where)
    _arrays.check_differentiable(request.temperature, xp)
    axis = request.axes[0]
    z = _arrays.at_least_float32(request.z, xp)
    p = _arrays.move_axis(_dispatch.backend(z).softmax(z, *request[1:4], None), axis, -1, xp)
    t = request.temperature
    slope = xp.ones((*p.shape[:-1], 1), dtype=p.dtype, device=getattr(p, "device", None))
    slope = slope / (
        t if isinstance(t, float) else xp.astype(_arrays.move_axis(t, axis, -1, xp), p.dtype)
    )
    if p.shape[-1]:
        # No finite change of the logits affects a row with a +inf entry.
        included = z if request.where is None else xp.where(request.where, z, -xp.inf)
        row_max = _arrays.move_axis(xp.max(included, axis=axis, keepdims=True), axis, -1, xp)
        slope = xp.where((row_max == xp.inf) & (slope > 0), 0.0, slope)
    return _Point(p, slope, axis, xp, request)


def _check_vector(v: Any, name: str, z: Any, point: _Point) -> Array:
    """A vector of a product, checked to have the shape of z, with the classes last."""
    xp = point.xp
    v = _arrays.like(_arrays.as_floating(v, name), point.p, xp, name)
    v = xp.astype(v, point.p.dtype, copy=False)
    if tuple(v.shape) != tuple(np.shape(z)):
        raise ValueError(
            f"{name} must have the shape {tuple(np.shape(z))} of z, got {tuple(v.shape)}"
        )
    return _arrays.move_axis(v[..., None] if point.request.no_axis else v, point.axis, -1, xp)


@np.errstate(all="ignore")
def jacobian(z: Any, axis: int = -1, *, temperature: Any = 1.0, where: Any = None) -> Any:
    r"""The Jacobian of softmax: the derivatives of the probabilities with respect to the logits.

    :math:`J_{ij} = \partial p_i/\partial z_j = p_i(\delta_{ij} - p_j)/T`: symmetric, positive
    semi-definite at T > 0, with rows that sum to 0.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, of any kind that :func:`logitlab.softmax` takes.
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one for each row. Not 0, where softmax is discontinuous. At T = ±inf the
        Jacobian is 0.
    where : array of bool, optional
        Broadcasts to z. Rows and columns of entries where it is False are 0.

    Returns
    -------
    array, shape (..., K, K)
        The batch axes, then i and j. In the inverse unit of z. A row of z with a +inf entry has a
        Jacobian of 0, as no finite change of it affects the probabilities; NaN where
        :func:`logitlab.softmax` is NaN.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.softmax`; a temperature of 0.

    References
    ----------
    J. S. Bridle, "Training stochastic model recognition algorithms as networks can lead to maximum
    mutual information estimation of parameters", NIPS 1989.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.jacobian([0.0, 0.0])
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """
    point = _evaluate_softmax(z, axis, temperature, where)
    return point.round(_dispatch.backend(point.p).jacobian(point.p, point.slope))


@np.errstate(all="ignore")
def jacobian_product(
    z: Any, v: Any, axis: int = -1, *, temperature: Any = 1.0, where: Any = None
) -> Any:
    r"""The product of the Jacobian of softmax with a vector, in O(K) time and memory.

    :math:`(Jv)_i = p_i(v_i - \sum_j p_j v_j)/T`. J is symmetric, so this is both the
    Jacobian-vector and the vector-Jacobian product.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, of any kind that :func:`logitlab.softmax` takes.
    v : array, shape of z
        One vector for each row, along the class axis.
    axis : int
        The class axis.
    temperature : float or array
        T, as in :func:`jacobian`.
    where : array of bool, optional
        As in :func:`jacobian`.

    Returns
    -------
    array, shape of z
        In the unit of v divided by that of z.

    Raises
    ------
    TypeError, ValueError
        As :func:`jacobian`; `v` of another shape.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.jacobian_product([0.0, 0.0], [1.0, 0.0])
    array([ 0.25, -0.25])
    """
    if where is None and native.are_plain((z, v), axis, temperature) and z.max() < np.inf:
        p = softmax(z, temperature=temperature)
        native.product("softmax", p, v, None, 1 / temperature, p)
        return p
    point = _evaluate_softmax(z, axis, temperature, where)
    v = _check_vector(v, "v", z, point)
    product = _dispatch.backend(point.p).jacobian_product(point.p, v, point.slope)
    return point.to_shape_of_z(product)


@np.errstate(all="ignore")
def hessian(z: Any, axis: int = -1, *, temperature: Any = 1.0, where: Any = None) -> Any:
    r"""The second derivatives of the probabilities with respect to the logits.

    :math:`H_{ijk} = \partial^2 p_i/\partial z_j \partial z_k =
    p_i[(\delta_{ij} - p_j)(\delta_{ik} - p_k) - p_j(\delta_{jk} - p_k)]/T^2`: a K by K matrix for
    each of the K probabilities, symmetric in j and k.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, of any kind that :func:`logitlab.softmax` takes.
    axis : int
        The class axis.
    temperature : float or array
        T, as in :func:`jacobian`.
    where : array of bool, optional
        As in :func:`jacobian`.

    Returns
    -------
    array, shape (..., K, K, K)
        The batch axes, then i, j and k. In the inverse square of the unit of z.

    Raises
    ------
    TypeError, ValueError
        As :func:`jacobian`.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.hessian([0.0, 1.0]).shape
    (2, 2, 2)
    """
    point = _evaluate_softmax(z, axis, temperature, where)
    p, k = point.p, point.p.shape[-1]
    if not isinstance(p, np.ndarray) or not p.size:
        return _second_derivatives(point)
    # By blocks of rows, as the intermediate arrays are as large as the result.
    p, slope = p.reshape(-1, k), point.slope.reshape(-1, 1)
    h = np.empty((len(p), k, k, k), _arrays.native_type(point.request.z.dtype))
    for rows in blocks(len(p), k**3):
        h[rows] = _second_derivatives(point._replace(p=p[rows], slope=slope[rows]))
    return h.reshape(*point.p.shape, k, k)


def _second_derivatives(point: _Point) -> Array:
    xp, p = point.xp, point.p
    eye = xp.eye(p.shape[-1], dtype=xp.bool, device=getattr(p, "device", None))
    # d_ij = delta_ij - p_j; the covariance is c_jk = p_j (delta_jk - p_k).
    d = xp.where(eye, reference.one_minus(p)[..., None, :], -p[..., None, :])
    c = p[..., None] * d
    product = d[..., :, :, None] * d[..., :, None, :] - c[..., None, :, :]
    h = point.divide_by_temperature(p[..., None, None] * product)
    return point.round(point.divide_by_temperature(h))


@np.errstate(all="ignore")
def hessian_product(
    z: Any, u: Any, v: Any, axis: int = -1, *, temperature: Any = 1.0, where: Any = None
) -> Any:
    r"""The product of the second derivatives of softmax with two vectors, in O(K) time and memory.

    :math:`\sum_{jk} H_{ijk} u_j v_k = p_i[(u_i - \bar u)(v_i - \bar v) -
    \sum_j p_j (u_j - \bar u)(v_j - \bar v)]/T^2` with :math:`\bar u = \sum_j p_j u_j`.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, of any kind that :func:`logitlab.softmax` takes.
    u, v : array, shape of z
        Two vectors for each row, along the class axis.
    axis : int
        The class axis.
    temperature : float or array
        T, as in :func:`jacobian`.
    where : array of bool, optional
        As in :func:`jacobian`.

    Returns
    -------
    array, shape of z
        In the product of the units of u and v, divided by the squared unit of z.

    Raises
    ------
    TypeError, ValueError
        As :func:`jacobian_product`.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.hessian_product([0.0, 0.0], [1.0, 0.0], [1.0, 0.0])
    array([0., 0.])
    """
    if where is None and native.are_plain((z, u, v), axis, temperature) and z.max() < np.inf:
        p = softmax(z, temperature=temperature)
        slope = np.full((*z.shape[:-1], 1), 1 / temperature)
        return native.hessian_product(p, u, v, slope)
    point = _evaluate_softmax(z, axis, temperature, where)
    u, v = _check_vector(u, "u", z, point), _check_vector(v, "v", z, point)
    return point.to_shape_of_z(reference.hessian_product(point.p, u, v, point.slope))

"""The first and second derivatives of softmax, and their products in O(K)."""

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from logitlab import _arrays, _dispatch
from logitlab._backends import reference


class _Point(NamedTuple):
    """Where a derivative is taken: probabilities with the classes last, wide enough to work in."""

    p: Any  # (..., K)
    slope: Any  # (..., 1), 1/T; 0 where no finite change of the row changes its result
    axis: int
    xp: Any
    request: _arrays.Request

    def delivered(self, x: Any) -> Any:
        return self.xp.astype(x, _arrays.native_type(self.request.z.dtype), copy=False)

    def scaled(self, x: Any) -> Any:
        """x/T, where 1/T may be infinite."""
        slope = self.slope[(..., *[None] * (x.ndim - self.slope.ndim))]
        return _arrays.scaled(x, slope, self.xp)


@np.errstate(all="ignore")
def _point(z: Any, axis: int, temperature: Any, where: Any) -> _Point:
    z = _arrays.as_floating(z, "z")
    _arrays.one_axis(axis, z.ndim)
    xp = array_namespace(z)
    call = _arrays.request(z, axis, temperature, where)
    _arrays.check_differentiable(call.temperature, xp)
    at = call.axes[0]
    z = _arrays.at_least_float32(call.z, xp)
    p = _arrays.moved(_dispatch.backend(z).softmax(z, *call[1:4], None), at, -1, xp)
    t = call.temperature
    slope = xp.ones((*p.shape[:-1], 1), dtype=p.dtype, device=getattr(p, "device", None))
    slope = slope / (
        t if isinstance(t, float) else xp.astype(_arrays.moved(t, at, -1, xp), p.dtype)
    )
    if p.shape[-1]:
        # A +inf entry is beyond every finite change of the others, and of itself.
        left = z if call.where is None else xp.where(call.where, z, -xp.inf)
        most = _arrays.moved(xp.max(left, axis=at, keepdims=True), at, -1, xp)
        slope = xp.where((most == xp.inf) & (slope > 0), 0.0, slope)
    return _Point(p, slope, at, xp, call)


def _vector(v: Any, name: str, z: Any, at: _Point) -> Any:
    """A factor of a product: of z's shape, with the classes last."""
    xp = at.xp
    v = _arrays.like(_arrays.as_floating(v, name), at.p, xp, name)
    v = xp.astype(v, at.p.dtype, copy=False)
    if tuple(v.shape) != tuple(np.shape(z)):
        raise ValueError(
            f"{name} has shape {tuple(v.shape)}; accepted: the shape {tuple(np.shape(z))} of z"
        )
    return _arrays.moved(v[..., None] if at.request.no_axis else v, at.axis, -1, xp)


def _back(x: Any, at: _Point) -> Any:
    return at.request.restore(_arrays.moved(at.delivered(x), -1, at.axis, at.xp))


@np.errstate(all="ignore")
def jacobian(z: Any, axis: int = -1, *, temperature: Any = 1.0, where: Any = None) -> Any:
    r"""The derivatives of the probabilities by the logits.

    :math:`J_{ij} = \partial p_i/\partial z_j = p_i(\delta_{ij} - p_j)/T`: symmetric, positive
    semi-definite at T > 0, with rows that sum to 0.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, of any kind that :func:`logitlab.softmax` takes.
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one for each row. Not 0, where softmax jumps; at T = ±inf it is 0.
    where : array of bool, optional
        Broadcasts to z. Rows and columns of entries where it is False are 0.

    Returns
    -------
    array, shape (..., K, K)
        The batch axes, then i and j; in one over the unit of z. Rows with a +inf entry are 0, as
        no finite change of them changes the result; NaN where :func:`logitlab.softmax` is NaN.

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
    at = _point(z, axis, temperature, where)
    return at.delivered(_dispatch.backend(at.p).jacobian(at.p, at.slope))


@np.errstate(all="ignore")
def jacobian_product(
    z: Any, v: Any, axis: int = -1, *, temperature: Any = 1.0, where: Any = None
) -> Any:
    r"""The product of the Jacobian with a vector, in O(K) and without the Jacobian.

    :math:`(Jv)_i = p_i(v_i - \sum_j p_j v_j)/T`. J is symmetric, so this is both the
    Jacobian-vector and the vector-Jacobian product.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, of any kind that :func:`logitlab.softmax` takes.
    v : array, shape of z
        The vector of each row, along the class axis.
    axis : int
        The class axis.
    temperature : float or array
        T, as in :func:`jacobian`.
    where : array of bool, optional
        As in :func:`jacobian`.

    Returns
    -------
    array, shape of z
        The unit of v over that of z.

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
    at = _point(z, axis, temperature, where)
    v = _vector(v, "v", z, at)
    return _back(_dispatch.backend(at.p).jacobian_product(at.p, v, at.slope), at)


@np.errstate(all="ignore")
def hessian(z: Any, axis: int = -1, *, temperature: Any = 1.0, where: Any = None) -> Any:
    r"""The second derivatives of the probabilities by the logits.

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
        The batch axes, then i, j and k; in one over the unit of z squared.

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
    at = _point(z, axis, temperature, where)
    xp, p = at.xp, at.p
    k = p.shape[-1]
    eye = xp.eye(k, dtype=xp.bool, device=getattr(p, "device", None))
    # d_ij = delta_ij - p_j, and the covariance c_jk = p_j (delta_jk - p_k).
    d = xp.where(eye, reference.one_minus(p)[..., None, :], -p[..., None, :])
    c = p[..., None] * d
    product = d[..., :, :, None] * d[..., :, None, :] - c[..., None, :, :]
    return at.delivered(at.scaled(at.scaled(p[..., None, None] * product)))


@np.errstate(all="ignore")
def hessian_product(
    z: Any, u: Any, v: Any, axis: int = -1, *, temperature: Any = 1.0, where: Any = None
) -> Any:
    r"""The second derivatives along two vectors, in O(K) and without the tensor.

    :math:`\sum_{jk} H_{ijk} u_j v_k = p_i[(u_i - \bar u)(v_i - \bar v) -
    \sum_j p_j (u_j - \bar u)(v_j - \bar v)]/T^2` with :math:`\bar u = \sum_j p_j u_j`.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, of any kind that :func:`logitlab.softmax` takes.
    u, v : array, shape of z
        The two vectors of each row, along the class axis.
    axis : int
        The class axis.
    temperature : float or array
        T, as in :func:`jacobian`.
    where : array of bool, optional
        As in :func:`jacobian`.

    Returns
    -------
    array, shape of z

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
    at = _point(z, axis, temperature, where)
    a = reference.centred(at.p, _vector(u, "u", z, at))
    b = reference.centred(at.p, _vector(v, "v", z, at))
    return _back(at.scaled(at.scaled(at.p * reference.centred(at.p, a * b))), at)

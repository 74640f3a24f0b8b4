"""The base class of estimators: parameters, the state of being fitted, the number of classes."""

import inspect
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from logitlab import _arrays


class _NotFittedError(ValueError, AttributeError):
    """Stands in for scikit-learn's exception of this name where scikit-learn is not installed."""


class Estimator:
    """An object that is fitted on logits, with scikit-learn's conventions but without importing it.

    Its constructor stores each parameter under its name; ``fit`` sets `classes_` and
    `n_features_in_`.
    """

    classes_: NDArray[np.int64]
    n_features_in_: int

    def _parameter_names(self) -> list[str]:
        return list(inspect.signature(type(self)).parameters)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters by name.

        Parameters
        ----------
        deep : bool
            Has no effect: the parameters of a parameter are not listed.

        Returns
        -------
        dict
        """
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the constructor by name.

        Parameters
        ----------
        **params
            New values.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            A name that is not a parameter.
        """
        names = self._parameter_names()
        for name, value in params.items():
            if name not in names:
                known = f"one of {', '.join(names)}" if names else "none"
                raise ValueError(
                    f"parameter of {type(self).__name__} must be {known}, got {name!r}"
                )
            setattr(self, name, value)
        return self

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise _not_fitted_error()(
                f"this {type(self).__name__} is not fitted yet; call fit first"
            )

    def _check_logits(self, z: Any, axis: Any = -1) -> tuple[Any, Any]:
        """Return z as a floating array with K classes on the last axis, and its array namespace."""
        self._check_fitted()
        z = _arrays.as_floating(check_dense(z), "z")
        k = self.n_features_in_
        axes = _arrays.one_axis(axis, z.ndim)
        features = z.shape[axes[0]] if axes else 1
        if not axes or features != k:
            rule = f"shape (..., {k})" if axis == -1 else f"{k} classes on axis {axis}"
            # The second half is scikit-learn's wording, which its estimator checks look for.
            raise ValueError(
                f"z must have {rule}, got {tuple(z.shape)}: X has {features} features, "
                f"but {type(self).__name__} is expecting {k} features as input"
            )
        xp = array_namespace(z)
        return _arrays.move_axis(z, axes[0], -1, xp) if axes[0] < z.ndim - 1 else z, xp

    def __repr__(self) -> str:
        params = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({params})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classes_")


def _not_fitted_error() -> type[ValueError]:
    """Return scikit-learn's NotFittedError, or its stand-in."""
    try:
        from sklearn.exceptions import NotFittedError
    except ModuleNotFoundError:
        return _NotFittedError
    error: type[ValueError] = NotFittedError
    return error


def check_dense(z: Any) -> Any:
    """Return z; refuse a SciPy sparse matrix, whose zeros would be logits."""
    if hasattr(z, "tocsr"):
        raise TypeError(f"z must be a dense array, got a sparse {type(z).__name__}")
    return z

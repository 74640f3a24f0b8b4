"""torch modules: the functions of logitlab under the names of `torch.nn`.

Every public function of logitlab takes tensors as well; these modules are layers for a model. Their
state dictionaries are those of the `torch.nn` modules of the same names, plus ``log_temperature``
with ``learnable=True``.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import logitlab
from logitlab import _checks

__all__ = ["LinearCrossEntropyLoss", "LogSoftmax", "Softmax"]


class _TemperatureModule(nn.Module):  # type: ignore[misc]
    """A module with a temperature: a number, or the exponential of a parameter, which is > 0."""

    def __init__(self, temperature: float, learnable: bool, device: Any = None) -> None:
        super().__init__()
        learnable = _checks.boolean(learnable, "learnable")
        rule = (
            "positive and finite with learnable=True"
            if learnable
            else "a number, 0 and ±inf included"
        )

        def is_valid(t: float) -> bool:
            return 0 < t < math.inf if learnable else not math.isnan(t)

        temperature = _checks.real(temperature, "temperature", rule, is_valid)
        self._initial_temperature = temperature
        log_t = nn.Parameter(torch.empty((), device=device)) if learnable else None
        self.register_parameter("log_temperature", log_t)
        self._reset_temperature()

    def _reset_temperature(self) -> None:
        if self.log_temperature is not None:
            nn.init.constant_(self.log_temperature, math.log(self._initial_temperature))

    def reset_parameters(self) -> None:
        """Set the learnable parameters to their initial values, as after ``to_empty``."""
        self._reset_temperature()

    @property
    def temperature(self) -> float | Tensor:
        """T: a float, or a 0-d tensor if it is learnable."""
        if self.log_temperature is None:
            return self._initial_temperature
        return self.log_temperature.exp()

    def _temperature_repr(self) -> str:
        if self.log_temperature is None:
            return f"temperature={self._initial_temperature:g}"
        is_meta = self.log_temperature.is_meta
        t = self._initial_temperature if is_meta else math.exp(self.log_temperature.item())
        return f"temperature={t:g}, learnable=True"


class Softmax(_TemperatureModule):
    r"""Softmax over the class axis, as :class:`torch.nn.Softmax`, with a temperature.

    Parameters
    ----------
    dim : int, tuple of int or None
        The class axis or axes; None for all.
    temperature : float
        T, dimensionless.
    learnable : bool
        Make T a parameter of the module: log T, so that T stays positive.

    Examples
    --------
    >>> import torch
    >>> from logitlab.torch import Softmax
    >>> Softmax(dim=-1, temperature=2.0)(torch.tensor([0.0, 0.0]))
    tensor([0.5000, 0.5000])
    """

    def __init__(self, dim: Any = -1, temperature: float = 1.0, *, learnable: bool = False) -> None:
        super().__init__(temperature, learnable)
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return logitlab.softmax(input, self.dim, temperature=self.temperature)

    def jacobian(self, input: Tensor) -> Tensor:  # noqa: A002
        """The Jacobian of the probabilities with respect to the logits, :func:`logitlab.jacobian`.

        Parameters
        ----------
        input : Tensor, shape (..., K, ...)
            Logits.

        Returns
        -------
        Tensor, shape (..., K, K)
            The two class axes come last.
        """
        return logitlab.jacobian(input, self.dim, temperature=self.temperature)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, {self._temperature_repr()}"


class LogSoftmax(_TemperatureModule):
    r"""Log-softmax over the class axis, as :class:`torch.nn.LogSoftmax`, with a temperature.

    Parameters
    ----------
    dim, temperature, learnable
        As in :class:`Softmax`.

    Examples
    --------
    >>> import torch
    >>> from logitlab.torch import LogSoftmax
    >>> LogSoftmax()(torch.tensor([0.0, -20.0]))
    tensor([-2.0612e-09, -2.0000e+01])
    """

    def __init__(self, dim: Any = -1, temperature: float = 1.0, *, learnable: bool = False) -> None:
        super().__init__(temperature, learnable)
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return logitlab.log_softmax(input, self.dim, temperature=self.temperature)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, {self._temperature_repr()}"


class LinearCrossEntropyLoss(_TemperatureModule):
    r"""Cross-entropy of a linear layer without storing its logits, as
    :class:`torch.nn.LinearCrossEntropyLoss`.

    Parameters
    ----------
    in_features : int
        D, the number of inputs of the layer.
    num_classes : int
        K, the number of classes.
    bias : bool
        Whether the layer has a bias.
    device, dtype
        Device and type of the layer's parameters.
    reduction : {"mean", "sum", "none"}
        As in :func:`logitlab.cross_entropy`.
    weight : Tensor, shape (K,), optional
        Weight of each class, `class_weight` of :func:`logitlab.linear_cross_entropy`.
    ignore_index : int or sequence of int, optional
        Rows with this label, or with one of these, are ignored.
    label_smoothing : float
        As in :func:`logitlab.cross_entropy`.
    temperature, learnable
        As in :class:`Softmax`.

    Attributes
    ----------
    linear : torch.nn.Linear
        The layer, with its weight (K, D) and its bias.

    Notes
    -----
    Targets are labels. For target distributions compute the logits and use
    :func:`logitlab.cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> from logitlab.torch import LinearCrossEntropyLoss
    >>> loss = LinearCrossEntropyLoss(4, 10)
    >>> with torch.no_grad():
    ...     _ = loss.linear.weight.zero_()
    >>> value = loss(torch.ones(3, 4), torch.tensor([0, 5, 9]))
    >>> round(value.item(), 4)
    2.3026
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | Sequence[int] | None = -100,
        label_smoothing: float = 0.0,
        temperature: float = 1.0,
        learnable: bool = False,
    ) -> None:
        super().__init__(temperature, learnable, device)
        self.linear = nn.Linear(in_features, num_classes, bias=bias, device=device, dtype=dtype)
        self.register_buffer("weight", weight)
        self._initial_weight = weight
        self.reduction = reduction
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def reset_parameters(self) -> None:
        """Set the parameters of the layer, T and the class weights to new initial values."""
        super().reset_parameters()
        self.linear.reset_parameters()
        if self.weight is not None:
            with torch.no_grad():
                self.weight.copy_(self._initial_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        return logitlab.linear_cross_entropy(
            input,
            self.linear.weight,
            target,
            bias=self.linear.bias,
            temperature=self.temperature,
            class_weight=self.weight,
            label_smoothing=self.label_smoothing,
            ignore_index=self.ignore_index,
            reduction=self.reduction,  # type: ignore[arg-type]
        )

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}, {self._temperature_repr()}"

"""Tables of estimates, as text, data frames, HTML and LaTeX."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from logitlab import _checks
from logitlab.regression.solver import Floats

_MIN_WIDTH = 78  # of the tables of statsmodels
_CELL = 11


def half_width(standard_error: Floats, confidence_level: Any) -> Floats:
    """Return half of the width of the normal confidence interval."""
    from scipy.stats import norm

    level = _checks.between_0_and_1(confidence_level, "confidence_level")
    return np.asarray(norm.isf((1 - level) / 2) * standard_error)


@dataclass(frozen=True, kw_only=True)
class EstimateTable:
    """Estimates by class and name, with tests and confidence intervals.

    Arrays have a row for each of `classes` and a column for each of `names`. It prints as a table.

    Attributes
    ----------
    classes, names : list of labels, list of str
        The classes, and the names of the columns.
    p_value, lower, upper : numpy.ndarray
        The p-value of a test, and the bounds of the confidence interval.
    confidence_level : float
        Confidence level of the intervals.
    response : str
        The name of y.
    """

    _TITLE: ClassVar[str]
    _ESTIMATE: ClassVar[tuple[str, str]]  # the attribute, and the title of its column
    _TEST: ClassVar[dict[str, str]] = {"p_value": "p"}  # the columns between it and the interval

    classes: list[Any]
    names: list[str]
    p_value: Floats
    lower: Floats
    upper: Floats
    confidence_level: float
    response: str

    def _statistics(self) -> dict[str, Floats]:
        names = (self._ESTIMATE[0], *self._TEST, "lower", "upper")
        return {name: getattr(self, name) for name in names}

    def _titles(self) -> list[str]:
        tail = (1 - self.confidence_level) / 2
        return [self._ESTIMATE[1], *self._TEST.values(), f"[{tail:.4g}", f"{1 - tail:.4g}]"]

    def _header(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return names and values of the box above the table: its left and its right column."""
        return [("Dep. Variable", self.response)], []

    def to_frame(self) -> Any:
        """Return a pandas data frame with a row for each class and name."""
        import pandas as pd

        index = pd.MultiIndex.from_product([self.classes, self.names], names=["class", "name"])
        columns = {name: values.ravel() for name, values in self._statistics().items()}
        return pd.DataFrame(columns, index=index)

    def _cells(self) -> list[list[list[str]]]:
        """Return the numbers as text, by class, name and statistic."""
        return [
            [[_text(key, float(v[k, j])) for key, v in self._statistics().items()] for j in columns]
            for k in range(len(self.classes))
            if (columns := range(len(self.names)))
        ]

    def _text_frame(self) -> Any:
        import pandas as pd

        index = pd.MultiIndex.from_product(
            [[f"{self.response}={label}" for label in self.classes], self.names]
        )
        rows = [row for of_class in self._cells() for row in of_class]
        return pd.DataFrame(rows, index=index, columns=self._titles())

    def to_html(self) -> str:
        """Return the table as HTML; names are escaped. It needs pandas."""
        import pandas as pd

        header = pd.DataFrame([pair for part in self._header() for pair in part])
        with pd.option_context("display.max_colwidth", None):
            return "\n".join(
                [
                    header.to_html(index=False, header=False, border=0),
                    self._text_frame().to_html(border=0),
                ]
            )

    def to_latex(self) -> str:
        """Return the table of the estimates as LaTeX; names are escaped.

        It needs pandas and jinja2, and the document the package booktabs.
        """
        latex: str = self._text_frame().to_latex(
            escape=True,
            multirow=False,
            caption=self._TITLE,
            column_format="ll" + "r" * len(self._titles()),
        )
        return latex.replace("P>|z|", "$P>|z|$")

    def _repr_html_(self) -> str:
        return self.to_html()

    def __str__(self) -> str:
        titles = [f"{self.response}={label}" for label in self.classes]
        width = max(len(name) for name in [*self.names, *titles])
        numbers = len(self._titles()) * _CELL
        width = max(width, _MIN_WIDTH - numbers)
        total = width + numbers
        lines = [self._TITLE.center(total).rstrip(), "=" * total, *_box(*self._header(), total)]
        columns = "".join(f"{title:>{_CELL}}" for title in self._titles())
        for i, (title, rows) in enumerate(zip(titles, self._cells(), strict=True)):
            lines.append(("-" if i else "=") * total)
            lines += [f"{title:>{width}}{columns}", "-" * total]
            for name, cells in zip(self.names, rows, strict=True):
                lines.append(f"{name:<{width}}" + "".join(f"{cell:>{_CELL}}" for cell in cells))
        return "\n".join([*lines, "=" * total])


def _text(statistic: str, value: float) -> str:
    """Return four significant digits, three of z and of p-values."""
    if statistic == "z":
        return f"{value:.3f}"
    return f"{value:.3g}" if statistic == "p_value" else f"{value:.4g}"


def _box(left: list[tuple[str, str]], right: list[tuple[str, str]], total: int) -> list[str]:
    """Return lines of names and values in two columns."""
    gap, lines = 3, []
    half = (total - gap) // 2
    for i in range(max(len(left), len(right))):
        cells = []
        for part, width in ((left, half), (right, total - gap - half)):
            name, value = part[i] if i < len(part) else ("", "")
            label = f"{name}:" if name else ""
            cells.append(f"{label}{value:>{max(width - len(label), 0)}}")
        lines.append((" " * gap).join(cells).rstrip())
    return lines


@dataclass(frozen=True, kw_only=True)
class NormalTable(EstimateTable):
    """Estimates by class and name, with normal errors.

    Attributes
    ----------
    standard_error, z, p_value : numpy.ndarray
        The standard error of the estimate, z and its two-sided p-value under the normal
        distribution.
    """

    _TEST: ClassVar[dict[str, str]] = {"standard_error": "std err", "z": "z", "p_value": "P>|z|"}

    standard_error: Floats
    z: Floats

    @classmethod
    def normal(
        cls, estimate: Floats, standard_error: Floats, confidence_level: Any, **fields: Any
    ) -> Self:
        """Return the table of estimates with normal errors."""
        from scipy.stats import norm

        half = half_width(standard_error, confidence_level)
        with np.errstate(divide="ignore", invalid="ignore"):  # an effect may be 0 by definition
            z = estimate / standard_error
        return cls(
            standard_error=standard_error,
            z=z,
            p_value=2 * norm.sf(abs(z)),
            lower=estimate - half,
            upper=estimate + half,
            confidence_level=float(confidence_level),
            **fields | {cls._ESTIMATE[0]: estimate},
        )


@dataclass(frozen=True, kw_only=True)
class Summary(NormalTable):
    """Coefficients relative to a base class, with standard errors and confidence intervals.

    It prints as a table in the layout of statsmodels.

    Attributes
    ----------
    coef : numpy.ndarray
        The coefficient less that of the base class.
    base : label
        The base class.
    cov_type, groups : str, int or None
        The covariance of the coefficients, and the number of clusters.
    method : str
        ``"MLE"``, or ``"Firth"``. The log-likelihood is without penalty in both.
    rows : float
        The sum of the weights.
    parameters, df_model : int
        Number of parameters, and of those that the null model does not have.
    log_likelihood, null_log_likelihood, llr_p_value : float
        Of the model, of the null model, and of their likelihood-ratio test.
    pseudo_r2, aic, bic : float
        McFadden's pseudo R², and the information criteria.
    """

    _TITLE: ClassVar[str] = "Softmax Regression Results"
    _ESTIMATE: ClassVar[tuple[str, str]] = ("coef", "coef")

    coef: Floats
    base: Any
    cov_type: str
    method: str = "MLE"
    groups: int | None
    rows: float
    parameters: int
    df_model: int
    log_likelihood: float
    null_log_likelihood: float
    llr_p_value: float
    pseudo_r2: float
    aic: float
    bic: float

    def _header(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        left = [
            ("Dep. Variable", self.response),
            ("Base Class", str(self.base)),
            ("Model", "Softmax regression"),
            ("Method", self.method),
            ("Covariance Type", self.cov_type),
            ("AIC", f"{self.aic:.5g}"),
            ("BIC", f"{self.bic:.5g}"),
        ]
        right = [
            ("No. Observations", f"{self.rows:.12g}"),
            ("Df Residuals", f"{self.rows - self.parameters:.12g}"),
            ("Df Model", str(self.df_model)),
            ("Pseudo R-squ.", f"{self.pseudo_r2:.4g}"),
            ("Log-Likelihood", f"{self.log_likelihood:.5g}"),
            ("LL-Null", f"{self.null_log_likelihood:.5g}"),
            ("LLR p-value", f"{self.llr_p_value:.4g}"),
        ]
        if self.groups is not None:
            right.append(("Clusters", str(self.groups)))
        return left, right


@dataclass(frozen=True, kw_only=True)
class RelativeRiskRatios(NormalTable):
    r"""Relative risk ratios: the exponentials of the coefficients relative to a base class.

    A unit more of a feature multiplies the ratio of the probabilities of a class and of the base
    class by them (of two classes: odds ratios). The bounds of the intervals are the exponentials
    of those of the coefficients; standard errors come from the delta method; z and p-values test a
    ratio of 1.

    Attributes
    ----------
    ratio : numpy.ndarray
        The ratios.
    base : label
        The base class.
    """

    _TITLE: ClassVar[str] = "Relative Risk Ratios"
    _ESTIMATE: ClassVar[tuple[str, str]] = ("ratio", "ratio")

    ratio: Floats
    base: Any

    def _header(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        return [("Dep. Variable", self.response)], [("Base Class", str(self.base))]

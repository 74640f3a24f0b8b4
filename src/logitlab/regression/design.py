"""The design matrix of a formula: columns of a data frame to features, by formulaic."""

import re
import warnings
from typing import Any

import numpy as np

_NAME = re.compile(r"`([^`]+)`|([^\W\d]\w*)")
_MAX_DENSITY = 0.2  # of stored entries; denser matrices become arrays
_MAX_SHOWN = 5  # levels in a message


def _import_libraries() -> tuple[Any, Any]:
    try:
        import formulaic
        import narwhals
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"formulas need {error.name}, which is not installed; run: "
            "pip install 'logitlab[formula]'",
            name=error.name,
        ) from None
    return formulaic, narwhals


def checked_frame(data: Any) -> Any:
    """Return a narwhals data frame of a pandas, polars or Arrow table."""
    _, nw = _import_libraries()
    try:
        return nw.from_native(data, eager_only=True)
    except TypeError:
        raise TypeError(
            f"data must be a pandas, polars or Arrow table, got {type(data).__name__}"
        ) from None


def _kind(dtype: Any) -> str:
    """Return the words for the type of a column: numbers, booleans, text or another type."""
    if dtype.is_numeric():
        return "numbers"
    name = type(dtype).__name__ if not isinstance(dtype, type) else dtype.__name__
    if name in ("String", "Categorical", "Enum"):
        return "text"
    return {"Boolean": "booleans"}.get(name, name)


def _missing(column: Any) -> int:
    count = column.null_count()
    if column.dtype.is_float() and not count:
        count = column.is_nan().sum()
    return int(count)


class Design:
    """A formula and what it learned from the data of a fit: levels, means and types of columns.

    `response` is the name of the column of labels, `names` are those of the features,
    `fit_intercept` tells whether the formula has an intercept.
    """

    def __init__(self, formula: Any, data: Any) -> None:
        formulaic, _ = _import_libraries()
        if not isinstance(formula, str):
            raise TypeError(f"formula must be a str, got {type(formula).__name__}")
        frame = checked_frame(data)
        self.formula = formula
        try:
            variables = {"__formulaic_variables_available__": list(frame.columns)}
            parsed = formulaic.Formula(formula, _context=variables)
        except formulaic.errors.FormulaicError as error:
            raise ValueError(f"formula {formula!r} cannot be read: {_first_line(error)}") from None
        self.response = self._checked_response(parsed)
        if self.response not in frame.columns:
            raise ValueError(
                f"the response {self.response!r} of the formula is not a column of data, which "
                f"has {', '.join(frame.columns)}"
            )
        factors = [str(factor) for term in parsed.rhs for factor in term.factors]
        # A function may have the name of a column, which is then checked without need.
        used = {name for factor in factors for name in (factor, *_names(factor))}
        self._kinds = {name: _kind(frame[name].dtype) for name in frame.columns if name in used}
        for name, kind in self._kinds.items():
            if kind not in ("numbers", "booleans", "text") and name in factors:
                raise TypeError(
                    f"column {name!r} must hold numbers, booleans or text, got {kind}; make a "
                    f"number of it, or write C({name}) for a level of each value"
                )
        self._spec = formulaic.ModelSpec(
            formula=parsed.rhs, materializer="narwhals", output="sparse", na_action="raise"
        )
        self._spec = self._materialize(frame).model_spec
        columns = self._spec.column_names
        constant = {
            i for term, at in self._spec.term_indices.items() if str(term) == "1" for i in at
        }
        self.fit_intercept = bool(constant)
        self._features = [i for i in range(len(columns)) if i not in constant]
        self.names = [columns[i] for i in self._features]
        if not self.names:
            raise ValueError(f"formula must have terms beside the intercept, got {formula!r}")

    def _checked_response(self, parsed: Any) -> str:
        """Return the name of the response."""
        lhs, rhs = getattr(parsed, "lhs", None), getattr(parsed, "rhs", None)
        if lhs is None or isinstance(lhs, tuple) or isinstance(rhs, tuple) or len(lhs) != 1:
            raise ValueError(
                f"formula must have one response and one sum of terms, as in 'y ~ a + b', got "
                f"{self.formula!r}"
            )
        return str(lhs[0]).strip("`")

    def labels(self, data: Any) -> Any:
        """Return the column of the response as an array."""
        frame = checked_frame(data)
        if self.response not in frame.columns:
            raise ValueError(f"data must have the column {self.response!r} of the response")
        self._check_missing(frame, [self.response])
        return frame[self.response].to_numpy()

    def matrix(self, data: Any) -> Any:
        """Return the features without intercept: a CSR matrix, or an array where few are 0."""
        result = self._materialize(checked_frame(data))
        x = result.__wrapped__.tocsc()[:, self._features]
        finite = np.isfinite(x.data)
        if not finite.all():
            column = np.searchsorted(x.indptr, np.argmin(finite), side="right") - 1
            raise ValueError(
                f"the term {self.names[column]} of the formula must be finite, got "
                f"{x.data[np.argmin(finite)]}"
            )
        x = x.tocsr()
        return x if x.nnz < _MAX_DENSITY * x.shape[0] * x.shape[1] else x.toarray()

    def _materialize(self, frame: Any) -> Any:
        """Return the matrix of formulaic, with the intercept."""
        formulaic, _ = _import_libraries()
        missing = [name for name in self._kinds if name not in frame.columns]
        if missing:
            raise ValueError(
                f"data must have the columns of the formula, got none named {', '.join(missing)}"
            )
        for name, kind in self._kinds.items():
            if (got := _kind(frame[name].dtype)) != kind:
                raise TypeError(f"column {name!r} must hold {kind}, as in the fit, got {got}")
        self._check_missing(frame, self._kinds)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", formulaic.errors.DataMismatchWarning)
                # Formulas see the columns and the functions of formulaic, no other variables.
                return self._spec.get_model_matrix(frame.to_native(), context={})
        except formulaic.errors.DataMismatchWarning as error:
            raise ValueError(self._unknown_levels(frame) or _first_line(error)) from None
        except (formulaic.errors.FormulaicError, ValueError) as error:
            raise ValueError(
                f"formula {self.formula!r} cannot be evaluated on data: {_first_line(error)}"
            ) from None

    def _check_missing(self, frame: Any, names: Any) -> None:
        counts = {name: _missing(frame[name]) for name in names}
        if any(counts.values()):
            text = ", ".join(f"{count} in {name!r}" for name, count in counts.items() if count)
            raise ValueError(
                f"data must not have missing values, got {text} of {len(frame)} rows; drop these "
                "rows or fill the values"
            )

    def _unknown_levels(self, frame: Any) -> str | None:
        """Return the message about levels that the fit had not."""
        for factor, (_, state) in self._spec.encoder_state.items():
            names = _names(factor)
            variables = [name for name in self._kinds if name == factor or name in names]
            if "categories" not in state or len(variables) != 1:
                continue
            known = list(state["categories"])
            values = frame[variables[0]].unique().to_list()
            if unknown := sorted({str(value) for value in values if value not in known}):
                return (
                    f"column {variables[0]!r} must have levels of the fit, {_shown(known)}, got "
                    f"{_shown(unknown)}"
                )
        return None


def _names(expression: str) -> set[str]:
    return {a or b for a, b in _NAME.findall(expression)}


def _shown(levels: list[Any]) -> str:
    text = ", ".join(str(level) for level in levels[:_MAX_SHOWN])
    more = len(levels) - _MAX_SHOWN
    return f"{text} and {more} more" if more > 0 else text


def _first_line(error: Exception) -> str:
    """Return the message of formulaic without the lines that mark the place in colour."""
    return str(error).strip().partition("\n")[0]

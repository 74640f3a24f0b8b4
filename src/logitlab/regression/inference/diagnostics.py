"""Residuals and influence as methods of the estimates."""

from logitlab.regression.inference.estimates import Estimates
from logitlab.regression.inference.influence import Influence, Residuals, influence, residuals
from logitlab.regression.rows import Rows


class RowDiagnostics(Estimates):
    """Estimates with what needs their rows one by one."""

    def residuals(self) -> Residuals:
        """Return the residuals of the rows of the fit, which must be in memory.

        Returns
        -------
        Residuals
            `response` and `pearson` (N, K), `deviance` (N,).
        """
        rows = self._rows_in_memory("residuals")
        return residuals(self._objective, self._theta, rows)

    def influence(self) -> Influence:
        """Return the influence of the rows of the fit, which must be in memory.

        Returns
        -------
        Influence
            `leverage` (N,), `coef_change` and `dfbetas` (N, M, P), `cooks_distance` (N,).
        """
        self._check_maximum_likelihood("influence")
        rows = self._rows_in_memory("influence")
        return influence(self._objective, self._theta, self._others, self._information_root, rows)

    def _check_maximum_likelihood(self, method: str) -> None:
        if self._objective.method != "MLE":
            raise ValueError(
                f"{method} needs a fit without firth, whose coefficients do not maximize the "
                "likelihood; profile_intervals of the estimator tests single coefficients"
            )

    def _rows_in_memory(self, method: str) -> Rows:
        rows = self._objective.engine
        if not isinstance(rows, Rows):
            raise ValueError(f"{method} needs rows in memory, got partitions")
        return rows

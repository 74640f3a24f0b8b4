"""A progress bar for the iterations of a fit."""

import contextlib
import math
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(
    shown: bool, max_iter: int, measure: str
) -> Iterator[Callable[[int, float, float], object]]:
    """Yield a function of iteration, objective and error that updates a progress bar.

    `measure` names the error. The bar is on standard error; where it is not `shown`, the function
    does nothing.
    """
    if not shown:
        yield lambda iteration, value, error: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("fit"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("objective {task.fields[value]:.8f}, " + measure + " {task.fields[error]:.1e}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("fit", total=max_iter, value=math.nan, error=math.nan)
        yield lambda iteration, value, error: bar.update(
            task, completed=iteration, value=value, error=error
        )

"""Python code that computes what the page shows."""

from logitlab._app.explore.state import Row, State


def _number(x: float) -> str:
    return {"inf": "np.inf", "-inf": "-np.inf", "nan": "np.nan"}.get(repr(x), repr(x))


def python_code(state: State, row: Row) -> str:
    """Python code that assigns the probabilities to p, and samples to samples."""
    expression = state.dataset.row_expression if state.typed is None else None
    lines = []
    if expression is not None:
        lines.append(f"z = {expression(row.number)}")
        lines += [f"z[{k}] = {_number(value)}" for k, value in state.edits.items()]
    else:
        values = ", ".join(_number(x) for x in row.z.tolist())
        lines.append(f"z = np.array([{values}])")
    z = "z" if state.scale == 1 else f"{state.scale!r} * z"
    z = z if state.shift == 0 else f"{z} + {state.shift!r}"
    if z != "z":
        lines.append(f"z = {z}")
    temperature = "" if state.temperature == 1 else f", temperature={_number(state.temperature)}"
    truncation = "".join(f", {name}={value!r}" for name, value in state.truncation.items())
    truncated = f"logitlab.truncate(z{temperature}{truncation})" if truncation else "z"
    lines.append(f"p = logitlab.softmax({truncated}{temperature})")
    if state.n_samples:
        options = f"{temperature}{truncation}, rng={state.seed}"
        lines.append(f"samples = logitlab.sample(z, {state.n_samples}{options})")
    return "\n".join(["import numpy as np", "import logitlab", "", *lines])

"""The lines of Python that compute what the page shows."""

from logitlab._app.explore.state import Row, State


def _number(x: float) -> str:
    return {"inf": "np.inf", "-inf": "-np.inf", "nan": "np.nan"}.get(repr(x), repr(x))


def program(state: State, row: Row) -> str:
    """A program that leaves the probabilities in p, and what was drawn in draws."""
    code = state.rows.code if state.typed is None else None
    lines = []
    if code is not None:
        lines.append(f"z = {code(row.number)}")
        lines += [f"z[{k}] = {_number(value)}" for k, value in state.edits.items()]
    else:
        values = ", ".join(_number(x) for x in row.z.tolist())
        lines.append(f"z = np.array([{values}])")
    z = "z" if state.scale == 1 else f"{state.scale!r} * z"
    z = z if state.shift == 0 else f"{z} + {state.shift!r}"
    if z != "z":
        lines.append(f"z = {z}")
    heat = "" if state.temperature == 1 else f", temperature={_number(state.temperature)}"
    cut = "".join(f", {name}={value!r}" for name, value in state.truncation.items())
    kept = f"logitlab.truncate(z{heat}{cut})" if cut else "z"
    lines.append(f"p = logitlab.softmax({kept}{heat})")
    if state.draws:
        lines.append(f"draws = logitlab.sample(z, {state.draws}{heat}{cut}, rng={state.seed})")
    return "\n".join(["import numpy as np", "import logitlab", "", *lines])

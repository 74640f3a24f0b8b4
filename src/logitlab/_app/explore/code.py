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
    settings = {"temperature": state.temperature} if state.temperature != 1 else {}
    options = {
        name: _number(x) if isinstance(x, float) else repr(x)
        for name, x in {**settings, **state.truncation}.items()
    }
    truncated, samples = "z", "logitlab.sample(z, "
    keywords = "".join(f", {name}={x}" for name, x in options.items())
    if state.truncation:
        lines.append(f"sampler = logitlab.Sampler({keywords[2:]})")
        truncated, samples, keywords = "sampler.truncate(z)", "sampler.sample(z, ", ""
    t, note = row.temperature, ""
    if t != state.temperature:
        note = "  # the dynamic temperature of this row"
    temperature = "" if t == 1 else f", temperature={_number(t)}"
    lines.append(f"p = logitlab.softmax({truncated}{temperature}){note}")
    if state.n_samples:
        lines.append(f"samples = {samples}{state.n_samples}{keywords}, rng={state.seed})")
    return "\n".join(["import numpy as np", "import logitlab", "", *lines])

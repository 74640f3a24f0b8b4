"""Several models on the same labels: which one is best, and on which rows."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app
from logitlab._app.io.source import UserError, in_memory
from logitlab._app.report.analysis import analyse
from logitlab._app.report.compare import compare, headline, shared_rows
from logitlab._app.report.evaluation import excludes_zero

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_figures")]

UNDECIDED = "No significant difference in log-loss"
UNDECIDED_OF_MANY = "No model has a significantly smaller log-loss than all others"


def calibrated_model(n=400, k=4, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, k)) * 2
    return z, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


def compared(y, **logits):
    """The models with these names and logits."""
    return compare([analyse(in_memory(name, z), y) for name, z in logits.items()])


def test_best_model():
    """A model is called best if its difference from every other is significant."""
    z, y = calibrated_model()
    similar = z + 0.01 * np.random.default_rng(1).standard_normal(z.shape)
    heading, text = headline(compared(y, worst=3 * z, second=similar, best=z))
    assert heading == UNDECIDED_OF_MANY
    significant, not_significant = text[text.index("Differences from best: ") :].split("), ")
    assert "worst +0." in significant
    assert "not significant" not in significant
    assert not_significant.startswith("second +0.0")
    assert not_significant.endswith(", not significant).")
    assert headline(compared(y, second=similar, best=z))[0] == UNDECIDED
    heading, text = headline(compared(y, worst=3 * z, best=z))
    assert heading == "best has the smallest log-loss"
    assert "not significant" not in text
    heading, _ = headline(compared(y, best=z, worst=3 * z, worse=z / 3))
    assert heading == "best has the smallest log-loss"
    scaled = compared(y, one=z, same=2 * z)[1].calibrated_differences
    assert not excludes_zero(scaled["log_loss"])
    heading, text = headline(compared(y, one=z, same=z))
    assert heading == UNDECIDED
    assert "same 0.0000 (95 % interval 0.0000 to 0.0000, not significant)" in text


def test_infinite_log_losses():
    """A finite log-loss is smaller than an infinite one; two infinite ones do not differ."""
    z, y = calibrated_model()
    excluded = z.copy()
    excluded[5, y[5]] = -np.inf
    heading, text = headline(compared(y, a=excluded, b=z))
    assert heading == "b has the smallest log-loss"
    assert text.endswith("Differences from b: a +∞.")
    heading, text = headline(compared(y, a=excluded, b=excluded))
    assert heading == UNDECIDED
    assert text.endswith("gives probability 0 to the true class of some row.")


def test_names_with_commas():
    """Names are printed unchanged."""
    z, y = calibrated_model()
    models = compared(y, **{"run-1,5.npy": z, "run-2.npy": 3 * z})
    assert "run-1,5.npy" in headline(models)[1]
    assert "run-2.npy" in headline(models)[1]


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["a/z.npy", "a/w.npy"], ["z.npy", "w.npy"]),
        (["a/z.npy", "b/z.npy"], ["a/z.npy", "b/z.npy"]),
        (["z.npy", "z.npy", "w.npy"], ["z.npy (1)", "z.npy (2)", "w.npy (3)"]),
    ],
)
def test_names_are_distinct(sources, names):
    """File names, whole paths, or numbered file names."""
    z, y = calibrated_model()
    assert [m.name for m in compare([analyse(in_memory(s, z), y) for s in sources])] == names


def test_shared_rows(tmp_path):
    """A row without a distribution in one model is excluded from all."""
    z, y = calibrated_model()
    gaps = z + 0.3 * np.eye(4)[y]
    gaps[:150, 0] = np.nan
    gaps[150] = -np.inf
    z[399] = np.nan
    np.save(tmp_path / "a.npy", z)
    np.save(tmp_path / "b.npy", gaps)
    np.save(tmp_path / "y.npy", y)
    files = [str(tmp_path / name) for name in ("a.npy", "b.npy")]
    arguments = ["report", *files, "--labels", str(tmp_path / "y.npy"), "-o", str(tmp_path / "o")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    values = json.loads((tmp_path / "o" / "report.json").read_text("utf-8"))
    rows = slice(151, 399)
    for model, logits in zip(values["models"], (z, gaps), strict=True):
        assert model["evaluated_rows"] == 248
        assert model["log_loss"] == pytest.approx(logitlab.cross_entropy(logits[rows], y[rows]))
    assert values["models"][0]["input_summary"]["unpaired_rows"] == 151
    expected = logitlab.bootstrap(gaps[rows], y[rows], other=z[rows])["log_loss"]
    assert values["differences_from_first"][1]["log_loss"][0] == pytest.approx(expected.value)
    page = (tmp_path / "o" / "report.html").read_text("utf-8")
    assert "152 of 400 rows are excluded: in at least one model" in page
    sources = [in_memory("a", z), in_memory("b", np.full((400, 4), np.nan))]
    with pytest.raises(UserError, match="every row is NaN or all -inf in some model"):
        shared_rows(sources, False, lambda chunks, _rows, _what: chunks)

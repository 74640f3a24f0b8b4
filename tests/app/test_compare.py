"""Several models on the same labels: what is said of the winner, and on which rows."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app
from logitlab._app.io.source import UserError, in_memory
from logitlab._app.report import figures
from logitlab._app.report.analysis import analyse
from logitlab._app.report.compare import clear, compare, headline, shared_rows


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """They take most of the time, and these tests are about figures."""
    monkeypatch.setattr(figures, "svg", lambda draw, **_: "<svg></svg>")


def models(n=400, k=4, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, k)) * 2
    return z, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


def of(y, **logits):
    return compare([analyse(in_memory(name, z), y) for name, z in logits.items()])


def test_the_winner_beats_every_other():
    """Not only the first one."""
    z, y = models()
    noise = np.random.default_rng(1).standard_normal(z.shape)
    word, text = headline(of(y, worst=3 * z, second=z + 0.01 * noise, best=z))
    assert word == "No clear winner"
    assert "leads second by 0.0" in text
    assert "worst by" not in text
    word, text = headline(of(y, worst=3 * z, best=z))
    assert word == "best has the smallest log-loss"
    word, _ = headline(of(y, best=z, worst=3 * z, worse=z / 3))
    assert word == "best has the smallest log-loss"
    assert not clear(of(y, one=z, same=2 * z)[1].calibrated_differences["log_loss"])
    word, text = headline(of(y, one=z, same=z))
    assert word == "No clear winner"
    assert text.endswith("one and same have the same log-loss.")
    word, text = headline(of(y, one=z, same=z, other=z + 0.01 * noise))
    assert word == "No clear winner"
    assert "one and same have the same log-loss. one leads other by 0.0" in text


def test_infinite_log_losses():
    """A finite one wins; of none nothing is said."""
    z, y = models()
    hopeless = z.copy()
    hopeless[5, y[5]] = -np.inf
    word, text = headline(of(y, a=hopeless, b=z))
    assert word == "b has the smallest log-loss"
    assert text.endswith("It leads a, whose log-loss is infinite.")
    assert headline(of(y, a=hopeless, b=hopeless))[1].endswith(
        "gives some label the probability 0."
    )


def test_names_are_left_as_they_are():
    z, y = models()
    models_ = of(y, **{"run-1,5.npy": z, "run-2.npy": 3 * z})
    assert "run-1,5.npy" in headline(models_)[1]
    assert "run-2.npy" in headline(models_)[1]


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["a/z.npy", "a/w.npy"], ["z.npy", "w.npy"]),
        (["a/z.npy", "b/z.npy"], ["a/z.npy", "b/z.npy"]),
        (["z.npy", "z.npy", "w.npy"], ["z.npy (1)", "z.npy (2)", "w.npy (3)"]),
    ],
)
def test_every_model_has_a_name_of_its_own(sources, names):
    """Its file's, where that tells it from the others."""
    z, y = models()
    assert [m.name for m in compare([analyse(in_memory(s, z), y) for s in sources])] == names


def test_models_are_compared_on_the_rows_of_all(tmp_path):
    """A row without a distribution in one model is left out of all."""
    z, y = models()
    gaps = z + 0.3 * np.eye(4)[y]
    gaps[:150, 0] = np.nan
    gaps[150] = -np.inf
    z[399] = np.nan
    np.save(tmp_path / "a.npy", z)
    np.save(tmp_path / "b.npy", gaps)
    np.save(tmp_path / "y.npy", y)
    files = [str(tmp_path / name) for name in ("a.npy", "b.npy")]
    arguments = ["report", *files, "--labels", str(tmp_path / "y.npy"), "-o", str(tmp_path / "o")]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "o" / "report.json").read_text("utf-8"))
    rows = slice(151, 399)
    for model, logits in zip(found["models"], (z, gaps), strict=True):
        assert model["judged_rows"] == 248
        assert model["log_loss"] == pytest.approx(logitlab.cross_entropy(logits[rows], y[rows]))
    assert found["models"][0]["unshared_rows"] == 151
    expected = logitlab.bootstrap(gaps[rows], y[rows], other=z[rows])["log_loss"]
    assert found["differences_from_first"][1]["log_loss"][0] == pytest.approx(expected.value)
    page = (tmp_path / "o" / "report.html").read_text("utf-8")
    assert "152 of 400 rows are left out of all figures" in page
    sources = [in_memory("a", z), in_memory("b", np.full((400, 4), np.nan))]
    with pytest.raises(UserError, match="no row has a distribution in every model"):
        shared_rows(sources, False, lambda chunks, _rows, _what: chunks)

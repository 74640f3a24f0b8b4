"""`logitlab report` on language models: target tokens, nucleus sizes, entropy over steps."""

import numpy as np
import pytest
from reports import report

import logitlab
from logitlab._app.report.language_model import TEMPERATURES, EntropyOverSteps, nucleus_sizes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_figures")]


def test_target_tokens(tmp_path):
    """Log-probabilities and ranks of the tokens, and the perplexity with its interval."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((500, 50)).astype(np.float32) * 3
    tokens = (z + rng.gumbel(size=z.shape)).argmax(1)
    np.savez(tmp_path / "f.npz", z=z, t=tokens)
    text = report(tmp_path, f"{tmp_path}/f.npz:z", "--targets", f"{tmp_path}/f.npz:t")["text"]
    log_p = logitlab.log_softmax(z.astype(float))[np.arange(500), tokens]
    value, low, high = text["perplexity"]
    assert value == pytest.approx(np.exp(-log_p.mean()), rel=1e-9)
    assert low < value < high
    rows = (tmp_path / "out" / "tokens.csv").read_text().split()
    assert rows[0] == "row,token,log_probability,rank"
    found = np.array([row.split(",") for row in rows[1:]], float)
    np.testing.assert_allclose(found[:, 2], log_p, rtol=1e-9)
    np.testing.assert_array_equal(found[:, 3], 1 + (z > z[np.arange(500), tokens][:, None]).sum(1))
    assert text["least_probable_tokens"][0]["row"] == log_p.argmin()
    assert "Perplexity" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_nucleus_sizes():
    """The number of classes that top-p keeps."""
    z = np.log(np.array([[0.5, 0.3, 0.15, 0.05], [0.97, 0.01, 0.01, 0.01]]))
    sizes = nucleus_sizes(z)
    assert sizes[:, TEMPERATURES.index(1.0)].tolist() == [[3, 1], [3, 1]]
    assert (np.diff(sizes, axis=1) >= 0).all()
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((5, 300))
    kept = logitlab.truncate(wide, top_p=0.9)
    assert (
        nucleus_sizes(wide)[0, TEMPERATURES.index(1.0)].tolist()
        == np.isfinite(kept).sum(1).tolist()
    )


def test_entropy_over_steps():
    """The mean of each window of steps."""
    over = EntropyOverSteps((2, 400, 7))
    values = np.random.default_rng(0).random(800)
    over.add(np.arange(500), values[:500])
    over.add(np.arange(500, 800), values[500:])
    steps, means = over.curve()
    np.testing.assert_allclose(means, values.reshape(2, 200, 2).mean(axis=(0, 2)))
    np.testing.assert_allclose(steps, np.arange(200) * 2 + 0.5)


def test_nucleus_of_sampled_rows(tmp_path):
    """A random sample, not the first rows; page and JSON have the same median."""
    z = np.zeros((1000, 11))
    z[:200, 0] = 50
    z[:, 6:] -= 100 * (np.arange(1000) % 2)[:, None]
    np.save(tmp_path / "z.npy", z)
    found = report(tmp_path, tmp_path / "z.npy")["median_nucleus_size"]["0.9"]["1"]
    assert found > 5
    np.save(tmp_path / "z.npy", z[200:202])
    found = report(tmp_path, tmp_path / "z.npy")["median_nucleus_size"]["0.9"]["1"]
    assert found == 8
    np.save(tmp_path / "z.npy", z[[0, 201]])
    found = report(tmp_path, tmp_path / "z.npy")["median_nucleus_size"]["0.9"]["1"]
    assert found == 3.5
    assert "<tr><th>1</th><td>3.5</td><td>6</td>" in (tmp_path / "out/report.html").read_text()

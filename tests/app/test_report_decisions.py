"""The section of the report on decisions: accepted rows and sizes of sets, with intervals."""

import numpy as np
import pytest
from reports import report

import logitlab
from logitlab._app.report.decisions import COVERAGES, MAX_ERRORS, decisions

pytestmark = pytest.mark.slow


def rows(n=4000, k=4):
    """Calibrated logits with many confident rows."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 6, (n, k))
    return z, (z + rng.gumbel(size=z.shape)).argmax(1)


def folds(n):
    return np.arange(n) % 2


def test_values_are_those_of_the_library():
    z, y = rows()
    fold = folds(len(y))
    found = decisions(np.arange(len(y)), z, y, fold, (2.0, 2.0))
    assert found.rows == len(y)
    for a, max_error in zip(found.accepted, MAX_ERRORS, strict=True):
        classifier = logitlab.SelectiveClassifier(max_error).fit(z / 2, y)
        assert (a.share.value, a.error) == (classifier.coverage_, classifier.error_)
        assert a.share.low < a.share.value < a.share.high
        assert a.error <= max_error
    assert [a.share.value for a in found.accepted] == sorted(a.share.value for a in found.accepted)
    for s, coverage in zip(found.sets, COVERAGES, strict=True):
        sizes = [
            logitlab.ConformalSets(coverage)
            .fit(z[fold != half] / 2, y[fold != half])
            .set_sizes(z[fold == half] / 2)
            for half in (0, 1)
        ]
        assert s.size.value == pytest.approx(np.concatenate(sizes).mean())
        assert s.size.low < s.size.value < s.size.high


def test_rows_keep_their_labels():
    """A sample of the rows, in any order, has the labels and the halves of its numbers."""
    z, y = rows()
    chosen = np.random.default_rng(1).permutation(len(y))[:1000]
    found = decisions(chosen, z[chosen], y, folds(len(y)), None)
    again = decisions(np.arange(1000), z[chosen], y[chosen], folds(len(y))[chosen], None)
    assert found == again


def test_nothing_is_accepted_of_labels_by_chance():
    z, _ = rows()
    y = np.random.default_rng(2).integers(0, 4, len(z))
    found = decisions(np.arange(len(y)), z, y, folds(len(y)), None)
    assert [a.share.value for a in found.accepted] == [0, 0, 0]
    assert np.isnan([a.share.low for a in found.accepted]).all()
    assert decisions(np.arange(10), z[:10], y, folds(len(y)), None) is None


def test_section_of_the_page(tmp_path):
    z, y = rows()
    np.savez(tmp_path / "data.npz", z=z, y=y)
    data = tmp_path / "data.npz"
    values = report(tmp_path, f"{data}:z", "--labels", f"{data}:y")["decisions"]
    assert [a["max_error"] for a in values["accepted"]] == list(MAX_ERRORS)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Rows that can be decided automatically" in page
    assert f"<td>{100 * values['accepted'][2]['share']:.1f} %</td>" in page
    assert f"<td>{values['prediction_sets'][2]['mean_size']:.2f}</td>" in page
    np.savez(data, z=z[:30], y=y[:30])
    assert report(tmp_path, f"{data}:z", "--labels", f"{data}:y")["decisions"] is None
    assert "Decisions" not in (tmp_path / "out" / "report.html").read_text("utf-8")

"""Every picture of the gallery, against the one that is kept, and what a picture must not do."""

import importlib.util
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images

import logitlab
from logitlab import plot
from logitlab.plot.stability import worst_errors

DOCS = Path(__file__).parent.parent / "docs"
TOLERANCE = 4  # root mean square of 255: what another build of the fonts may change
Z = [2.0, 1.0, 3.0, 5.0, 4.0]


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("gallery", DOCS / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def axes():
    return Figure(layout="constrained").add_subplot()


def test_the_gallery(gallery, tmp_path):
    """The pictures are those that the page shows, none is left over, and no setting has changed."""
    before = dict(mpl.rcParams)
    shown = set()
    for place, figure in gallery.pictures():
        drawn = tmp_path / Path(place).name
        figure.savefig(drawn)
        differs = compare_images(str(DOCS / place), str(drawn), TOLERANCE)
        assert differs is None, differs
        shown.add(DOCS / place)
    assert shown == set((DOCS / "gallery").glob("*.png"))
    assert dict(mpl.rcParams) == before


def test_the_gallery_test_can_fail(tmp_path):
    """A logit that is half a unit off is seen."""
    for name, z in (("a", Z), ("b", [2.0, 1.0, 3.5, 5.0, 4.0])):
        figure = Figure(figsize=(6, 4), dpi=100, layout="constrained")
        plot.probabilities(z, ax=figure.add_subplot())
        figure.savefig(tmp_path / f"{name}.png")
    assert compare_images(str(tmp_path / "a.png"), str(tmp_path / "b.png"), TOLERANCE)


SETTINGS = {
    "probabilities": lambda ax: plot.probabilities(Z, ax=ax),
    "scaling": lambda ax: plot.scaling(Z, 0.1, ax=ax),
    "sampling": lambda ax: plot.sampling(Z, 100, ax=ax),
    "temperature_curves": lambda ax: plot.temperature_curves(Z, ax=ax),
    "simplex": lambda ax: plot.simplex([1, 2, 3], ax=ax),
    "stability": lambda ax: plot.stability(Z, [1, 100], ax=ax),
    "jacobian": lambda ax: plot.jacobian(Z, ax=ax),
    "reliability": lambda ax: plot.reliability([[0.0, 1], [3, 1], [2, 1]], [1, 0, 1], ax=ax),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_picture_takes_the_axes_and_the_style_it_is_given(name):
    """It returns the very axes, labels them, and uses no colour but the style's and greys."""
    style = {"text.color": "#112233", "axes.labelcolor": "#112233"}
    with mpl.rc_context({**style, "axes.prop_cycle": mpl.cycler(color=["#0a0b0c", "#0d0e0f"])}):
        ax = axes()
        assert SETTINGS[name](ax) is ax
        if name != "simplex":
            assert ax.get_xlabel()
            assert ax.get_ylabel()
        colours = {to_hex(line.get_color()) for line in ax.lines}
        colours |= {to_hex(bar.get_facecolor()) for bar in ax.patches}
    grey = {to_hex("0.5"), to_hex("none")}
    assert all(max(mpl.colors.to_rgb(c)) < 0.1 for c in colours - grey), colours


def test_a_new_figure_is_a_vector_picture():
    """Without axes, a figure of pyplot's that a notebook shows as SVG."""
    from matplotlib import pyplot

    with mpl.rc_context({"backend": "agg"}):
        figure = plot.probabilities(Z).figure
        assert figure.number in pyplot.get_fignums()
        assert figure._repr_svg_().startswith("<svg")
        pyplot.close(figure)


def test_many_classes_are_cut_and_said():
    """The most probable ones are drawn, with their names, and the number of the others."""
    z = np.arange(100.0)
    ax = plot.probabilities(z, names=[f"n{k}" for k in range(100)], ax=axes())
    p = logitlab.softmax(z)
    assert [bar.get_height() for bar in ax.patches] == list(p[:-21:-1])
    assert ax.get_xticklabels()[0].get_text() == "n99"
    assert "80" in ax.get_xlabel()


def test_ranks_follow_the_logits_ties_and_a_negative_temperature():
    """Equal logits share a rank; below T = 0 the smallest logit comes first."""

    def ranks(**options):
        ax = plot.probabilities([1.0, 3.0, 3.0, 2.0], ax=axes(), **options)
        return [text.get_text().split("#")[1] for text in ax.texts]

    assert ranks() == ["4", "1", "1", "3"]
    assert ranks(temperature=-1.0) == ["1", "3", "3", "2"]
    excluded = plot.probabilities([-np.inf, 1.0, 2.0], temperature=-1.0, ax=axes())
    assert [text.get_text() for text in excluded.texts] == ["0 %\n#3", "73 %\n#1", "27 %\n#2"]


@pytest.mark.parametrize("c", [10, 1e-310, 0, -0.0, -2, 0.3])
@pytest.mark.parametrize("z", [[1e308, -1e308, 0.0], [-np.inf, 1.0, 2.0], [1e300, 0.0, 1e300]])
def test_a_scale_is_a_temperature(z, c):
    """No product c z overflows, and what is excluded stays so at any c."""
    ax = plot.scaling(z, c, ax=axes())
    after = [bar.get_height() for bar in ax.patches][3:]
    np.testing.assert_array_equal(after, logitlab.softmax(z, temperature=1 / c if c else np.inf))


def test_a_jacobian_of_many_classes():
    """Entries of the classes drawn, those of the whole matrix."""
    z = np.random.default_rng(0).normal(size=200)
    block = plot.jacobian(z, temperature=2.0, ax=axes()).images[0].get_array()
    top = np.argsort(-z)[:20]
    whole = logitlab.jacobian(z, temperature=2.0)
    np.testing.assert_allclose(block, whole[np.ix_(top, top)], rtol=1e-12)


def test_error_bars_cover_what_was_to_be_expected():
    """Of 300 frequencies about 95 % have the probability within their bar."""
    covered = []
    for seed in range(60):
        ax = plot.sampling(Z, 10_000, rng=seed, ax=axes())
        bars = ax.collections[-1].get_segments()
        p = logitlab.softmax(Z)
        covered += [low[1] <= p[k] <= high[1] for k, (low, high) in enumerate(bars)]
    assert 0.91 < np.mean(covered) < 0.985


def test_the_way_through_the_simplex():
    """It begins in the corner of the largest logit and ends in the centre."""
    way = max((line.get_xydata() for line in plot.simplex([0, 9, 3], ax=axes()).lines), key=len)
    np.testing.assert_allclose(way[0], [1, 0])
    np.testing.assert_allclose(way[-1], [0.5, 3**0.5 / 6])


def test_the_way_of_the_largest_logits():
    """From the corner of the largest to the centre, where their spread overflows."""
    lines = plot.simplex([-1e308, 1e308, 0.0], ax=axes()).lines
    path = max((line.get_xydata() for line in lines), key=len)
    np.testing.assert_allclose(path[[0, -1]], [[1, 0], [0.5, 3**0.5 / 6]])


def test_stability_tells_where_the_formula_fails():
    """NaN from the scale on at which exp overflows, and never for logitlab."""
    z = np.array([1.0, 2, 3, 4, 5])
    scales = np.array([1.0, 17, 18, 1000, 20_000])
    found = worst_errors(z, scales)
    single = found["float32", "exp(z) / Σ"]
    assert np.isfinite(single).tolist() == [True, True, False, False, False]  # exp(88.7) is the end
    assert np.isinf(found["float64", "exp(z) / Σ"]).tolist() == [False, False, False, True, True]
    assert np.isnan(found["float16", "logitlab"]).tolist() == [False] * 4 + [True]
    for (_, formula), worst in found.items():
        assert formula != "logitlab" or not (worst > 4).any()
    # Wrong before it overflows: the sum of 3000 small terms in a half type.
    assert worst_errors(np.zeros(3000), np.ones(1))["bfloat16", "exp(z) / Σ"][0] > 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot.probabilities([[1.0, 2.0]]), r"z has shape \(1, 2\)"),
        (lambda: plot.probabilities([1.0, 2.0], names=["a"]), "names has 1 entries"),
        (lambda: plot.probabilities([1.0, np.nan]), "z has no distribution"),
        (lambda: plot.stability([1.0, np.inf]), "z holds inf"),
        (lambda: plot.stability([1.0, 2.0], [0]), "scales is"),
        (lambda: plot.scaling([1.0, 2.0], np.nan), "c must be a finite number, got nan"),
        (lambda: plot.simplex([1.0, 2.0]), "z has 2 classes; accepted: 3"),
        (lambda: plot.temperature_curves([1.0, 2.0], [0, 1]), "temperatures is"),
        (lambda: plot.jacobian([1.0, 2.0], temperature=0), "temperature"),
        (
            lambda: plot.reliability([[1.0, 2.0]], [0], temperature=0),
            "temperature must be positive, finite, got 0",
        ),
        (lambda: plot.reliability([[1.0, 2.0]], [0], ax="a"), "ax is a str; accepted: matplotlib"),
        (lambda: plot.reliability_diagram(3), "curve is a int; accepted: what"),
        (lambda: plot.temperature_sweep(3), "sweep is a int; accepted: what"),
        (lambda: plot.scaling([1.0, 2.0], "a"), "c must be a real number, got 'a'"),
        (lambda: plot.stability([1.0, 2.0], "a"), "scales must be a real array"),
        (lambda: plot.temperature_curves([1.0, 2.0], []), r"temperatures is \[\]"),
        (lambda: plot.class_gaps(["a", "b"], [1.0], [1.0, 2.0]), "gap must be a list of 2 numbers"),
        (
            lambda: plot.class_gaps(["a"], [1.0], [1.0, 2.0]),
            "half_width must be a list of 1 numbers",
        ),
        (lambda: plot.outcome_bars(["a"], [1.0, 0.0], [1.0]), "p must be a list of 1 numbers"),
        (lambda: plot.outcome_bars(["a"], [1.0], ["b"]), "frequencies must be a real array"),
        (lambda: plot.over_time([0, 1], [1.0]), "values must be a list of 2 numbers"),
        (
            lambda: plot.temperature_summary([1, 2], [1.0], [1, 1]),
            "entropy_share must be a list of 2",
        ),
        (lambda: plot.temperature_summary([1, 2], [1, 1], [1.0]), "top must be a list of 2"),
        (lambda: plot.distribution([0, 1, 2], [1], mean=0.5), "counts must be a list of 2"),
        (lambda: plot.distribution([0], [], mean=0.5), "edges has 1 numbers"),
    ],
)
def test_refusals(call, message):
    """One clear error, before a figure is made."""
    from matplotlib import pyplot

    with pytest.raises((TypeError, ValueError), match=message):
        call()
    assert pyplot.get_fignums() == []

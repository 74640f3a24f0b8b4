"""Plots: the gallery against its stored images, the axes and styles, the values shown, errors."""

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
from logitlab.plot.stability import max_ulp_errors

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parent.parent / "docs"
TOLERANCE = 4  # root mean square difference of 255 levels, for other builds of the fonts
Z = [2.0, 1.0, 3.0, 5.0, 4.0]
ROW = [1.0, 2.0]


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("gallery", DOCS / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def axes():
    return Figure(layout="constrained").add_subplot()


def test_gallery(gallery, tmp_path):
    """The stored images are up to date, none is unused, and no matplotlib setting has changed."""
    before = dict(mpl.rcParams)
    shown = set()
    for path, figure in gallery.figures():
        image = tmp_path / Path(path).name
        figure.savefig(image)
        difference = compare_images(str(DOCS / path), str(image), TOLERANCE)
        assert difference is None, difference
        shown.add(DOCS / path)
    assert shown == set((DOCS / "gallery").glob("*.png"))
    assert dict(mpl.rcParams) == before


def test_image_comparison_detects_a_difference(tmp_path):
    """Of half a unit in one logit."""
    for name, z in (("a", Z), ("b", [2.0, 1.0, 3.5, 5.0, 4.0])):
        figure = Figure(figsize=(6, 4), dpi=100, layout="constrained")
        plot.probabilities(z, ax=figure.add_subplot())
        figure.savefig(tmp_path / f"{name}.png")
    assert compare_images(str(tmp_path / "a.png"), str(tmp_path / "b.png"), TOLERANCE)


PLOTS = {
    "probabilities": lambda ax: plot.probabilities(Z, ax=ax),
    "scaling": lambda ax: plot.scaling(Z, 0.1, ax=ax),
    "sampling": lambda ax: plot.sampling(Z, 100, ax=ax),
    "temperature_curves": lambda ax: plot.temperature_curves(Z, ax=ax),
    "simplex": lambda ax: plot.simplex([1, 2, 3], ax=ax),
    "stability": lambda ax: plot.stability(Z, [1, 100], ax=ax),
    "jacobian": lambda ax: plot.jacobian(Z, ax=ax),
    "risk_coverage": lambda ax: plot.risk_coverage(
        logitlab.risk_coverage_curve([[0.0, 1], [3, 1], [2, 1]], [1, 0, 1]), ax=ax
    ),
    "reliability": lambda ax: plot.reliability([[0.0, 1], [3, 1], [2, 1]], [1, 0, 1], ax=ax),
}


@pytest.mark.parametrize("name", PLOTS)
def test_axes_and_style(name):
    """A plot returns the given axes, labels them, and uses only greys and colors of the style."""
    style = {"text.color": "#112233", "axes.labelcolor": "#112233"}
    with mpl.rc_context({**style, "axes.prop_cycle": mpl.cycler(color=["#0a0b0c", "#0d0e0f"])}):
        ax = axes()
        assert PLOTS[name](ax) is ax
        if name != "simplex":
            assert ax.get_xlabel()
            assert ax.get_ylabel()
        colors = {to_hex(line.get_color()) for line in ax.lines}
        colors |= {to_hex(bar.get_facecolor()) for bar in ax.patches}
    grey = {to_hex("0.5"), to_hex("none")}
    assert all(max(mpl.colors.to_rgb(c)) < 0.1 for c in colors - grey), colors


def test_new_figure_is_shown_as_svg():
    """Without `ax`, a plot creates a pyplot figure that a notebook displays as SVG."""
    from matplotlib import pyplot

    with mpl.rc_context({"backend": "agg"}):
        figure = plot.probabilities(Z).figure
        assert figure.number in pyplot.get_fignums()
        assert figure._repr_svg_().startswith("<svg")
        pyplot.close(figure)


def test_many_classes():
    """The most probable ones are shown with their names; the label gives the number of others."""
    z = np.arange(100.0)
    ax = plot.probabilities(z, names=[f"n{k}" for k in range(100)], ax=axes())
    p = logitlab.softmax(z)
    assert [bar.get_height() for bar in ax.patches] == list(p[:-21:-1])
    assert ax.get_xticklabels()[0].get_text() == "n99"
    assert ax.get_xlabel() == "class (80 less probable classes not shown)"


def test_ranks():
    """Equal logits have equal ranks; at T < 0 the smallest logit has rank 1."""

    def ranks(**options):
        ax = plot.probabilities([1.0, 3.0, 3.0, 2.0], ax=axes(), **options)
        return [text.get_text().split("#")[1] for text in ax.texts]

    assert ranks() == ["4", "1", "1", "3"]
    assert ranks(temperature=-1.0) == ["1", "3", "3", "2"]
    excluded = plot.probabilities([-np.inf, 1.0, 2.0], temperature=-1.0, ax=axes())
    assert [text.get_text() for text in excluded.texts] == ["0 %\n#3", "73 %\n#1", "27 %\n#2"]


@pytest.mark.parametrize("c", [10, 1e-310, 0, -0.0, -2, 0.3])
@pytest.mark.parametrize("z", [[1e308, -1e308, 0.0], [-np.inf, 1.0, 2.0], [1e300, 0.0, 1e300]])
def test_scaling_is_a_temperature(z, c):
    """No product c z overflows, and excluded classes stay excluded at any c."""
    ax = plot.scaling(z, c, ax=axes())
    after = [bar.get_height() for bar in ax.patches][3:]
    np.testing.assert_array_equal(after, logitlab.softmax(z, temperature=1 / c if c else np.inf))


def test_jacobian_of_many_classes():
    """The entries are those of the shown classes in the whole matrix."""
    z = np.random.default_rng(0).normal(size=200)
    block = plot.jacobian(z, temperature=2.0, ax=axes()).images[0].get_array()
    top = np.argsort(-z)[:20]
    whole = logitlab.jacobian(z, temperature=2.0)
    np.testing.assert_allclose(block, whole[np.ix_(top, top)], rtol=1e-12)


def test_coverage_of_error_bars():
    """About 95 % of the error bars of 300 frequencies contain the probability."""
    covered = []
    for seed in range(60):
        ax = plot.sampling(Z, 10_000, rng=seed, ax=axes())
        bars = ax.collections[-1].get_segments()
        p = logitlab.softmax(Z)
        covered += [low[1] <= p[k] <= high[1] for k, (low, high) in enumerate(bars)]
    assert 0.91 < np.mean(covered) < 0.985


@pytest.mark.parametrize("z", [[0, 9, 3], [-1e308, 1e308, 0.0]])
def test_path_through_the_simplex(z):
    """From the corner of the largest logit to the center, even if their difference overflows."""
    lines = plot.simplex(z, ax=axes()).lines
    path = max((line.get_xydata() for line in lines), key=len)
    np.testing.assert_allclose(path[[0, -1]], [[1, 0], [0.5, 3**0.5 / 6]])


def test_ulp_errors():
    """The naive softmax is NaN if exp overflows; logitlab's error is at most 4 ULP."""
    z = np.array([1.0, 2, 3, 4, 5])
    scales = np.array([1.0, 17, 18, 1000, 20_000])
    result = max_ulp_errors(z, scales)
    finite = np.isfinite(result["float32", "naive"])
    assert finite.tolist() == [True, True, False, False, False]  # exp(z) overflows at z = 88.7
    assert np.isinf(result["float64", "naive"]).tolist() == [False, False, False, True, True]
    assert np.isnan(result["float16", "logitlab"]).tolist() == [False] * 4 + [True]
    for (_, implementation), max_errors in result.items():
        assert implementation != "logitlab" or not (max_errors > 4).any()
    # Inaccurate without overflow: the sum of 3000 terms in a half type.
    assert max_ulp_errors(np.zeros(3000), np.ones(1))["bfloat16", "naive"][0] > 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: plot.probabilities([ROW]),
            r"z must have shape \(K,\) .*\(1, 2\)",
        ),
        (
            lambda: plot.probabilities(ROW, names=["a"]),
            "names must be a list of 2 names, got 1",
        ),
        (lambda: plot.probabilities(ROW, names="ab"), "names must be a list of 2 names"),
        (lambda: plot.probabilities(ROW, names=3), "names must be a list of 2 names, got 3"),
        (lambda: plot.class_gaps("ab", [1, 2], [1, 2]), "names must be a list of names, got 'ab'"),
        (lambda: plot.forest(["a"], [1.0, 2.0]), r"^estimate .*shape \(2,\)"),
        (lambda: plot.forest(["a"], [1.0], [0.5]), "high must be given with low, got None"),
        (lambda: plot.forest(["a"], [np.nan]), r"estimate must be finite, got \[nan\]"),
        (
            lambda: plot.forest(["a"], [1.0], [0.0], [2.0], log_scale=True),
            r"low must be finite and > 0 on a logarithmic scale, got \[0.0\]",
        ),
        (lambda: plot.sampling(ROW, None), "n must be an int, got None"),
        (lambda: plot.sampling(ROW, 10**9), "n must be <= 100000000, got 1000000000"),
        (lambda: plot.sampling(ROW, True), "n must be an int, got True"),
        (lambda: plot.probabilities([1.0, np.nan]), "z has no distribution"),
        (lambda: plot.stability([1.0, np.inf]), "z must be finite or -inf, got"),
        (
            lambda: plot.stability(ROW, [0]),
            r"scales must be .* positive, finite numbers, got \[0\]",
        ),
        (lambda: plot.scaling(ROW, np.nan), "c must be a finite number, got nan"),
        (lambda: plot.simplex(ROW), "z must have 3 classes, got 2"),
        (
            lambda: plot.temperature_curves(ROW, [0, 1]),
            "temperatures must be a non-empty list",
        ),
        (lambda: plot.jacobian(ROW, temperature=0), "temperature"),
        (
            lambda: plot.reliability([ROW], [0], temperature=0),
            "temperature must be positive and finite, got 0",
        ),
        (
            lambda: plot.reliability([ROW], [0], ax="a"),
            "ax must be a matplotlib Axes or None",
        ),
        (lambda: plot.reliability_diagram(3), "curve must be a result of logitlab.rel.*, got 3"),
        (lambda: plot.temperature_sweep(3), "sweep must be a result of logitlab.temp.*, got 3"),
        (lambda: plot.scaling(ROW, "a"), "c must be a real number, got 'a'"),
        (lambda: plot.stability(ROW, "a"), r"^scales .*\bstr\b"),
        (
            lambda: plot.temperature_curves(ROW, []),
            r"temperatures must be a .*, got \[\]",
        ),
        (lambda: plot.class_gaps(["a", "b"], [1.0], ROW), r"^gap .*shape \(1,\)"),
        (lambda: plot.class_gaps(["a"], [1.0], ROW), r"^half_width .*shape \(2,\)"),
        (lambda: plot.outcome_bars(["a"], [1.0, 0.0], [1.0]), r"^p .*shape \(2,\)"),
        (lambda: plot.outcome_bars(["a"], [1.0], ["b"]), r"^frequencies .*\bstr\b"),
        (lambda: plot.over_time([0, 1], [1.0]), r"^values .*shape \(1,\)"),
        (
            lambda: plot.temperature_summary([1, 2], [1.0], [1, 1]),
            "^normalized_entropy .*shape",
        ),
        (lambda: plot.temperature_summary([1, 2], [1, 1], [1.0]), r"^confidence .*shape \(1,\)"),
        (lambda: plot.distribution([0, 1, 2], [1], mean=0.5), r"^counts .*shape \(1,\)"),
        (lambda: plot.distribution([0], [], mean=0.5), "edges must have at least 2 numbers, got 1"),
        (lambda: plot.distribution([0, 1], [1], mean="a"), "mean must be a real number, got 'a'"),
    ],
)
def test_errors(call, message):
    """The message has the argument, the rule and the value; no figure is created."""
    from matplotlib import pyplot

    with pytest.raises((TypeError, ValueError), match=message):
        call()
    assert pyplot.get_fignums() == []


NAMES = ["$\\frac{$", "$x^2$", "_hidden", "a_b$", "\\"]


def test_names_are_plain_text():
    """Names with the syntax of mathematics are drawn as they are; none is left out."""
    p = np.full(5, 0.2)
    sweep = logitlab.temperature_sweep(Z, [0.5, 1.0], n=10, rng=0)
    drawn = [
        plot.probabilities(Z, names=NAMES, ax=axes()),
        plot.scaling(Z, 0.1, names=NAMES, ax=axes()),
        plot.jacobian(Z, names=NAMES, ax=axes()),
        plot.sampling(Z, 10, names=NAMES, ax=axes()),
        plot.outcome_bars(NAMES, p, p, ax=axes()),
        plot.class_gaps(NAMES, p, p, ax=axes()),
        plot.forest(NAMES, p, ax=axes()),
        plot.temperature_sweep(sweep, names=NAMES, ax=axes()),
        plot.temperature_curves(Z, names=NAMES, ax=axes()),
        plot.simplex(Z[:3], names=NAMES[:3], ax=axes()),
        plot.simplex(Z[:3], names=NAMES[-3:], ax=axes()),
    ]
    for ax in drawn:
        ax.figure.canvas.draw()
        texts = {t.get_text(): t for t in ax.findobj(mpl.text.Text) if t.get_text()}
        named = [t for name in NAMES for shown, t in texts.items() if name in shown]
        assert named
        assert not any(t.get_parse_math() for t in named)
    legend = drawn[8].get_legend().get_texts()
    assert {t.get_text().partition(": z")[0] for t in legend} == set(NAMES)


@pytest.mark.parametrize("log_scale", [False, True])
def test_forest(log_scale):
    """Hollow circles where the interval contains no effect."""
    low, high = np.array([0.5, 1.5, -2.0]), np.array([2.0, 3.0, -1.0])
    middle = (low + high) / 2
    if log_scale:
        low, high, middle = np.exp(low), np.exp(high), np.exp(middle)
    ax = plot.forest(["a", "b", "c"], middle, low, high, log_scale=log_scale, ax=axes())
    filled, hollow = ax.collections[1:]
    np.testing.assert_allclose(filled.get_offsets()[:, 0], middle)
    assert len(hollow.get_offsets()) == 0
    ax = plot.forest(["a"], [1.1], [0.9], [1.3], log_scale=True, ax=axes())
    assert len(ax.collections[2].get_offsets()) == 1
    assert ax.get_xscale() == "log"

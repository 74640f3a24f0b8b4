"""The tables of the page "Special values" about sampling: each row is computed and compared."""

import ast
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import arrays
import logitlab
from arrays import inf, nan
from logitlab import Sampler
from logitlab._backends import native_sampling, reference_sampling
from logitlab.sampling.penalties import SETTINGS as PENALTIES
from logitlab.sampling.settings import SETTINGS, stages_of

PAGE = Path(__file__).parent.parent / "guide" / "reference" / "special-values.md"
NAMES = {"np": np, "inf": inf, "nan": nan}


def table(heading):
    """The rows of the table below a heading, without the code marks."""
    section = PAGE.read_text("utf-8").partition(f"# {heading}\n")[2].partition("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    assert len(rows) > 2, heading
    assert {len(row) for row in rows} == {len(rows[0])}, heading
    return rows[2:]


def rows_of(heading):
    return pytest.mark.parametrize("row", table(heading), ids=lambda row: " ".join(row[:3]))


def value(text):
    return eval(text, dict(NAMES))


def arguments(text):
    """The keyword arguments of code such as `top_k=1, order=["temperature"]`."""
    call = ast.parse(f"f({text})", mode="eval").body
    return {argument.arg: value(ast.unparse(argument.value)) for argument in call.keywords}


def of_stage(text):
    """The settings of a stage; XTC is applied to every row."""
    settings = arguments(text)
    return settings | {"xtc_probability": 1.0} if "xtc_threshold" in settings else settings


def kept_of(z, **settings):
    """The classes that are not -inf, by every implementation and in every type."""
    found = set()
    for dtype in (*arrays.FLOATS, np.longdouble):  # the last is computed by the reference
        x = np.array(z, float).astype(dtype)
        found.add(tuple(np.flatnonzero(logitlab.truncate(x, **settings) > -inf).tolist()))
    tensor = logitlab.truncate(torch.tensor(z), **settings)
    found.add(tuple(torch.nonzero(tensor > -inf)[:, 0].tolist()))
    assert len(found) == 1, found
    return list(*found)


STAGES = table("Stages of truncation")
by_stage = rows_of("Stages of truncation")


def test_every_setting_has_its_rows():
    """Each stage, and the range of each setting of a sampler and of the penalties."""
    stages = {setting.stage for setting in SETTINGS.values()} - {"temperature"}
    assert {SETTINGS[name].stage for row in STAGES for name in arguments(row[0])} == stages
    assert {SETTINGS[name].stage for name, _ in ALWAYS_KEPT} == stages
    refused = {name for row in table("Ranges and errors") for name in arguments(row[1])}
    assert refused >= {"temperature", "order", *SETTINGS, *PENALTIES}


@by_stage
def test_kept_classes(row):
    stage, at_1, at_0, at_inf, at_minus_1, infinite = row
    settings = of_stage(stage)
    z = [1.0, 3.0, 3.0, 2.0, -inf]
    for t, expected in ((1, at_1), (0, at_0), (inf, at_inf), (-1, at_minus_1)):
        assert kept_of(z, temperature=t, **settings) == value(expected), t
    assert kept_of([1.0, inf, 3.0, inf], **settings) == value(infinite)


def random_values(name):
    """Values over the range of a setting, its ends included."""
    if name == "top_k":
        return [1, 2, 5, 100]
    return [0.0, 0.3, 3.0] if name == "top_n_sigma" else [1e-300, 1e-3, 0.3, 0.9, 1.0]


def always_kept(rule, z, settings):
    """The classes that the last column names, of a row with its temperature 1."""
    p = logitlab.softmax(z)
    if rule == "the most probable and all tied with it":
        return z == z.max()
    if rule == "the most probable; of equal ones the first":
        return np.arange(len(z)) == z.argmax()
    if rule == "the k-th and all tied with it":
        return z >= np.sort(z)[-min(settings["top_k"], len(z))]
    if rule == "those closest to the entropy":
        distance = np.abs(-np.log(p) - logitlab.entropy(z))
        return distance <= distance.min() * (1 + 1e-9)
    assert rule == "the least probable of those above the threshold and all tied with it"
    above = p >= settings["xtc_threshold"]
    return z == np.min(z[above]) if above.any() else np.zeros(len(z), bool)


ALWAYS_KEPT = [
    (name, rule)
    for names, rule in table("Classes that are always kept")
    for name in names.split("` `")
]


@pytest.mark.parametrize(("name", "rule"), ALWAYS_KEPT)
def test_what_is_always_kept(name, rule):
    """In rows with ties, at values over the whole range."""
    rng = np.random.default_rng(0)
    for x in random_values(name):
        settings = of_stage(f"{name}={x}")
        for z in np.round(rng.normal(0, 2, (30, 9))):
            kept = logitlab.truncate(z, **settings) > -inf
            assert kept[always_kept(rule, z, settings)].all()
            assert kept.any()


@by_stage
def test_rows_in_every_stage(row):
    """Excluded classes, one class, NaN, nothing left."""
    settings = of_stage(row[0])
    where = np.array([True, False, True])
    for t in (1.0, 0.0, inf, -1.0, -inf):
        options = settings | {"temperature": t}
        assert kept_of([5.0, -inf], **options) == [0]
        assert kept_of([5.0], **options) == [0]
        assert 0 not in kept_of([-inf, 1.0, 1.0], **options)
        if t < 0:
            assert kept_of([1.0, inf], **options) == [0]
        masked = logitlab.truncate([1.0, 2.0, 1.0], where=where, **options)
        assert masked.tolist() in ([1, -inf, 1], [1, -inf, -inf])
        assert (logitlab.sample([1.0, nan, 2.0], 50, where=where, rng=0, **options) != 1).all()
        for z in ([1.0, nan, 3.0], [-inf, -inf, -inf]):
            np.testing.assert_array_equal(logitlab.truncate(z, **options), z)
            cut = logitlab.truncate([1.0, nan, nan], where=where, **options)
            np.testing.assert_array_equal(cut, [1.0, -inf, nan])
            with pytest.raises(ValueError, match="row 1 has no distribution"):
                logitlab.sample([[0.0, 0.0, 0.0], z], **options)


@pytest.mark.skipif(not logitlab.native_available(), reason="installed without a C++ compiler")
@by_stage
def test_kernels_and_reference(row):
    """The same classes for every special row, temperature, type and place of the temperature."""
    settings = of_stage(row[0])
    for order in ("transformers", "llama.cpp"):
        sampler = Sampler(order=order, **settings)
        stages = stages_of(sampler._settings, (1,), None)
        for dtype in arrays.FLOATS:
            for z in arrays.rows(dtype):
                z = z[None]
                for t in (1.0, 0.0, inf, -1.0, -inf, 1e-300, 0.5):
                    kept, _ = native_sampling.keep(z, 1, t, None, stages)
                    expected, _ = reference_sampling.keep(z, t, None, stages)
                    np.testing.assert_array_equal(kept & (z > -inf), expected & (z > -inf))


@rows_of("Dynamic temperature")
def test_dynamic_temperature(row):
    z, t, width, exponent, expected = map(value, row)
    stage = reference_sampling.Stage("temperature", (float(width), float(exponent)))
    x = np.array([z], float)
    for keep in (
        partial(native_sampling.keep, x, 1, float(t), None, [stage]),
        partial(reference_sampling.keep, x, float(t), None, [stage]),
    ):
        np.testing.assert_allclose(keep()[1].ravel(), [expected], atol=1e-300)
    if not np.isnan(logitlab.softmax(z)).any():
        token, log_prob = logitlab.sample_with_log_prob(
            z, temperature=t, dynatemp_range=width, dynatemp_exponent=exponent, rng=0
        )
        of_fixed = logitlab.log_softmax(np.array(z, float), temperature=expected)[token]
        assert log_prob == pytest.approx(of_fixed, abs=1e-12)


@rows_of("Mirostat")
def test_mirostat(row):
    z, t, mu, *by_version = row
    for version, expected in zip((2, 1), by_version, strict=True):
        options = {"tau": 3.0, "eta": 0.1, "version": version, "temperature": value(t), "rng": 0}
        sample = partial(logitlab.mirostat, [value(z)] * 200, value(mu), **options)
        if expected == "ValueError":
            with pytest.raises(ValueError, match="row 0 has no distribution"):
                sample()
            continue
        tokens, new = sample()
        assert np.unique(tokens).tolist() == value(expected)
        # All of these have equal logits or probability 1: the surprise is log2 of their number.
        if mu == "6" or "-inf" in mu:
            surprise = np.log2(len(value(expected)))
            np.testing.assert_allclose(new, value(mu) - 0.1 * (surprise - 3.0))


@rows_of("Penalties, bans and masks")
def test_penalties(row):
    settings, expected = arguments(row[0]), row[1]
    z = [2.0, -1.0, 1.7e308, inf, -inf, nan]
    if "prompt" not in settings:
        settings["tokens"] = range(6)
    for x in (np.array(z), torch.tensor(z, dtype=torch.float64)):
        if expected.startswith("ValueError: "):
            with pytest.raises(ValueError, match=re.escape(expected[12:])):
                logitlab.penalize(x, **settings)
            continue
        wanted = eval(expected, NAMES | {"MAX": np.finfo(float).max})
        result = logitlab.penalize(x, **settings)
        np.testing.assert_allclose(np.asarray(result), wanted, rtol=1e-15)


Z = np.array([2.0, 0.5, 1.0])


def call(function, settings):
    """The function with these settings, and a value for what else it needs."""
    if function == "mirostat":
        options = {"mu": 6.0, "tau": 3.0, "eta": 0.1, "rng": 0} | settings
        return logitlab.mirostat(Z, options.pop("mu"), **options)[0]
    if function == "penalize":
        return logitlab.penalize(Z, **{"tokens": [0, 1, 0]} | settings)
    if function == "verify_draft":
        tokens = settings.pop("tokens", [[0]])
        z = np.tile(Z, (1, 2, 1))
        return logitlab.verify_draft(z, z[:, :1], tokens, rng=0, **settings)[0]
    assert function == "sample"
    return logitlab.sample(Z, 100, rng=0, **settings)


@rows_of("Ranges and errors")
def test_ranges_and_errors(row):
    function, refused, off, message = row
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}"):
        call(function, arguments(refused))
    name = next(iter(arguments(refused)))
    with pytest.raises((TypeError, ValueError), match=name.partition("_tok")[0]):
        call(function, {name: "x"})
    if off:
        settings = {name: value(off)}
        np.testing.assert_array_equal(call(function, settings), call(function, {}))
        if function == "sample":
            assert Sampler(**settings) == Sampler()
            z = arrays.normal((3, 50), np.float64)
            np.testing.assert_array_equal(logitlab.truncate(z, **settings), z)


@rows_of("Supports and drafts")
def test_drafts(row):
    target, draft, token, t, expected = row
    n = 20_000
    z = np.tile(np.array(value(target), float), (n, 2, 1))
    q = None if draft == "None" else np.tile(np.array(value(draft), float), (n, 1, 1))
    tokens = np.full((n, 1), value(token))
    verify = partial(logitlab.verify_draft, z, q, tokens, temperature=value(t), rng=0)
    if expected.startswith("ValueError: "):
        with pytest.raises(ValueError, match=f"^{re.escape(expected[12:])}"):
            verify()
        return
    accepted = verify()[0].mean()
    if expected in ("0", "1"):
        assert accepted == value(expected)
    else:
        assert abs(accepted - value(expected)) < 0.015


def test_min_p_of_1_where_weights_are_rounded_to_1():
    """Only the most probable classes are kept, by the kernels and by the reference."""
    z = [1.0, 3.0, 3.0, 2.0]
    assert kept_of(z, temperature=1e300, min_p=1.0) == [1, 2]
    assert kept_of(z, temperature=inf, min_p=1.0) == [0, 1, 2, 3]

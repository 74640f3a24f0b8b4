"""Tests of logitlab.jax on four devices: `test_jax_sharded.py` runs them in another process."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import arrays
import logitlab
import logitlab.jax

MESH = Mesh(np.array(jax.devices()), ("classes",))
CLASSES = PartitionSpec(None, "classes")
ROWS = PartitionSpec()
NAMES = ["softmax", "log_softmax", "logsumexp", "entropy"]
# Each call compiles a program for four devices: not every combination is tested.
CASES = [(np.float64, t) for t in (1.0, 1e-3, 0.0, np.inf, -0.7, "rows")] + [(np.float32, 1.0)]


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    """float64 with x64, float32 without."""
    jax.config.update("jax_enable_x64", request.param is np.float64)
    yield np.dtype(request.param)
    jax.config.update("jax_enable_x64", False)


def hostile_rows(dtype):
    """The rows of special values as one array, whose entries are scattered over the shards.

    Without subnormal logits, which XLA replaces by 0.
    """
    tiny = np.finfo(dtype).tiny
    rows = [r for r in arrays.rows(dtype) if not ((r != 0) & (np.abs(r) < tiny)).any()]
    z = np.full((len(rows), 12), -np.inf, dtype)
    for line, row in zip(z, rows, strict=True):
        line[: len(row)] = row
    scattered = z[:, np.random.default_rng(0).permutation(12)]
    return np.concatenate([z, scattered, arrays.normal((4, 12), dtype)])


def mapped(name, out_specs=ROWS, in_specs=CLASSES, mesh=MESH, **options):
    """A function of logitlab.jax, mapped over the devices."""
    options = {"axis_name": mesh.axis_names, **options}
    function = functools.partial(getattr(logitlab.jax, name), **options)
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)


def sharded(*args, **options):
    """A function of logitlab.jax, compiled for all devices."""
    return jax.jit(mapped(*args, **options))


def specs_of(name):
    return CLASSES if name.endswith("softmax") else ROWS


def value_and_gradient(function, z, g, *args):
    value, pull_back = jax.vjp(lambda z: function(z, *args), z)
    return value, pull_back(g)[0]


@pytest.mark.parametrize(("dtype", "temperature"), CASES, indirect=["dtype"])
def test_values_and_gradients_of_special_values(dtype, temperature):
    z = hostile_rows(dtype)
    if temperature == "rows":
        temperature = np.linspace(0.5, 2, len(z)).astype(dtype)
    eps = float(np.finfo(dtype).eps)
    unsharded = {n: functools.partial(getattr(logitlab, n), temperature=temperature) for n in NAMES}
    expected = {name: function(z) for name, function in unsharded.items()}
    gradients = {name: arrays.normal(value.shape, dtype) for name, value in expected.items()}

    def all_of(functions, z):
        return {n: value_and_gradient(f, z, gradients[n]) for n, f in functions.items()}

    wanted = jax.jit(lambda z: all_of(unsharded, z))(z)
    found = {}
    for name in NAMES:  # one program each: independent reductions in one can wait for each other
        ours = mapped(name, specs_of(name), temperature=temperature)
        found |= jax.jit(lambda z, f={name: ours}: all_of(f, z))(z)
    undefined = np.isnan(logitlab.softmax(z, temperature=temperature)).any(1)
    # The formulas that autodiff passes through have another derivative where a logit is +inf.
    undefined |= (np.ndim(temperature) > 0) & (z == np.inf).any(1)
    slope = 1 if np.ndim(temperature) or not 0 < temperature < 1 else 1 / temperature
    # XLA's exp of float32 and T in float32: relative errors up to (z - m)/T times eps.
    rtol = 20 * eps if dtype == np.float64 else 1e-5
    atol = 100 * float(np.finfo(dtype).tiny)
    for name in NAMES:
        value, gradient = found[name]
        assert value.dtype == dtype, name
        np.testing.assert_allclose(value, expected[name], rtol=rtol, atol=atol, err_msg=name)
        if name == "logsumexp" and np.isinf(temperature).any():
            continue  # the values are infinite
        ours, theirs = (x[~undefined] for x in (gradient, wanted[name][1]))
        assert np.isfinite(ours).all(), name
        np.testing.assert_allclose(
            ours, theirs, rtol=1000 * eps, atol=100 * eps * slope, err_msg=name
        )


def test_where_axes_and_types():
    """A mask that excludes all classes of a device; the class axis first; half types; vmap."""
    z = arrays.normal((5, 8), np.dtype(np.float32))
    where = np.arange(8) % 8 > 2
    first = PartitionSpec("classes")

    for name in NAMES:
        masked = jax.jit(
            jax.shard_map(
                lambda z, w, name=name: getattr(logitlab.jax, name)(
                    z, axis_name="classes", where=w
                ),
                mesh=MESH,
                in_specs=(CLASSES, first),
                out_specs=specs_of(name),
            )
        )
        unsharded, function = getattr(logitlab, name), sharded(name, specs_of(name))
        np.testing.assert_allclose(masked(z, where), unsharded(z, where=where), rtol=1e-5)
        across = sharded(name, first if specs_of(name) else ROWS, first, axis=0)
        np.testing.assert_allclose(across(z.T), unsharded(z.T, 0), rtol=1e-5)
        half = function(jnp.asarray(z, jnp.bfloat16))
        assert half.dtype == jnp.bfloat16
        expected = unsharded(z.astype(arrays.BFLOAT16))
        np.testing.assert_allclose(half.astype(float), expected.astype(float), rtol=2**-8)
        batch = jax.jit(jax.vmap(function, in_axes=1))(z.reshape(5, 1, 8))
        np.testing.assert_allclose(batch, unsharded(z)[None], rtol=1e-5)
        empty = function(np.empty((0, 8), np.float32))
        assert empty.shape == unsharded(np.empty((0, 8))).shape


def test_no_classes_and_keepdims():
    assert sharded("logsumexp")(np.empty((2, 0), np.float32)).tolist() == [-np.inf] * 2
    assert sharded("softmax", CLASSES)(np.empty((2, 0), np.float32)).shape == (2, 0)
    assert sharded("logsumexp", keepdims=True)(np.zeros((2, 4), np.float32)).shape == (2, 1)


def test_several_axes_of_the_mesh():
    """The classes over two of them, and the rows over another."""
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("outer", "inner"))
    z = arrays.normal((4, 8), np.dtype(np.float32))
    spec = PartitionSpec(None, ("outer", "inner"))
    found = sharded("softmax", spec, spec, mesh, axis_name=("outer", "inner"))(z)
    np.testing.assert_allclose(found, logitlab.softmax(z), rtol=1e-5)
    spec = PartitionSpec("outer", "inner")
    found = sharded("log_softmax", spec, spec, mesh, axis_name="inner")(z)
    np.testing.assert_allclose(found, logitlab.log_softmax(z), rtol=1e-5)


LOSSES = {
    "plain": {},
    "none": {"reduction": "none", "temperature": 0.5},
    "ignored": {"ignore_index": 3},
    "smoothed": {"label_smoothing": 0.1, "ignore_index": (0, 5)},
    "weighted": {"sample_weight": np.arange(6.0), "reduction": "sum"},
    "negative": {"temperature": -2.0},
}


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(np.float64, "labels"), (np.float64, "distributions"), (np.float32, "labels")],
    indirect=["dtype"],
)
def test_losses(dtype, kind):
    z, y = arrays.normal((6, 8), dtype, 2.0), np.array([0, 3, 7, 3, 5, 6])
    z[:, 1] = -np.inf
    spec, cases = ROWS, LOSSES
    if kind == "distributions":
        y, spec = logitlab.softmax(arrays.normal((6, 8), dtype, seed=1)), CLASSES
        y[:, 1] = 0
        cases = {
            case: {name: value for name, value in options.items() if name != "ignore_index"}
            for case, options in LOSSES.items()
        }

    def value_and_gradient_of_loss(loss, options, z, y):
        g = np.ones(len(y) if options.get("reduction") == "none" else (), dtype)
        return value_and_gradient(loss, z, g, y)

    @jax.jit
    def unsharded(z, y):
        loss = logitlab.cross_entropy
        return [
            value_and_gradient_of_loss(functools.partial(loss, **options), options, z, y)[1]
            for options in cases.values()
        ]

    eps = float(np.finfo(dtype).eps)
    for (case, options), expected in zip(cases.items(), unsharded(z, y), strict=True):
        ours = mapped("cross_entropy", in_specs=(CLASSES, spec), **options)
        function = functools.partial(value_and_gradient_of_loss, ours, options)
        value, found = jax.jit(function)(z, y)
        loss = logitlab.cross_entropy(z, y, **options)
        np.testing.assert_allclose(value, loss, rtol=20 * eps, err_msg=case)
        np.testing.assert_allclose(found, expected, rtol=100 * eps, atol=10 * eps, err_msg=case)


def test_labels_that_are_constants():
    """Their range is that of the classes of all devices."""
    z = np.zeros((2, 8), np.float32)

    def loss(y):
        function = jax.shard_map(
            lambda z: logitlab.jax.cross_entropy(z, y, axis_name="classes"),
            mesh=MESH,
            in_specs=CLASSES,
            out_specs=ROWS,
        )
        return jax.jit(function)(z)

    np.testing.assert_allclose(loss(np.array([0, 7])), np.log(8), rtol=1e-6)
    with pytest.raises(ValueError, match=r"y must be from 0 to 7, .* got 8 in row 1"):
        loss(np.array([0, 8]))


def test_gradients_within_the_mapped_function():
    z, y = arrays.normal((4, 8), np.dtype(np.float32)), np.array([0, 3, 7, 5])
    function = functools.partial(logitlab.jax.cross_entropy, axis_name="classes")
    with_gradient = jax.shard_map(
        jax.value_and_grad(function),
        mesh=MESH,
        in_specs=(CLASSES, ROWS),
        out_specs=(ROWS, CLASSES),
    )
    for ours, theirs in zip(
        jax.jit(with_gradient)(z, y), logitlab.cross_entropy_and_grad(z, y), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_second_derivatives(dtype):
    z = arrays.normal((1, 8), dtype, 1.0)
    found = jax.jit(jax.hessian(lambda z: mapped("logsumexp")(z)[0]))(z)
    expected = logitlab.jacobian(z.astype(float))[0]
    tolerance = 100 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(found.reshape(8, 8), expected, atol=tolerance)


@pytest.mark.parametrize("temperature", [1.0, 0.0, -0.7, "rows"])
def test_samples_do_not_depend_on_the_devices(dtype, temperature):
    """They are those of logitlab.sample; -1 in rows without a distribution."""
    z = np.concatenate([hostile_rows(dtype)[:, :12], arrays.normal((4, 12), dtype)])
    if temperature == "rows":
        temperature = np.linspace(0.5, 2, len(z)).astype(dtype)
    found = np.asarray(sharded("sample", n=100, rng=3, temperature=temperature)(z))
    undefined = np.isnan(logitlab.softmax(z, temperature=temperature)).any(1)
    assert (found[undefined] == -1).all()
    keys = np.flatnonzero(~undefined)
    t = temperature if np.ndim(temperature) == 0 else temperature[keys]
    expected = logitlab.sample(z[keys], 100, rng=3, row_keys=keys, temperature=t)
    np.testing.assert_array_equal(found[keys], expected)


def test_samples_of_many_classes(dtype):
    z = arrays.normal((3, 40_000), dtype)
    where = np.arange(40_000) % 3 > 0
    expected = logitlab.sample(z, 3000, rng=7, where=where, row_keys=[5, 6, 2**63])
    for seed in (7, jnp.uint32(7)):
        found = jax.jit(
            jax.shard_map(
                lambda z, w, s, seed=seed: logitlab.jax.sample(
                    z,
                    3000,
                    axis_name="classes",
                    where=w,
                    row_keys=[5, 6, 2**63],
                    rng=seed if isinstance(seed, int) else s,
                ),
                mesh=MESH,
                in_specs=(CLASSES, PartitionSpec("classes"), ROWS),
                out_specs=ROWS,
            )
        )(z, where, jnp.uint32(7))
        assert found.dtype == jnp.result_type(int)
        # A boundary between two classes moves by the errors of float32.
        assert (np.asarray(found) != expected).sum() <= (0 if dtype == np.float64 else 3)
    one = sharded("sample", rng=1)(z)
    np.testing.assert_array_equal(one, logitlab.sample(z, rng=1))


def test_only_reductions_between_devices():
    """No device gets the logits of another."""
    z = np.zeros((2, 8), np.float32)
    for name in [*NAMES, "sample"]:
        options = {"rng": 0} if name == "sample" else {}
        text = sharded(name, specs_of(name), **options).lower(z).compile().as_text()
        assert "all-reduce" in text
        assert not any(
            f" {op}" in text for op in ("all-gather", "all-to-all", "collective-permute")
        )


def test_sampling_of_arrays_on_several_devices():
    """logitlab.sample, of sharded rows under jit, in shard_map, and of many calls at once."""
    z = arrays.normal((8, 50_000), np.dtype(np.float32))
    settings = {"top_k": 50, "temperature": 0.7}
    expected = logitlab.sample(z, 3, rng=3, **settings)
    rows = PartitionSpec("classes")
    x = jax.device_put(z, jax.NamedSharding(MESH, rows))
    compiled = jax.jit(lambda z: logitlab.sample(z, 3, rng=3, **settings))
    np.testing.assert_array_equal(compiled(x), expected)
    of_rows = jax.jit(
        jax.shard_map(
            lambda z, k: logitlab.sample(z, 3, rng=3, row_keys=k, **settings),
            mesh=MESH,
            in_specs=(rows, rows),
            out_specs=rows,
        )
    )
    results = [of_rows(x, np.arange(8)) for _ in range(8)]
    for found in results:
        np.testing.assert_array_equal(found, expected)


def test_errors():
    z = np.zeros((2, 8), np.float32)
    rule = "axis_name must be an axis of the mesh of the jax.shard_map around this call, got"
    for name in ("rows", 3, None):
        with pytest.raises(ValueError, match=f"{rule} {name!r}"):
            sharded("softmax", CLASSES, axis_name=name)(z)
    with pytest.raises(ValueError, match=rule):
        logitlab.jax.softmax(jnp.zeros(3), axis_name="classes")
    with pytest.raises(TypeError, match="z must be a JAX array, got ndarray"):
        logitlab.jax.softmax(z, axis_name="classes")
    for name in ("entropy", "sample"):
        options = {"rng": 0} if name == "sample" else {}
        with pytest.raises(TypeError, match="axis must be an int, got None"):
            sharded(name, axis=None, **options)(z)
    with pytest.raises(TypeError, match="rng must be an int or a traced integer"):
        sharded("sample", rng=None)(z)
    with pytest.raises(ValueError, match="n must be >= 1, got 0"):
        sharded("sample", rng=0, n=0)(z)
    with pytest.raises(TypeError, match="keepdims must be True or False, got 1"):
        sharded("logsumexp", keepdims=1)(z)

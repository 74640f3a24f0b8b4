"""The support of samples, and losses and log-probabilities under it."""

import array_api_strict
import ml_dtypes
import numpy as np
import pytest
import torch

import exact
import logitlab
from arrays import inf, nan
from logitlab import Support

RNG = np.random.default_rng(0)
TRUNCATIONS = [
    {},
    {"top_k": 3},
    {"top_p": 0.9},
    {"min_p": 0.05},
    {"top_k": 40, "top_p": 0.8, "min_p": 0.02, "temperature": 0.7},
    {"top_p": 0.9, "order": "llama.cpp", "temperature": 2.0},
    {"temperature": 0.0, "top_k": 2},
    {"temperature": -1.3, "top_k": 5},
    {"temperature": inf, "top_p": 0.7},
]


def masked_rows(rows, k, seed=0):
    """A random mask with a class in every row."""
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, k)) < 0.3
    mask[np.arange(rows), rng.integers(0, k, rows)] = True
    return mask


def message_of(error, function, *args, **kwargs):
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_mask_and_back(convert):
    """A mask becomes indices and offsets, and a mask again, for every batch shape and axis."""
    for shape in ((7, 5), (2, 3, 4), (6,), (0, 3), (3, 0)):
        mask = RNG.random(shape) < 0.5
        support = Support.from_mask(convert(mask))
        assert type(support.indices) is type(support.to_mask()) is type(convert(mask))
        assert str(support.indices.dtype).endswith("int32")
        np.testing.assert_array_equal(np.asarray(support.to_mask()), mask)
        np.testing.assert_array_equal(support.sizes, mask.sum(-1))
        assert support == Support(support.indices, support.offsets, support.shape)
    mask = RNG.random((4, 3, 5)) < 0.5
    assert Support.from_mask(convert(mask), axis=0) == Support.from_mask(np.moveaxis(mask, 0, -1))


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_rows_are_selected(convert):
    """As those of an array of the batch shape."""
    mask = RNG.random((6, 2, 9)) < 0.4
    support = Support.from_mask(convert(mask))
    order = np.array([3, 3, 0, -1])
    for index in (2, slice(1, 4), slice(None, None, -2), order, mask[:, 0, 0], (2, 1), (order, 1)):
        selected = support[index]
        np.testing.assert_array_equal(np.asarray(selected.to_mask()), mask[index])
        assert type(selected.indices) is type(support.indices)
    assert support[torch.tensor([1, 0])] == support[[1, 0]]
    with pytest.raises(IndexError):
        support[7]
    assert len(support) == 6
    joined = Support.concatenate([support[:2], support[2:3], support[3:]])
    assert joined == support
    assert joined != support[:5]
    assert Support.concatenate([Support.from_mask(mask)[:4], support[4:]]) == support
    assert support != mask.tolist()


def test_errors_of_construction():
    """They name the first wrong row."""
    ascending = "indices must be ascending and from 0 to 2 in each row, got "
    for arguments, message in (
        (([0, 0], [0, 2], (1, 3)), f"{ascending}0 in row 0"),
        (([0, 5], [0, 1, 2], (2, 3)), f"{ascending}5 in row 1"),
        (([2, -1], [0, 1, 1, 2], (3, 3)), f"{ascending}-1 in row 2"),
        (([2, 1], [0, 0, 0, 0, 2], (2, 2, 3)), f"{ascending}1 in row (1, 1)"),
        (([0, 1], [0, 2, 1, 2], (3, 3)), "offsets must not decrease, got 1 after 2 in row 1"),
        (([0, 1], [0, 2], (2, 3)), "offsets must have 3 entries for 2 rows, got 2"),
        (([0], [0, 2], (1, 3)), "offsets must be from 0 to 1, the number of indices, got 0 to 2"),
        (([[0]], [0, 1], (1, 3)), "indices must have 1 dimension, got shape (1, 1)"),
        (([0], [0, 1], ()), "shape must be the batch shape and K, got ()"),
    ):
        assert message_of(ValueError, Support, *arguments) == message
    assert message_of(TypeError, Support, [0.5], [0, 1], (1, 3)) == (
        "indices must be an integer array, got float64"
    )
    assert message_of(TypeError, Support.from_mask, [0, 1]) == (
        "mask must be a boolean array, got int64"
    )
    row, rows = Support([0], [0, 1], (3,)), Support([0], [0, 1], (1, 3))
    assert "no length" in message_of(TypeError, len, row)
    for wrong in ([], [row], [rows, Support([0], [0, 1], (1, 4))]):
        assert message_of(ValueError, Support.concatenate, wrong).startswith("supports must have")


def test_frozen_and_not_hashable():
    support = Support([0], [0, 1], (1, 3))
    with pytest.raises(AttributeError):
        support.shape = (1, 2)
    with pytest.raises(TypeError):
        hash(support)
    assert repr(support) == "Support(shape=(1, 3), 1 class)"


def test_errors_of_use():
    """A support of other rows or another width, and a token that is out of range."""
    z, support = np.zeros((3, 4)), Support.from_mask(np.ones((3, 4), bool))
    labels = [0, 1, 2]
    for function in (logitlab.log_prob, logitlab.cross_entropy, logitlab.cross_entropy_and_grad):
        assert message_of(ValueError, function, z, labels, support=support[:2]) == (
            "support must have the batch shape (3,) of z, got (2,): row 2 of z has no support"
        )
        assert message_of(ValueError, function, z[:1], labels[:1], support=support) == (
            "support must have the batch shape (1,) of z, got (3,): z has no row 1"
        )
        narrow = Support.from_mask(np.ones((3, 3), bool))
        assert message_of(ValueError, function, z, labels, support=narrow) == (
            "support must have 4 classes, as z has, got 3"
        )
        assert message_of(TypeError, function, z, labels, support=[1]) == (
            "support must be a logitlab.Support, got list"
        )
    x, weight = np.zeros((3, 2)), np.zeros((5, 2))
    assert message_of(
        ValueError, logitlab.linear_cross_entropy, x, weight, labels, support=support
    ) == ("support must have 5 classes, as weight has, got 4")
    for tokens, message in (
        ([0, 1, 4], "tokens must be from 0 to 3, got 4 in row 2"),
        ([[0, 1], [2, -1], [0, 0]], "tokens must be from 0 to 3, got -1 in row 1"),
        (
            [0, 1],
            "tokens must have the batch shape (3,) of z, or that and an axis for several tokens "
            "of a row, got shape (2,)",
        ),
    ):
        assert message_of(ValueError, logitlab.log_prob, z, tokens) == message
    assert "tokens must be an integer array" in message_of(TypeError, logitlab.log_prob, z, [0.5])


@pytest.mark.parametrize("options", TRUNCATIONS, ids=str)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_importance_ratio_is_one(dtype, options):
    """To the last bit: for any truncation, split, number of threads and array library."""
    t = options.get("temperature", 1.0)
    for k, rows in ((1, 20), (2, 33), (3, 40), (8, 64), (17, 9), (127, 8), (1000, 7), (9000, 2)):
        z = (RNG.normal(size=(rows, k)) * 4).astype(dtype)
        z[0, k // 2 + 1 :] = -inf
        for n in (None, 3):
            tokens, sampled = logitlab.sample_with_log_prob(z, n, rng=3, **options)
            again, support = logitlab.sample_with_support(z, n, rng=3, **options)
            np.testing.assert_array_equal(tokens, again)
            found = logitlab.log_prob(z, tokens, temperature=t, support=support)
            assert found.dtype == dtype
            assert found.tobytes() == sampled.tobytes()
            parts = [slice(0, rows // 3), slice(rows // 3, None)]
            split = [
                logitlab.log_prob(z[i], tokens[i], temperature=t, support=support[i]) for i in parts
            ]
            assert np.concatenate(split).tobytes() == sampled.tobytes()
            tensor = torch.from_numpy(z.astype(np.float32) if z.itemsize == 2 else z)
            if z.itemsize == 2:
                tensor = tensor.to(torch.float16 if dtype is np.float16 else torch.bfloat16)
            tokens, support = logitlab.sample_with_support(tensor, n, rng=3, **options)
            assert isinstance(support.indices, torch.Tensor)
            tensor.requires_grad_()
            found = logitlab.log_prob(tensor, tokens, temperature=t, support=support)
            assert found.detach().double().numpy().tobytes() == sampled.astype("f8").tobytes()


def test_importance_ratio_with_threads():
    z = RNG.normal(size=(64, 5000)).astype(np.float32)
    tokens, sampled = logitlab.sample_with_log_prob(z, top_p=0.9, rng=0)
    support = logitlab.sample_with_support(z, top_p=0.9, rng=0)[1]
    before = logitlab.get_num_threads()
    try:
        for threads in (1, 2, 3):
            logitlab.set_num_threads(threads)
            found = logitlab.log_prob(z, tokens, support=support)
            assert found.tobytes() == sampled.tobytes()
    finally:
        logitlab.set_num_threads(before)


def test_log_prob_in_exact_arithmetic():
    """Over the kept classes only, of rows with infinite logits and NaN outside of the support."""
    z = np.array([[1.0, 2.0, nan, 0.5], [inf, 0.0, inf, 3.0], [-inf, 1.0, 2.0, -700.0]])
    mask = np.array([[1, 1, 0, 1], [1, 1, 0, 1], [1, 1, 1, 1]], bool)
    support = Support.from_mask(mask)
    for t in (1.0, 0.3, -2.0, 0.0):
        for token in range(4):
            found = logitlab.log_prob(z, [token] * 3, temperature=t, support=support)
            for row, kept, value in zip(z.tolist(), mask.tolist(), found, strict=True):
                masked = [x if kept else -inf for x, kept in zip(row, kept, strict=True)]
                expected = float(exact.log_softmax(masked, t)[token])
                assert value == pytest.approx(expected, rel=1e-15, nan_ok=True)


def test_axes_and_masks():
    """The class axis first, a scalar, and `where` beside the support."""
    z = RNG.normal(size=(5, 3, 2))
    mask = masked_rows(6, 5).reshape(3, 2, 5)
    where = RNG.random((5, 1, 1)) < 0.9
    where[0] = True
    mask[..., 0] = True
    tokens = np.zeros((3, 2), int)
    found = logitlab.log_prob(z, tokens, 0, where=where, support=Support.from_mask(mask))
    kept = np.moveaxis(mask, -1, 0) & where
    np.testing.assert_array_equal(found, logitlab.log_softmax(z, 0, where=kept)[0])
    one = logitlab.log_prob(2.0, 0, support=Support([0], [0, 1], (1,)))
    assert one == 0
    assert isinstance(one, np.float64)


def test_tokens_outside_of_the_support():
    """As of excluded classes: the log-probability is -inf, and the loss inf."""
    z, support = np.zeros((2, 3)), Support([0, 1, 2], [0, 1, 3], (2, 3))
    assert logitlab.log_prob(z, [0, 0], support=support).tolist() == [0, -inf]
    loss = logitlab.cross_entropy(z, [0, 0], support=support, reduction="none")
    assert loss.tolist() == [0, inf]
    x, weight = np.zeros((2, 1)), np.zeros((3, 1))
    options = {"support": support, "reduction": "none"}
    assert logitlab.linear_cross_entropy(x, weight, [0, 0], **options).tolist() == [0, inf]


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_cross_entropy_is_that_of_a_mask(convert):
    z, mask = RNG.normal(size=(20, 7)), masked_rows(20, 7)
    label = mask.argmax(1)
    given = [convert(x) for x in (z, label)]
    support = Support.from_mask(convert(mask))
    for options in ({}, {"label_smoothing": 0.2}, {"reduction": "none"}, {"temperature": 0.5}):
        found = logitlab.cross_entropy_and_grad(*given, support=support, **options)
        expected = logitlab.cross_entropy_and_grad(*given, where=convert(mask), **options)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        value = logitlab.cross_entropy(*given, support=support, **options)
        np.testing.assert_array_equal(np.asarray(value), np.asarray(expected[0]))


LINEAR_OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"class_weight": RNG.random(400)},
    {"class_weight": RNG.random(400), "label_smoothing": 0.1, "sample_weight": RNG.random(300)},
    {"temperature": 0.7},
    {"temperature": RNG.random(300) + 0.5},
    {"reduction": "none"},
]


@pytest.mark.parametrize("options", LINEAR_OPTIONS, ids=lambda x: ", ".join(x))
@pytest.mark.parametrize("share", [0.001, 0.3], ids=["few classes", "many classes"])
def test_linear_cross_entropy_is_that_of_the_masked_logits(share, options):
    """Loss and gradients, with and without gathering rows of the weight; an ignored row has NaN."""
    x, weight, bias = (RNG.normal(size=s) for s in ((300, 6), (400, 6), 400))
    mask = RNG.random((300, 400)) < share
    label = RNG.integers(0, 30, 300)
    mask[np.arange(300), label] = True
    z = x @ weight.T + bias
    label[[3, 290]] = -100
    support = Support.from_mask(mask)
    given = {"ignore_index": -100, **options}
    loss, (dx, dweight, dbias) = logitlab.linear_cross_entropy_and_grad(
        x, weight, label, bias=bias, support=support, **given
    )
    class_weight = options.get("class_weight")
    rest = {name: v for name, v in given.items() if name != "class_weight"}
    expected, dz = logitlab.cross_entropy_and_grad(
        z, label, where=mask, weight=class_weight, **rest
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    for found, value in ((dx, dz @ weight), (dweight, dz.T @ x), (dbias, dz.sum(0))):
        np.testing.assert_allclose(found, value, rtol=1e-10, atol=1e-13)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    options = {
        name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in given.items()
    }
    value = logitlab.linear_cross_entropy(
        *tensors[:2],
        torch.from_numpy(label),
        bias=tensors[2],
        support=Support.from_mask(torch.from_numpy(mask)),
        **options,
    )
    np.testing.assert_allclose(value.detach(), loss, rtol=1e-12)
    gradients = torch.autograd.grad(value.sum(), tensors)
    for found, gradient in zip(gradients, (dx, dweight, dbias), strict=True):
        np.testing.assert_allclose(found, gradient, rtol=1e-10, atol=1e-13)


def test_rows_of_weight_outside_of_the_support_are_not_read():
    """They are NaN, and their gradients 0."""
    weight = np.full((50, 3), nan)
    weight[[1, 4, 7]] = RNG.normal(size=(3, 3))
    support = Support([1, 4, 4, 7], [0, 2, 4], (2, 50))
    loss, (_, dweight, _) = logitlab.linear_cross_entropy_and_grad(
        np.ones((2, 3)), weight, [1, 7], support=support
    )
    assert np.isfinite(loss)
    assert np.flatnonzero(dweight.any(1)).tolist() == [1, 4, 7]


def test_gradients_of_tensors():
    """By finite differences, first and second."""
    mask = masked_rows(4, 6)
    support, label = Support.from_mask(mask), torch.from_numpy(mask.argmax(1))
    z = torch.from_numpy(RNG.normal(size=(4, 6))).requires_grad_()
    for function in (
        lambda z: logitlab.log_prob(z, label, support=support, temperature=0.7),
        lambda z: logitlab.cross_entropy(z, label, support=support),
    ):
        assert torch.autograd.gradcheck(function, z)
        assert torch.autograd.gradgradcheck(function, z)
    sparse = Support(label.to(torch.int32), torch.arange(5), (4, 12))
    for of_x in (sparse, Support.from_mask(masked_rows(4, 12) | sparse.to_mask().numpy())):
        x, weight, bias = (
            torch.from_numpy(RNG.normal(size=s)).requires_grad_() for s in ((4, 2), (12, 2), 12)
        )
        for reduction in ("mean", "none"):

            def loss(x, weight, bias, support=of_x, reduction=reduction):
                return logitlab.linear_cross_entropy(
                    x, weight, label, bias=bias, support=support, reduction=reduction
                )

            assert torch.autograd.gradcheck(loss, (x, weight, bias))
            assert torch.autograd.gradgradcheck(loss, (x, weight, bias))


def test_traced_losses():
    """torch.compile calls the losses with a support."""
    mask = masked_rows(8, 5)
    support, label = Support.from_mask(mask), torch.from_numpy(mask.argmax(1))
    x, weight = torch.randn(8, 3), torch.randn(5, 3)

    def loss(x, weight):
        linear = logitlab.linear_cross_entropy(x, weight, label, support=support)
        return linear + logitlab.cross_entropy(x @ weight.T, label, support=support)

    compiled = torch.compile(loss, backend="eager")
    torch.testing.assert_close(compiled(x, weight), loss(x, weight))


def test_jax():
    jax = pytest.importorskip("jax")
    z, mask = RNG.normal(size=(6, 5)).astype(np.float32), masked_rows(6, 5)
    support, label = Support.from_mask(mask), mask.argmax(1)
    tokens, kept = logitlab.sample_with_support(jax.numpy.asarray(z), top_k=2, rng=0)
    assert kept == logitlab.sample_with_support(z, top_k=2, rng=0)[1]
    assert isinstance(tokens, jax.Array)
    for function in (logitlab.log_prob, logitlab.cross_entropy):
        expected = function(z, label, support=support)

        def evaluate(z, function=function):
            return function(z, label, support=support)

        for call in (evaluate, jax.jit(evaluate)):
            np.testing.assert_allclose(call(jax.numpy.asarray(z)), expected, rtol=1e-6)
    weight = np.eye(5, dtype=np.float32)
    found = logitlab.linear_cross_entropy(jax.numpy.asarray(z), weight, label, support=support)
    np.testing.assert_allclose(found, logitlab.cross_entropy(z, label, support=support), rtol=1e-5)


def test_strict_arrays():
    """Of a library that mixes with no other."""
    z, mask = RNG.normal(size=(6, 5)), masked_rows(6, 5)
    support, label = Support.from_mask(mask), mask.argmax(1)
    given = array_api_strict.asarray(z), array_api_strict.asarray(label)
    tokens, kept = logitlab.sample_with_support(given[0], top_k=2, rng=0)
    assert kept == logitlab.sample_with_support(z, top_k=2, rng=0)[1]
    assert type(tokens) is type(given[0])
    for function in (logitlab.log_prob, logitlab.cross_entropy):
        found = function(*given, support=support)
        assert type(found) is type(given[0])
        np.testing.assert_allclose(np.asarray(found), function(z, label, support=support))
    weight = array_api_strict.asarray(np.eye(5))
    loss = logitlab.linear_cross_entropy(given[0], weight, given[1], support=support)
    expected = logitlab.cross_entropy(z, label, support=support)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-12)

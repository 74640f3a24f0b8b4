"""The compiled module answers a wrong call with an exception, whatever the argument."""

import numpy as np
import pytest

import logitlab
from logitlab._backends import native

pytestmark = pytest.mark.skipif(
    not logitlab.native_available(), reason="installed without a C++ compiler"
)

N, K = 5, 4
Z = np.random.default_rng(0).standard_normal((N, K))
LABELS = np.arange(N) % K
ONES = np.ones(N)


def read_only(x):
    x = x.copy()
    x.setflags(write=False)
    return x


def misaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)[1:]
    result = memory.view(x.dtype).reshape(x.shape)
    result[...] = x
    return result


TOKENS, OFFSETS = np.arange(6) % K, np.array([0, 2, 2, 3, 6, 6])
LISTS = (TOKENS, OFFSETS)
NUMBERED = (TOKENS, OFFSETS, np.ones(6))

H = np.eye(5)
# The arguments of a right call of each function.
TRUNCATION = {
    "kind": 1,
    "z": Z,
    "axis": 1,
    "t": 1.0,
    "where": None,
    "stages": [(0,), (1, 2.0), (2, ONES)],
}
RIGHT = {
    "softmax": {"kind": 1, "z": Z, "out": Z, "axis": 1, "t": 1.0, "where": None},
    "logsumexp": {"kind": 1, "z": Z, "out": Z[:, :1], "axis": 1, "t": 1.0, "where": None},
    "cross_entropy": {
        "kind": 1,
        "z": Z,
        "out": Z,
        "axis": 1,
        "t": 1.0,
        "where": None,
        "label": LABELS,
        "targets": None,
        "smoothing": 0.0,
        "scale": ONES,
        "loss": ONES,
    },
    "products": {
        "product": 0,
        "kind": 1,
        "n": N,
        "k": K,
        "inner": 1,
        "p": Z,
        "v": Z,
        "z": None,
        "out": Z,
        "slope": 1.0,
        "t": 1.0,
    },
    "moments": {"kind": 1, "z": Z, "y": LABELS, "t": 1.0, "out": np.ones((N, 4))},
    "scores": {"kind": 1, "z": Z, "other": Z, "t": ONES, "out": ONES},
    "second_products": {"kind": 1, "p": Z, "u": Z, "v": Z, "slope": ONES, "out": Z},
    "keep": {
        **TRUNCATION,
        "kept": np.ones((N, K), bool),
        "used_temperatures": ONES,
    },
    "sample": {
        **TRUNCATION,
        "replacement": True,
        "key_a": 1,
        "key_b": 2,
        "row_keys": np.arange(N, dtype=np.uint64),
        "found": np.ones((N, 2), np.int64),
    },
    "penalize": {
        "kind": 1,
        "rows": N,
        "k": K,
        "z": Z,
        "out": Z,
        "is_tensor": False,
        "prompt": LISTS,
        "tokens": LISTS,
        "bias": NUMBERED,
        "dry": NUMBERED,
        "all_biases": Z,
        "bias_kind": 1,
        "repetition": ONES,
        "frequency": ONES,
        "presence": ONES,
    },
    "find_repeats": {
        "tokens": LISTS,
        "rows": N,
        "least": np.ones(N, int),
        "limit": np.ones(N, int),
        "found": np.ones(6, int),
        "lengths": np.ones(6, int),
    },
}
RIGHT["log_softmax"] = RIGHT["softmax"]

OF_ANY_ARRAY = {
    "object": object(),
    "list": [1.0, 2.0],
    "float32": Z.astype(np.float32),
    "complex": Z.astype(complex),
    "other byte order": Z.astype(">f8"),
    "no type": np.zeros((N, K), "V8"),
    "strings": np.full((N, K), "a"),
    "fewer rows": Z[1:].copy(),
    "fewer columns": Z[:, :3].copy(),
    "one dimension": Z[0].copy(),
    "three dimensions": Z[None].copy(),
    "no rows": Z[:0].copy(),
}
WRONG_LISTS = [
    None,
    1,
    (),
    (TOKENS,),
    (TOKENS, OFFSETS, OFFSETS, OFFSETS),
    (TOKENS.tolist(), OFFSETS),
    (1, OFFSETS),
    (TOKENS, None),
    (TOKENS.astype(np.int32), OFFSETS),
    (TOKENS[1:], OFFSETS),
    (np.repeat(TOKENS, 2)[::2], OFFSETS),
    (misaligned(TOKENS), OFFSETS),
    (TOKENS - 1, OFFSETS),
    (np.full(6, 1 << 63, np.uint64).view(np.int64), OFFSETS),
    (TOKENS, OFFSETS[1:]),
    (TOKENS, OFFSETS + 1),
    (TOKENS, OFFSETS.astype(np.uint32)),
    *((TOKENS, np.array([0, wrong, 2, 3, 6, 6])) for wrong in (-1, 7, 2**63 - 1, -(2**63))),
]
OUT_OF_RANGE = [(TOKENS + 1, OFFSETS), (np.full(6, 2**63 - 1), OFFSETS)]
WRONG_NUMBERS = [
    *((*x, np.ones(6)) for x in [*WRONG_LISTS[6:], *OUT_OF_RANGE]),
    (*LISTS, np.ones(5)),
    (*LISTS, np.ones(6, np.float32)),
    (*LISTS, None),
    LISTS,
    1,
]
RIGHT["coordinate_descent"] = {
    "hessian": H,
    "x": ONES,
    "gradient": ONES,
    "size": 5,
    "groups": 2,
    "group_size": 2,
    "values": np.ones((2, 2)),
    "vectors": np.ones((2, 2, 2)),
    "l1": 1.0,
    "tol": 0.0,
    "max_sweeps": 3,
}
RIGHT["structured_descent"] = {
    "x": np.ones((2, 3)),
    "gradient": np.ones((2, 3)),
    "rows": 2,
    "features": 2,
    "has_intercept": True,
    "is_diagonal": False,
    "grouped": False,
    "a": np.ones(2),
    "c": np.eye(2),
    "rank": 1,
    "factors": np.ones((2, 3, 1)),
    "signs": np.ones(1),
    "l1": 1.0,
    "l2": 0.0,
    "tol": 0.0,
    "max_sweeps": 3,
}
NUMBERS = {
    "features": (-1, 1, 3, 1 << 40, 1 << 61, None),
    "has_intercept": (False, None),
    "is_diagonal": (True, None),
    "rank": (-1, 0, 2, 1 << 61, None),
    "size": (-1, 4, 6, 1 << 61, None),
    "groups": (-1, 1, 3, 1 << 61, None),
    "group_size": (-1, 0, 1, 3, 1 << 61, None),
    "l1": (None, "1"),
    "max_sweeps": (None, 1.5),
    "rows": (-1, N + 1, N - 1, 1 << 61, None),
    "tokens": WRONG_LISTS,
    "prompt": [*WRONG_LISTS, NUMBERED, *OUT_OF_RANGE],
    "bias": WRONG_NUMBERS,
    "dry": WRONG_NUMBERS,
    "kind": (-1, 4, 1 << 40, 1.0, None, 0, 2, 3),  # the last three: other types
    "bias_kind": (-1, 4, 1 << 40, 1.0, None, 0, 2, 3),
    "axis": (-1, 2, 64, None),
    "n": (-1, N + 1, N - 1, 1 << 61, (1 << 63) - 1),
    "k": (-1, K + 1, 1 << 61),
    "inner": (-1, 0, 2, 16, 1 << 61),
    "product": (-1, 3),
    "stages": (
        [(10,)],
        [(-1,)],
        [(0,)] * 11,
        [()],
        [(0, 1.0, 1.0, 1.0)],
        [1],
        [(1, None)],
        [(1, np.ones(N + 1))],
        [(1, ONES.astype(np.float32))],
        [(1, misaligned(ONES))],
        *([(1, x)] for x in (0.0, -1.0, np.nan)),
        *([(2, x)] for x in (0.0, 1.5, np.nan, -1.0, ONES + 1)),
        *([(3, x)] for x in (-0.1, 1.1, np.nan)),
        *([(stage, x)] for stage in range(4, 10) for x in (-0.1, np.nan)),
        None,
    ),
    "key_a": (-1, 1 << 32, None),
    "t": (None, "1", object()),
}
# Nothing else says how many classes there are; only the number of entries counts; no gradient.
ACCEPTED = {(function, "z", "fewer columns") for function in ("logsumexp", "moments", "sample")} | {
    *(("penalize", name, "three dimensions") for name in ("z", "out")),
    *(("products", name, "three dimensions") for name in ("p", "v", "out")),
    *(("moments", name, "three dimensions") for name in ("y", "out")),
    *(("scores", name, "three dimensions") for name in ("other", "t", "out")),
    *(("second_products", name, "three dimensions") for name in ("u", "v", "slope", "out")),
    ("scores", "other", "None"),
    ("penalize", "all_biases", "None"),
    ("keep", "z", "three dimensions"),
    ("keep", "used_temperatures", "three dimensions"),
    ("keep", "used_temperatures", "None"),
    ("cross_entropy", "out", "None"),
    ("coordinate_descent", "values", "one dimension"),
    ("structured_descent", "c", "one dimension"),
}
WRITTEN = {"softmax": "out", "log_softmax": "out", "logsumexp": "out", "products": "out"} | {
    "cross_entropy": "loss",
    "moments": "out",
    "scores": "out",
    "second_products": "out",
    "keep": "kept",
    "sample": "found",
    "penalize": "out",
    "find_repeats": "found",
    "coordinate_descent": "gradient",
    "structured_descent": "x",
}


def wrong_calls():
    for function, right in RIGHT.items():
        for name, value in right.items():
            for wrong in NUMBERS.get(name, ()):
                yield function, {name: wrong}
            if isinstance(value, np.ndarray):
                for kind, wrong in OF_ANY_ARRAY.items():
                    if (function, name, kind) not in ACCEPTED:
                        yield function, {name: wrong}
                if (function, name, "None") not in ACCEPTED:
                    yield function, {name: None}
        yield function, {WRITTEN[function]: read_only(right[WRITTEN[function]])}
    for wrong in ("where", "t"):
        for shape in ((N,), (N, K + 1), (1, 1), (N, K, 1)):
            dtype = bool if wrong == "where" else float
            for function in ("softmax", "logsumexp", "cross_entropy", "keep", "sample"):
                yield function, {wrong: np.ones(shape, dtype)}
    yield "softmax", {"where": np.ones((N, K))}
    yield "softmax", {"t": np.ones((N, K))}
    yield "cross_entropy", {"label": LABELS + 1}
    yield "cross_entropy", {"label": np.full(N, 1 << 62)}
    yield "cross_entropy", {"label": misaligned(LABELS)}
    yield "cross_entropy", {"targets": Z[:-1]}
    yield "cross_entropy", {"label": None}
    yield "cross_entropy", {"z": Z[:, :0], "out": Z[:, :0]}
    yield "cross_entropy", {"loss": ONES.astype(np.float32)}
    yield "moments", {"y": LABELS + 1}
    yield "products", {"p": 0}
    yield "products", {"v": 0}
    yield "products", {"v": 1 << 64}
    yield "products", {"product": 2}
    yield "products", {"slope": np.ones(N - 1)}
    yield "penalize", {"tokens": OUT_OF_RANGE[0]}
    yield "find_repeats", {"lengths": np.ones(5, int)}
    yield "sample", {"z": misaligned(Z)}
    yield "sample", {"row_keys": np.ones((N, 3))}


@pytest.mark.parametrize("function", RIGHT)
def test_wrong_calls(function):
    call = getattr(native._native, function)
    for name, wrong in wrong_calls():
        if name != function:
            continue
        arguments = {
            name: value.copy() if isinstance(value, np.ndarray) else value
            for name, value in RIGHT[function].items()
        }
        call(**arguments)
        try:
            call(**{**arguments, **wrong})
        except (TypeError, ValueError, BufferError, AttributeError, OverflowError):
            continue
        pytest.fail(f"{function} accepts {wrong}")


def test_sizes_of_memory():
    for size in (1 << 60, (1 << 64) - 1, (1 << 64) - (1 << 20)):
        with pytest.raises(MemoryError, match=str(size)):
            native._native.empty(size)
    for wrong in (-1, 1 << 64, 1.5, None):
        with pytest.raises(TypeError):
            native._native.empty(wrong)


def test_rows_at_addresses():
    z, out = np.ones((3, 4), np.float32), np.empty((3, 4), np.float32)
    right = {"op": 0, "kind": 0, "z": z.ctypes.data, "out": out.ctypes.data, "rows": 3, "k": 4}
    native._native.rows(**right, t=1.0)
    np.testing.assert_array_equal(out, 0.25)
    for name, wrong in [
        *(("op", n) for n in (-1, 3)),
        *(("kind", n) for n in (-1, 4)),
        *((name, 0) for name in ("z", "out")),
        *((name, n) for name in ("rows", "k") for n in (-1, 1 << 62)),
    ]:
        with pytest.raises(ValueError, match="must"):
            native._native.rows(**(right | {name: wrong}), t=1.0)

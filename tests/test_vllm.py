"""The logits processor for vLLM, called as by its model runners: batches, rows, errors, interfaces.

The real classes of vLLM are used where it is installed. Otherwise stand-ins, written after the
documentation of vLLM 0.29 (model runner V1) and 0.32 (V2), take their place; the processor was not
run inside vLLM.
"""

import enum
import json
import subprocess
import sys
from dataclasses import dataclass
from math import inf
from types import SimpleNamespace

import numpy as np
import pytest

import logitlab

torch = pytest.importorskip("torch")

from logitlab.vllm import SamplerProcessor  # noqa: E402

try:
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality
except ImportError:

    class MoveDirectionality(enum.Enum):
        UNIDIRECTIONAL = enum.auto()
        SWAP = enum.auto()

    @dataclass(frozen=True)
    class BatchUpdate:
        batch_size: int
        removed: list
        added: list
        moved: list

    @dataclass
    class SamplingParams:
        temperature: float = 1.0
        seed: int | None = None
        extra_args: dict | None = None


K = 40
SETTINGS = [
    {"temperature": 0.7, "typical_p": 0.6},
    {"temperature": 2.0, "top_n_sigma": 1.0, "order": "llama.cpp"},
    {"top_k": 5, "eta": 0.05, "order": "vllm"},
    {"temperature": 1.5, "top_a": 0.3, "min_p": 0.01},
    {
        "temperature": 0.5,
        "epsilon": 0.02,
        "top_p": 0.8,
        "order": ["top_p", "temperature", "epsilon"],
    },
    {"xtc_probability": 1.0, "xtc_threshold": 0.05, "top_k": 20},
]


def params(settings=None, seed=None):
    extra_args = None if settings is None else {"logitlab": settings}
    return SamplingParams(seed=seed, extra_args=extra_args)


def model_runner_v1():
    """The processor as model runner V1 makes it."""
    return SamplerProcessor(None, torch.device("cpu"), False)


def random_logits(rows, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (rows, K)).astype(np.float32))


def expected_row(z, settings):
    """One row under these settings; unchanged without them."""
    if settings is None:
        return z
    settings = dict(settings)
    return logitlab.truncate(z, **settings) / settings.get("temperature", 1.0)


class Batch:
    """The persistent batch of model runner V1: a list of requests, and its updates."""

    def __init__(self, rng):
        self.rng = rng
        self.requests = []

    def step(self, new, finished):
        """The update for new requests, (SamplingParams, output) pairs, and finished indices."""
        free, new = sorted(finished), list(new)
        added, moved = [], []
        while new:
            index = free.pop(0) if free else len(self.requests)
            request = new.pop(0)
            self.requests[index : index + 1] = [request]
            added.append((index, request[0], [1, 2], request[1]))
        removed = sorted(free, reverse=True)
        for index in free:
            self.requests[index] = None
        for index in free:
            while self.requests and self.requests[-1] is None:
                self.requests.pop()
            if index < len(self.requests):
                moved.append((len(self.requests) - 1, index, MoveDirectionality.UNIDIRECTIONAL))
                self.requests[index] = self.requests.pop()
        for _ in range(self.rng.integers(3)):
            if len(self.requests) > 1:
                a, b = (int(i) for i in self.rng.choice(len(self.requests), 2, replace=False))
                moved.append((a, b, MoveDirectionality.SWAP))
                self.requests[a], self.requests[b] = self.requests[b], self.requests[a]
        if not (added or removed or moved):
            return None
        return BatchUpdate(len(self.requests), removed=removed, added=added, moved=moved)


def test_rows_over_batch_updates():
    """Requests keep their settings when others are removed, replaced, moved and swapped."""
    rng = np.random.default_rng(0)
    batch, processor = Batch(rng), model_runner_v1()
    kinds, sizes = set(), set()
    for step in range(300):
        size = len(batch.requests)
        finished = rng.choice(size, rng.integers(size + 1) if size > 5 else 0, replace=False)
        choices = [None, *SETTINGS]
        new = [(params(choices[rng.integers(7)]), []) for _ in range(rng.integers(4))]
        update = batch.step(new, [int(i) for i in finished])
        kinds |= {"none"} if update is None else {direction.name for *_, direction in update.moved}
        sizes.add(len(batch.requests))
        processor.update_state(update)
        z = random_logits(len(batch.requests), step)
        got = processor.apply(z.clone())
        for row, (request, _) in enumerate(batch.requests):
            settings = (request.extra_args or {}).get("logitlab")
            assert torch.equal(got[row], expected_row(z[row], settings)), (step, row)
    assert kinds == {"none", "SWAP", "UNIDIRECTIONAL"}
    assert max(sizes) >= 10


def test_batch_without_settings_is_returned_unchanged():
    processor = model_runner_v1()
    processor.update_state(BatchUpdate(2, [], [(i, params(), [1], []) for i in range(2)], []))
    z = random_logits(2)
    original = z.clone()
    assert processor.apply(z) is z
    assert torch.equal(z, original)


def test_logits_are_changed_in_place():
    processor = model_runner_v1()
    added = [(0, params(), [1], []), (1, params({"top_k": 2}), [1], [])]
    processor.update_state(BatchUpdate(2, [], added, []))
    z = random_logits(2)
    assert processor.apply(z) is z
    assert (z > -inf).sum(1).tolist() == [K, 2]


@pytest.mark.parametrize("special", [torch.nan, -inf, inf])
def test_no_row_stops_the_engine(special):
    """NaN, a row without any token, and infinity."""
    processor = model_runner_v1()
    added = [(i, params(x), [1], []) for i, x in enumerate(SETTINGS)]
    processor.update_state(BatchUpdate(len(added), [], added, []))
    z = torch.full((len(added), K), special)
    assert processor.apply(z).shape == z.shape


def test_top_k_of_any_size():
    """Valid integers beyond int64, beside requests with and without top_k."""
    processor = model_runner_v1()
    added = [(i, params({"top_k": k}), [1], []) for i, k in enumerate([2, 2**63, 10**40, None])]
    processor.update_state(BatchUpdate(4, [], added, []))
    assert (processor.apply(random_logits(4)) > -inf).sum(1).tolist() == [2, K, K, K]


def test_json_text_as_from_the_server():
    """vllm_xargs of the server has strings and numbers, no objects."""
    sampler = logitlab.Sampler(temperature=0.5, top_n_sigma=1.5, order="llama.cpp")
    processor = model_runner_v1()
    added = [
        (0, params(sampler.to_json()), [1], []),
        (1, params(json.loads(sampler.to_json())), [1], []),
        (2, params('{"top_n_sigma": "inf"}'), [1], []),
    ]
    processor.update_state(BatchUpdate(3, [], added, []))
    z = random_logits(1).repeat(3, 1)
    got = processor.apply(z.clone())
    assert torch.equal(got[0], sampler.truncate(z[0]) / 0.5)
    assert torch.equal(got[1], got[0])
    assert torch.equal(got[2], z[2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_p": 2.0}, r"top_p must be in \(0, 1\], got 2.0"),
        ({"top_k": 2.5}, "top_k must be an int"),
        ({"temperature": "hot"}, "temperature must be a"),
        ({"temperature": None}, "temperature must be a real number or array, got None"),
        ({"topp": 0.5}, r"text must have settings of temperature, .*, got 'topp'"),
        ({"top_p": [0.5, 0.9]}, r"top_p must be one number, got shape \(2,\)"),
        ({"temperature": [0.5]}, r"temperature must be one number, got shape \(1,\)"),
        ({"order": "engine"}, "order must be 'transformers', .*, got 'engine'"),
        (
            {"temperature": -1.0, "dynatemp_range": 0.5},
            "temperature must be >= 0 if dynatemp_range > 0, got -1.0",
        ),
        ('{"top_a": 3}', r"top_a must be in \[0, 1\], got 3"),
        ("top_p", "Expecting value"),
        (0.5, "text must be a JSON object, got '0.5'"),
        ({"top_p": np.float32(0.5)}, "not JSON serializable"),
        ("[" * 100_000, "maximum recursion depth"),
    ],
)
def test_errors_of_requests(settings, message):
    """All are ValueErrors of validation that name the argument."""
    with pytest.raises(ValueError, match=r'^extra_args\["logitlab"\]: .*' + message):
        SamplerProcessor.validate_params(params(settings))


def test_valid_requests():
    for settings in [None, {}, *SETTINGS, {"top_k": None}]:
        assert SamplerProcessor.validate_params(params(settings)) is None
    SamplerProcessor.validate_params(SamplingParams(extra_args={"other": 1}))


def test_greedy_requests_follow_xtc():
    """The processor may change the largest logit, so vLLM applies it to greedy requests too."""
    processor = model_runner_v1()
    assert not processor.is_argmax_invariant()
    settings = {"xtc_probability": 1.0, "xtc_threshold": 0.05}
    processor.update_state(BatchUpdate(1, [], [(0, params(settings), [1], [])], []))
    z = torch.tensor([[3.0, 2.9, 2.8, -5.0]])
    assert processor.apply(z).argmax().item() == 2


# Whether XTC is applied to a row shows in its number of tokens: 1 or K.
XTC = {"xtc_probability": 0.5, "xtc_threshold": 0.01}
DISTINCT = torch.arange(K) / 100  # with every probability above the threshold


def decisions(seeds, steps, processor=None, start=0):
    """Of requests with these seeds in one batch, over some steps: shape (steps, requests)."""
    processor = processor or model_runner_v1()
    outputs = [[7] * start for _ in seeds]
    added = [(i, params(XTC, seed), [1], outputs[i]) for i, seed in enumerate(seeds)]
    processor.update_state(BatchUpdate(len(seeds), [], added, []))
    applied = []
    for _ in range(steps):
        kept = (processor.apply(DISTINCT.repeat(len(seeds), 1)) > -inf).sum(1)
        assert set(kept.tolist()) <= {1, K}
        applied.append((kept == 1).tolist())
        for output in outputs:
            output.append(7)
    return np.array(applied)


def test_xtc_decisions_depend_on_seed_and_position():
    """Not on the batch, nor on whether the request was interrupted."""
    seeds = [3, -8, 2**63 - 1, 3]
    together = decisions(seeds, 200)
    assert (together[:, 0] == together[:, 3]).all()
    assert (together[:, 0] != together[:, 1]).any()
    np.testing.assert_array_equal(decisions([-8], 200)[:, 0], together[:, 1])
    np.testing.assert_array_equal(decisions(seeds, 100, start=100), together[100:])
    assert (np.abs(together.mean(0) - 0.5) < 0.15).all()


def test_xtc_decisions_without_seed():
    """They follow the generator of torch, which vLLM seeds alike in parallel processes."""
    torch.manual_seed(5)
    first = decisions([None, None], 100)
    torch.manual_seed(5)
    np.testing.assert_array_equal(decisions([None, None], 100), first)
    assert (first[:, 0] != first[:, 1]).any()
    assert (decisions([None, None], 100) != first).any()


def context(slots, rows=None, positions=None):
    """That of model runner V2: the slots of the requests and of the rows, which drafts repeat."""
    rows = slots if rows is None else rows
    positions = [0] * len(rows) if positions is None else positions
    return SimpleNamespace(
        idx_mapping_np=np.array(slots),
        expanded_idx_mapping=torch.tensor(rows),
        pos=torch.tensor(positions),
    )


def test_model_runner_v2():
    """Slots are reused, rows change their order, and drafts have rows of their own."""
    rng = np.random.default_rng(0)
    processor = SamplerProcessor(None, SimpleNamespace(max_num_reqs=8))
    slots = {}
    for step in range(200):
        slot = int(rng.integers(8))
        settings = [None, *SETTINGS][rng.integers(7)]
        slots[slot] = settings
        assert processor.add_request(slot, params(settings)) == (settings is not None)
        running = [int(i) for i in rng.permutation(list(slots))[: rng.integers(1, 9)]]
        rows = [slot for slot in running for _ in range(rng.integers(1, 4))]
        z = random_logits(len(rows), step)
        got = processor.apply(z.clone(), context(running, rows))
        for i, slot in enumerate(rows):
            assert torch.equal(got[i], expected_row(z[i], slots[slot])), (step, i)


def test_xtc_decisions_of_drafts():
    """They depend on the position of the row, as without drafts."""
    processor = SamplerProcessor(None, None)
    processor.add_request(4, params(XTC, 9))
    z = DISTINCT.repeat(60, 1)
    together = processor.apply(z.clone(), context([4], [4] * 60, list(range(60))))
    single = [processor.apply(z[:1].clone(), context([4], [4], [i])) for i in range(60)]
    assert torch.equal(together, torch.cat(single))
    assert len({(row > -inf).sum().item() for row in together}) == 2


INTERFACES = """
import abc, importlib, sys, types

def module(name, methods):
    for i in range(name.count(".") + 1):
        sys.modules.setdefault(".".join(name.split(".")[: i + 1]), types.ModuleType(name))
    abstract = {m: abc.abstractmethod(lambda self: None) for m in methods}
    sys.modules[name].LogitsProcessor = abc.ABCMeta("LogitsProcessor", (), abstract)
    return sys.modules[name].LogitsProcessor

bases = [module("vllm.v1.sample.logits_processor",
                ["__init__", "apply", "is_argmax_invariant", "update_state"])]
if "v2" in sys.argv:
    bases.append(module("vllm.v1.worker.gpu.sample.logits_processor", ["apply"]))
path, _, name = "logitlab.vllm:SamplerProcessor".partition(":")
cls = getattr(importlib.import_module(path), name)
assert all(issubclass(cls, base) for base in bases)
cls(None, "cpu", False), cls(None, None)
"""


@pytest.mark.parametrize("runner", ["v1", "v2"])
def test_interfaces(runner):
    """A subclass of the base class of each model runner, with all of its abstract methods."""
    subprocess.run([sys.executable, "-c", INTERFACES, runner], check=True)


def test_inside_vllm():
    """The base classes of vLLM itself."""
    pytest.importorskip("vllm")
    from vllm.v1.sample.logits_processor import LogitsProcessor

    assert issubclass(SamplerProcessor, LogitsProcessor)
    assert isinstance(model_runner_v1(), LogitsProcessor)

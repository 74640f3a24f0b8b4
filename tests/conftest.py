import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import logitlab

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="fast tests without torch, JAX, Dask")


def pytest_configure(config):
    if config.option.quick:
        config.option.markexpr = "not slow and not torch and not jax and not dask and not browser"


def pytest_ignore_collect(collection_path, config):
    """With -m "not torch and not slow", modules that import torch or are slow are not imported."""
    excluded = re.findall(r"\bnot (\w+)", config.option.markexpr)
    if collection_path.suffix != ".py" or not excluded:
        return None
    names = "|".join(excluded)
    marked = rf"^(?:import|from) (?:{names})\b|^pytestmark = \[?pytest.mark.(?:{names})\b"
    return True if re.search(marked, collection_path.read_text("utf-8"), re.MULTILINE) else None


def pytest_collection_modifyitems(items):
    """Marks each test with the libraries that it, or its module, uses."""
    for item in items:
        names = {getattr(value, "__name__", "") for value in vars(item.module).values()}
        used = {name.split(".")[0] for name in names} | set(item.fixturenames)
        used |= {"dask"} if "distributed" in used else set()
        for marker in used & {"torch", "jax", "dask", "browser"}:
            item.add_marker(marker)


@pytest.fixture(params=["wideresnet-16-4-cifar-10", "wideresnet-16-4-cifar-100"])
def predictions(request):
    """Path, probabilities and labels of 10000 real predictions."""
    path = DATA / f"{request.param}.npz"
    if not path.exists():
        pytest.skip(f"no such file: {path}")
    with np.load(path) as archive:
        return path, archive["predictions"], archive["ground_truth"]


@pytest.fixture
def labelled():
    rng = np.random.default_rng(3)
    z = rng.standard_normal((500, 6)) * 2
    y = np.array([rng.choice(6, p=p) for p in logitlab.softmax(z * 0.6)])
    return z, y


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium, where one is installed."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=quiet)
        yield opened
        opened.close()

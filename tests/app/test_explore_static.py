"""The explorer as a folder of files: its export, and the page in a browser without a server."""

import contextlib
import http.server
import io
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app
from logitlab._app.explore.datasets import EXAMPLES, Datasets
from logitlab._app.explore.export import export_page, package_archive
from logitlab._app.explore.view import answer

pytestmark = pytest.mark.slow

FIVE = np.array([2.0, 1.0, 3.0, 5.0, 4.0])


@contextlib.contextmanager
def served(folder):
    """The address of a folder on a server of static files."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Nothing."""

    handler = partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "page"
    export_page(out)
    return out


@pytest.fixture(scope="module")
def address(folder):
    with served(folder) as address:
        yield address


@pytest.fixture
def open_page(browser, address):
    """Opens pages; at the end none has a message, and all requests were to the server."""
    opened = []

    def open_one(path="", width=1200, scheme="light", status="unavailable", at=address):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        messages, requests = [], []
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{at}{path}")
        page.wait_for_selector(f"#status[data-status={status}]", state="attached", timeout=120_000)
        page.wait_for_selector("#picture[aria-busy=false]", state="attached")
        opened.append((page, messages, requests, at))
        return page

    yield open_one
    for page, messages, requests, at in opened:
        assert messages == []
        assert all(url.startswith((at, "data:,", f"blob:{at}")) for url in requests), requests
        page.close()


def probabilities(page):
    """Those that the buttons beside the bars explain."""
    tips = page.eval_on_selector_all("#bars .value", "all => all.map(a => a.dataset.tip)")
    return np.array(
        [
            float(tip.split("probability ")[1].split(",")[0].replace("−", "-"))
            if ": probability" in tip
            else 0
            for tip in tips
        ]
    )


def run(*arguments):
    result = CliRunner().invoke(app, ["explore", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_command(tmp_path, monkeypatch):
    """The folder, and how to open it."""
    monkeypatch.chdir(tmp_path)
    status, stdout, stderr = run("--export", "page")
    assert (status, stderr) == (0, "")
    assert stdout == (
        f"Written: {os.path.join('page', 'index.html')} and the files that it loads\n"
        "To open it: python -m http.server -d page\n"
    )
    assert {"index.html", "main.js", "softmax.js", "style.css"} <= set(os.listdir("page"))
    assert not Path("page/pyodide").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pyodide", "."], "--pyodide needs --export"),
        (["z.npy", "--export", "new"], "--export writes the examples only; omit LOGITS"),
        (
            ["--export", "full"],
            f"{os.path.join('full', 'index.html')}: the output file exists; add --overwrite to "
            "replace it, or choose another output",
        ),
        (["--export", "new", "--pyodide", "none"], "--pyodide none: no such folder"),
        (
            ["--export", "new", "--pyodide", "full"],
            "--pyodide full: has no pyodide.mjs; it must be a Pyodide distribution with its "
            "wheel of NumPy",
        ),
    ],
)
def test_errors(tmp_path, monkeypatch, arguments, message):
    """One line, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "index.html").touch()
    assert run(*arguments) == (2, "", f"logitlab: {message}\n")
    assert os.listdir() == ["full"]


def test_runtime_is_copied(tmp_path):
    """The files of Pyodide and its NumPy, no other wheels; the page names the wheel."""
    source, wheel = tmp_path / "pyodide", "numpy-2.4.6-cp314-cp314-pyemscripten_2026_0_wasm32.whl"
    source.mkdir()
    runtime = ["pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip"]
    names = {*runtime, "pyodide-lock.json", wheel}
    for name in (*names, "pyodide.mjs.map", "pandas-2.0-cp314-cp314-pyemscripten_wasm32.whl"):
        (source / name).write_bytes(name.encode())
    export_page(tmp_path / "page", source)
    assert set(os.listdir(tmp_path / "page" / "pyodide")) == names
    page = (tmp_path / "page" / "index.html").read_text("utf-8")
    assert f'data-python="worker" data-wheel="{wheel}"' in page
    assert "unsafe" not in page


STATES = [
    "set=five&T=2&open=jacobian,gradient,precision&n=100",
    "set=gentle&open=simplex&T=-1",
    "set=digits&T=1.5&open=reliability,gradient",
    "set=digits&by=mistake&row=3",
    "set=tail&T=1.2&p=0.9&minp=0.01&n=1000",
    "set=five&typical=0.9&order=llama.cpp",
    "set=five&T=warm",
]


def test_package_needs_numpy_only(tmp_path, folder):
    """The Python of the browser: the archive and NumPy give the values that the server gives."""
    packages = tmp_path / "packages"
    zipfile.ZipFile(io.BytesIO(package_archive())).extractall(packages)
    assert list((packages).glob("array_api_compat-*.dist-info/METADATA"))
    site = Path(np.__file__).parent.parent
    for name in ("numpy", "numpy.libs"):
        if (site / name).exists():
            (packages / name).symlink_to(site / name)
    code = (
        "import json, sys\n"
        "packages, digits, *states = sys.argv[1:]\n"
        "sys.path.insert(0, packages)\n"
        "platform, sys.platform = sys.platform, 'emscripten'  # without threads\n"
        "import logitlab._app.explore.ranking\n"
        "sys.platform = platform\n"
        "from logitlab._app.explore.browser import make_answer\n"
        "import logitlab\n"
        "assert not logitlab.native_available()\n"
        "answer = make_answer(open(digits).read())\n"
        "print(json.dumps([json.loads(answer(state)) for state in states]))\n"
    )
    # Without site-packages: -S; without the current folder and variables: -I.
    command = [sys.executable, "-I", "-S", "-c", code, str(packages), str(folder / "digits.json")]
    process = subprocess.run([*command, *STATES], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    datasets = Datasets()
    for state, shown in zip(STATES, json.loads(process.stdout), strict=True):
        expected = json.loads(json.dumps(answer(state, datasets)))
        while "progress" in expected:
            expected = json.loads(json.dumps(answer(state, datasets)))
        if "precision" in shown:  # bfloat16 needs ml_dtypes
            assert len(shown.pop("precision")["rows"]) == 6
            assert len(expected.pop("precision")["rows"]) == 8
        assert_close(shown, expected, state)


def assert_close(a, b, place):
    """Equal, but for rounding errors."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_close(a[key], b[key], f"{place}: {key}")
    elif isinstance(a, list):
        assert len(a) == len(b), place
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_close(x, y, f"{place}[{i}]")
    elif isinstance(a, float) and isinstance(b, float):
        assert math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12), place
    else:
        assert a == b, place


def test_softmax_in_javascript(open_page):
    """Equal to logitlab.softmax, with its limits."""
    cases = [
        (z, T)
        for z in (
            [2.0, 1, 3, 5, 4],
            [1.0, 3, 3],
            [1e308, -1e308, 0],
            [-np.inf, 1, 2],
            [np.inf, 1, np.inf],
            [-np.inf, -np.inf],
            [np.nan, 1],
            [0.0],
            [1e-320, 0],
        )
        for T in (0.0, -0.0, 1.0, 0.3, 1e-320, 1e308, np.inf, -1.0, -np.inf, -1e-9)
    ]
    coded = [[list(map(repr, z)), repr(T)] for z, T in cases]
    shown = open_page().evaluate(
        """async (cases) => {
          const { softmax } = await import("./softmax.js");
          const number = (x) => x === "nan" ? NaN : x.endsWith("inf") ? Number(`${x.replace("inf", "Infinity")}`) : Number(x);
          return cases.map(([z, T]) => softmax(z.map(number), number(T)).map(String));
        }""",  # noqa: E501
        coded,
    )
    for (z, T), p in zip(cases, shown, strict=True):
        expected = logitlab.softmax(np.array(z), temperature=T)
        np.testing.assert_allclose(
            np.array(p, dtype=float), expected, rtol=1e-12, atol=1e-15, err_msg=f"{z}, T = {T}"
        )


def test_without_python(open_page):
    """Probabilities, truncation, samples and the Jacobian; one sentence on what is missing."""
    page = open_page("#T=2&shift=3&scale=0.5")
    p = logitlab.softmax(0.5 * FIVE + 3, temperature=2)
    np.testing.assert_allclose(probabilities(page), p, rtol=1e-5)
    assert "need Python" in page.inner_text("#status")
    for hidden in ("#precision", "#gradient", "#python", "#more", "#order"):
        assert page.locator(hidden).is_hidden()
    cell = page.inner_text("#jacobian tbody tr:nth-child(2) td:nth-of-type(2)")
    assert float(cell.replace("−", "-")) == pytest.approx(
        logitlab.jacobian(0.5 * FIVE, temperature=2)[1, 1], rel=0.1
    )
    for name, value, settings in (
        ("p", "0.6", {"top_p": 0.6}),
        ("k", "2", {"top_k": 2}),
        ("minp", "0.5", {"min_p": 0.5}),
    ):
        page.evaluate(f"location.hash = '#T=1.5&{name}={value}'")
        page.wait_for_selector("#bars .removed")
        kept = logitlab.truncate(FIVE, temperature=1.5, **settings)
        expected = logitlab.softmax(kept, temperature=1.5)
        np.testing.assert_allclose(probabilities(page), expected, rtol=1e-5)
    page.click("#reset")
    page.click("text='10,000'")
    page.wait_for_selector("#samples:visible")
    shown = page.eval_on_selector_all(
        "#bars .probability > em", "all => all.map(dot => parseFloat(dot.style.left) / 100)"
    )
    np.testing.assert_allclose(shown, logitlab.softmax(FIVE), atol=0.02)
    page.evaluate("location.hash = '#typical=0.5'")
    page.wait_for_selector("#message:visible")
    assert "typical needs Python" in page.inner_text("#message")


def test_calibration_without_python(open_page):
    """The log-loss of the digits at the nearest stored temperature."""
    page = open_page("?embed=calibration#T=2")
    text = page.inner_text("#reliability")
    z = EXAMPLES["digits"][1]()
    rows, labels = np.concatenate(list(z.source.read())).astype(float), z.labels
    t = float(text.split(" at T = ")[1].split(":")[0])
    assert 1.9 < t < 2.1
    loss = float(text.split("log-loss ")[1].split(" nats")[0])
    assert loss == pytest.approx(logitlab.cross_entropy(rows, labels, temperature=t), rel=1e-3)


def test_python_that_does_not_start(browser, folder, tmp_path, open_page):
    """A page made with Pyodide whose files are missing is that without Python."""
    broken = tmp_path / "page"
    shutil.copytree(folder, broken)
    index = broken / "index.html"
    text = index.read_text("utf-8")
    index.write_text(text.replace('data-python="none"', 'data-python="worker"'), "utf-8")
    with served(broken) as at:
        page = browser.new_page()
        page.goto(at)
        page.wait_for_selector("#status[data-status=unavailable]")
        np.testing.assert_allclose(probabilities(page), logitlab.softmax(FIVE), rtol=1e-5)
        assert "pyodide.mjs" in page.inner_text("#status")
        page.close()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("T=warm", "T must be a number, got 'warm'"),
        ("scale=0", "scale must be > 0, got 0"),
        ("shift=inf", "shift must be finite, got inf"),
        ("k=1.5", "k must be an integer, got 1.5"),
        ("p=2", "p must be <= 1, got 2"),
        ("set=none", "set must be one of five, "),
        ("z=1,x", "z must be a number, got 'x'"),
        ("edit=9:1", "edit must be <= 4, got 9"),
        ("edit=1", "edit must be a number, got ''"),
    ],
)
def test_invalid_state(open_page, state, message):
    """The rule and what came; the default view behind it, and a button that restores it."""
    page = open_page(f"#{state}")
    assert message in page.inner_text("#message")
    np.testing.assert_allclose(probabilities(page), logitlab.softmax(FIVE), rtol=1e-5)
    page.click("#restore")
    page.wait_for_selector("#message", state="hidden")
    assert page.evaluate("location.hash") == ""


def test_state_in_the_address(open_page):
    """The address restores the view; presets write it and tell what to see."""
    page = open_page()
    page.click("text='Truncate'")
    assert "top-p 0.8" in page.inner_text("#story")
    state = page.evaluate("location.hash")
    assert state == "#T=1.5&p=0.8&n=100"
    other = open_page(state)
    np.testing.assert_array_equal(probabilities(page), probabilities(other))
    for name in ("Sharpen", "Flatten", "Overflow"):
        page.click(f"text='{name}'")
        assert page.inner_text("#story").startswith(name)
    page.fill("#T-text", "3")
    page.press("#T-text", "Enter")
    assert page.locator("#story").is_hidden()


EMBEDS = {
    "temperature": {"temperature", "bars", "numbers"},
    "scaling": {"scales", "bars"},
    "sampling": {"temperature", "truncation", "sampling", "bars", "samples"},
    "jacobian": {"temperature", "bars", "jacobian"},
    "calibration": {"temperature", "reliability"},
}


@pytest.mark.parametrize("width", [700, 390])
@pytest.mark.parametrize("name", EMBEDS)
def test_embedded(open_page, name, width):
    """Only the blocks of the topic, and a link to the whole page with the same settings."""
    page = open_page(f"?embed={name}#T=2&n=10", width)
    blocks = page.eval_on_selector_all(
        "[data-block]", "all => all.filter(a => a.checkVisibility()).map(a => a.dataset.block)"
    )
    assert set(blocks) - {"samples"} == EMBEDS[name] - {"samples"}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert "T=2" in page.get_attribute("#open-all", "href")


def test_unknown_embed(open_page):
    """A message on the whole page."""
    page = open_page("?embed=x")
    assert "embed must be one of temperature, " in page.inner_text("#message")
    assert page.locator("#settings").is_visible()


def test_frame_has_the_height_of_its_content(browser, folder, address):
    """In a page of the same site."""
    (folder / "frame.html").write_text('<iframe src="./?embed=jacobian" width="600"></iframe>')
    page = browser.new_page()
    page.goto(f"{address}frame.html")
    frame = page.frames[1]
    frame.wait_for_selector("#jacobian table")
    page.wait_for_timeout(200)
    assert frame.evaluate("document.documentElement.scrollHeight - innerHeight") <= 4
    page.close()


def test_keyboard(open_page):
    """A preset, an explanation, cells of the Jacobian and a logit without a mouse."""
    page = open_page()
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(({id, dataset: d, className: c, tagName: t}) => id || d.preset || c || t)"
                "(document.activeElement)"
            )
        )
    assert {"skip", "set", "T", "sharpen", "track", "value", "TD"} <= set(reached)
    page.focus("[data-preset=sharpen]")
    page.keyboard.press("Enter")
    assert "T=0.3" in page.evaluate("location.hash")
    page.focus("#numbers button")
    assert "Σ p ln p" in page.inner_text("#tip")
    assert page.get_attribute("#numbers button", "aria-describedby") == "tip"
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    page.focus("#jacobian td[tabindex='0']")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert "∂p(1) / ∂z(1)" in page.inner_text("#tip")
    page.focus("#bars li:nth-child(2) .track")
    page.keyboard.press("Delete")
    assert "edit=1:-inf" in page.evaluate("location.hash")


def test_explanation_on_hover_and_tap(browser, address):
    """It stays within the window."""
    page = browser.new_page(viewport={"width": 390, "height": 800}, has_touch=True)
    page.goto(address)
    page.wait_for_selector("#status[data-status=unavailable]")
    for act in ("hover", "tap"):
        getattr(page.locator("#bars .value").nth(3), act)()
        assert "Class 3: probability 0.636409" in page.inner_text("#tip")
        box = page.locator("#tip").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        page.mouse.move(5, 5)
        page.touchscreen.tap(5, 5)
        assert page.locator("#tip").is_hidden()
    page.close()


@pytest.mark.parametrize("state", ["", "#T=0.01", "#shift=100&scale=3"])
@pytest.mark.parametrize("width", [1200, 390])
def test_nothing_is_cut_off(open_page, width, state):
    """Five classes: the Jacobian with its sums fits, without scrolling."""
    page = open_page(state, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    scroll = page.locator("#jacobian .scroll")
    assert scroll.evaluate("a => a.scrollWidth - a.clientWidth") <= 0


@pytest.fixture
def axe():
    path = os.environ.get("LOGITLAB_AXE")
    if path is None:
        pytest.skip("LOGITLAB_AXE does not name axe.min.js, of the npm package axe-core")
    return Path(path).read_text("utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("path", ["", "#T=1.5&p=0.8&n=100&shift=2", "#T=x", "?embed=calibration"])
def test_accessibility(open_page, axe, path, width, scheme):
    """No violations that axe-core finds."""
    page = open_page(path, width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []


@pytest.fixture(scope="module")
def python_address(tmp_path_factory):
    pyodide = os.environ.get("LOGITLAB_PYODIDE")
    if pyodide is None:
        pytest.skip("LOGITLAB_PYODIDE does not name a folder with Pyodide and its NumPy wheel")
    out = tmp_path_factory.mktemp("export") / "page"
    export_page(out, Path(pyodide))
    with served(out) as address:
        yield address


def test_python_in_the_browser(open_page, python_address):
    """Every panel; the probabilities and the code of logitlab, checked against JavaScript."""
    page = open_page("#T=1.5&n=100", status="checked", at=python_address)
    assert "tolerance is 1e−12" in page.inner_text("#status")
    names = {}
    exec(page.inner_text("#code"), names)
    np.testing.assert_allclose(probabilities(page), names["p"], rtol=1e-5)
    listed = [int(k) for k in page.inner_text(".sample-list").split()]
    assert listed == names["samples"].tolist()
    for name in ("jacobian", "precision", "gradient"):
        assert "eed" not in page.inner_text(f"#{name}")
        assert page.locator(f"#{name} [data-tip]").count() >= 5

    def go_to(state):
        page.evaluate(f"location.hash = '#{state}'")
        page.wait_for_selector("#picture[aria-busy=true]", state="attached")
        page.wait_for_selector("#picture[aria-busy=false]", timeout=60_000)
        assert page.locator("#message").is_hidden()

    go_to("typical=0.5&order=llama.cpp")
    kept = logitlab.truncate(FIVE, typical_p=0.5, order="llama.cpp")
    np.testing.assert_allclose(probabilities(page), logitlab.softmax(kept), rtol=1e-5)
    go_to("set=digits&by=mistake")
    assert page.locator("#reliability svg").count() == 2
    go_to("set=tail&p=0.9&n=10000")
    assert page.locator("#bars li").count() == 40
    assert page.get_attribute("#status", "data-status") == "checked"

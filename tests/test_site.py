"""The guide as a site: its pages, built without running them, in a browser."""

import doctest
import functools
import http.server
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import logitlab

pytestmark = pytest.mark.slow

pytest.importorskip("sphinx")
GUIDE = Path(__file__).parent.parent / "guide"
LANDING = GUIDE / "index.md"


def test_code_of_the_landing_page(tmp_path, monkeypatch):
    """The sessions on the cards print what they say, with files of logits and labels."""
    load_wine = pytest.importorskip("sklearn.datasets").load_wine
    scipy = pytest.importorskip("scipy")
    pytest.importorskip("scipy.special")
    monkeypatch.chdir(tmp_path)
    z = np.random.default_rng(0).normal(0, 3, (500, 4))
    np.save("z.npy", z)
    np.save("y.npy", logitlab.sample(z, rng=0))
    names = {"np": np, "logitlab": logitlab, "scipy": scipy, "load_wine": load_wine}
    blocks = re.findall(
        r"^```pycon\n(.*?)^```", LANDING.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) == 6
    for block in blocks:
        test = doctest.DocTestParser().get_doctest(block, dict(names), "index.md", None, 0)
        assert len(test.examples) >= 2
        assert doctest.DocTestRunner().run(test).failed == 0, block


def site_files():
    sys.path.insert(0, str(GUIDE))
    try:
        import site_files
    finally:
        sys.path.remove(str(GUIDE))
    return site_files


def test_install_line():
    """The landing page installs from PyPI if a version is released, else from a clone."""
    text = LANDING.read_text("utf-8")
    line = re.search(r"^```bash\n(.*)\n```", text, re.MULTILINE)[1]
    released = site_files().released_versions()
    assert line == ("pip install logitlab" if released else "pip install .")
    assert ("nothing is released" in text) == (not released)


def test_versions(tmp_path, monkeypatch):
    """One entry for each released version, and one for a version that is not."""
    files = site_files()
    log = "# Changelog\n\n## Unreleased\n\n## 0.2.0 - 2027-02-01\n\n### Added\n\n## 0.1.0\n"
    (tmp_path / "CHANGELOG.md").write_text(log, "utf-8")
    monkeypatch.setattr(files, "HERE", tmp_path / "guide")
    monkeypatch.setattr(files, "version", lambda name: "0.2.0")
    entries = json.loads(files.switcher("https://example.org/logitlab"))
    assert [entry["version"] for entry in entries] == ["0.2.0", "0.1.0"]
    assert entries[1]["url"] == "https://example.org/logitlab/0.1.0/"
    monkeypatch.setattr(files, "version", lambda name: "0.3.0")
    assert json.loads(files.switcher("https://example.org"))[0]["url"] == "https://example.org/dev/"
    assert json.loads(files.switcher(""))[0] == {
        "name": "0.3.0 (not released)",
        "version": "0.3.0",
        "url": "",
    }


@pytest.fixture(scope="module")
def site(browser, tmp_path_factory):
    """The address of the guide, built without running its pages."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-D", "nb_execution_mode=off"]
    command += ["-D", "suppress_warnings=myst.header,myst-nb.lexer"]  # cells that were not run
    command += ["-D", "ogp_image=_static/logo.png"]  # instead of a card for each page
    subprocess.run([*command, GUIDE, folder], check=True)
    handler = functools.partial(Handler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Prints nothing."""


@pytest.fixture
def open_page(browser, site):
    """Opens pages of the site; none may have an error or a request to another server."""
    contexts, problems = [], []

    def open_one(path, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: failed(request))
        page.on("response", lambda r: r.status >= 400 and problems.append(f"{r.status} {r.url}"))
        page.on("request", lambda request: outside(request.url))
        page.goto(f"{site}/{path}")
        return page

    def failed(request):
        if request.failure != "net::ERR_ABORTED":  # the page was left
            problems.append(request.url)

    def outside(url):
        if not url.startswith((f"{site}/", "data:")):
            problems.append(url)

    yield open_one
    for context in contexts:
        context.close()
    assert problems == []


def test_slider(open_page):
    """The bars of the landing page are those of logitlab.softmax, from T = 0 to infinity."""
    page = open_page("index.html")
    slider = page.locator("#demo-temperature")
    seen = set()
    for key in [None, "Home", *["ArrowRight"] * 3, "End"]:
        if key:
            slider.press(key)
        text = page.inner_text("#demo-value")
        T = np.inf if text == "∞" else float(text)
        seen.add(T)
        p = page.eval_on_selector_all(
            "#demo-bars li", "all => all.map(bar => +bar.style.getPropertyValue('--p'))"
        )
        expected = logitlab.softmax([2.0, 1, 3, 5, 4], temperature=T)
        np.testing.assert_allclose(p, expected, atol=1e-12)
        code = page.inner_text("#demo-code").replace("math.inf", "float('inf')")
        np.testing.assert_array_equal(eval(code, {"logitlab": logitlab}), expected)
        labels = page.locator("#demo-bars b").all_inner_texts()
        assert labels == [f"{100 * value:.1f} %" for value in expected]
    assert {0, 1, np.inf} < seen


def test_copy_button(open_page):
    """The copied code of a card has no prompts and no output."""
    page = open_page("index.html", permissions=["clipboard-read", "clipboard-write"])
    card = page.locator(".sd-card", has_text="I teach or learn")
    card.locator("button.copybtn").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.splitlines()[0] == "z = [2.0, 1.0, 3.0]"
    assert ">>>" not in copied
    assert "array" not in copied
    page.goto(page.url.replace("index.html", "reference/logitlab.softmax.html"))
    page.wait_for_selector("button.copybtn")


def test_versions_of_the_page(open_page):
    """The button shows the version."""
    page = open_page("concepts/temperature.html")
    page.wait_for_selector(".version-switcher__button[data-active-version]")
    entries = json.loads(site_files().switcher(""))
    assert page.locator(".version-switcher__button").first.inner_text() == entries[0]["name"]


def test_search(open_page):
    """A search lists the page of a function."""
    page = open_page("search.html?q=hessian_product")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    links = page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
    assert any("logitlab.hessian_product" in link for link in links)


PAGES = [
    "index.html",
    "concepts/temperature.html",
    "concepts/errata.html",
    "howto/coming-from.html",
    "howto/calibrate.html",
    "reference/logitlab.sample.html",
]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_narrow_screen(open_page, theme):
    """No page is wider than a screen of 390 px."""
    page = open_page("index.html", viewport={"width": 390, "height": 844}, color_scheme=theme)
    root = page.url.removesuffix("index.html")
    for name in PAGES:
        page.goto(root + name)
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name


@pytest.mark.parametrize("name", ["temperature", "sampling"])
def test_frame_of_the_explorer(open_page, name):
    """It works, and does not scroll the page to itself."""
    page = open_page(f"concepts/{name}.html", viewport={"width": 1280, "height": 1000})
    frame = page.frame_locator("iframe.explorer")
    frame.locator("#bars li").first.wait_for()
    assert frame.locator("#bars li").count() == 5
    assert page.evaluate("scrollY") == 0

"""The explorer in a browser: the controls, and the values that the page shows."""

import signal
import subprocess
import sys

import numpy as np
import pytest

import logitlab

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explore")
    rng = np.random.default_rng(0)
    z = rng.normal(0, 3, (50, 6)).astype(np.float32)
    np.save(folder / "z.npy", z)
    np.save(folder / "y.npy", (z + rng.gumbel(0, 3, z.shape)).argmax(1))
    return folder


@pytest.fixture(scope="module")
def address(data):
    """The address of the page of a file with labels, served by the command."""
    command = [sys.executable, "-c", "from logitlab._app import main; main()", "explore"]
    command += [str(data / "z.npy"), "--labels", str(data / "y.npy"), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10) == ("", None)
    assert process.returncode == 0


class Explorer:
    """A page, its messages and requests, and the values that it shows."""

    def __init__(self, browser, address, state="", **options):
        options = {"viewport": {"width": 1300, "height": 900}, **options}
        self.page = browser.new_page(**options)
        self.messages, self.requests = [], []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(f"{address}#{state}")
        self.wait()

    def wait(self):
        """Wait until the page shows the settings in its address."""
        self.page.wait_for_selector("#picture[aria-busy=false]")
        self.page.wait_for_selector("#message", state="hidden")
        return self

    def state(self):
        return self.page.evaluate("location.hash.slice(1)")

    def probabilities(self):
        """The probabilities of the bars."""
        end = float(self.page.inner_text("#axis").split()[-2]) / 100
        return end * np.array(
            self.page.eval_on_selector_all(
                "#bars .probability > i", "all => all.map(bar => parseFloat(bar.style.width) / 100)"
            )
        )

    def logits(self):
        return [
            float(value)
            for value in self.page.eval_on_selector_all(
                "#bars .track", "all => all.map(track => track.getAttribute('aria-valuenow'))"
            )
        ]

    def run_code(self):
        names = {}
        exec(self.page.inner_text("#code"), names)
        return names


@pytest.fixture
def open_page(browser, address):
    """Opens pages; at the end none has a message, and all requests are to the server."""
    pages = []

    def open_one(*state, **options):
        pages.append(Explorer(browser, address, *state, **options))
        return pages[-1]

    yield open_one
    for shown in pages:
        assert shown.messages == []
        assert all(url.startswith((address, "data:,")) for url in shown.requests), shown.requests
        shown.page.close()


def drag(page, selector, to):
    """Drag from the middle of an element to a fraction of its width, in ten steps."""
    page.locator(selector).scroll_into_view_if_needed()
    box = page.locator(selector).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(box["x"] + to * box["width"], y, steps=10)
    page.mouse.up()


def test_temperature_slider(open_page):
    """The bars follow the slider, as logitlab.softmax."""
    shown = open_page("set=five")
    z = np.array([2.0, 1, 3, 5, 4])
    np.testing.assert_allclose(shown.probabilities(), logitlab.softmax(z), atol=1e-5)
    drag(shown.page, "#T", 0.75)
    shown.wait()
    T = float(shown.page.input_value("#T-text"))
    assert 5 < T < 20
    p = logitlab.softmax(z, temperature=T)
    np.testing.assert_allclose(shown.probabilities(), p, atol=1e-5)
    np.testing.assert_array_equal(shown.run_code()["p"], p)


SLIDERS = {  # of a stage: where the slider is dragged to, and its settings of logitlab.truncate
    "k": (0.4, "top_k"),
    "p": (0.5, "top_p"),
    "minp": (0.3, "min_p"),
    "typical": (0.5, "typical_p"),
    "epsilon": (0.8, "epsilon"),
    "eta": (0.8, "eta"),
    "nsigma": (0.2, "top_n_sigma"),
    "topa": (0.6, "top_a"),
    "xtc": (0.2, "xtc_threshold"),
    "dynatemp": (0.2, "dynatemp_range"),
}


@pytest.mark.parametrize("order", ["transformers", "llama.cpp"])
@pytest.mark.parametrize("name", SLIDERS)
def test_stages(open_page, name, order):
    """Off by default; the picture, the code and the address are those of logitlab.truncate."""
    to, setting = SLIDERS[name]
    shown = open_page(f"set=five&T=1.5&order={order}")
    page = shown.page
    page.evaluate("document.querySelector('#more').open = true")
    assert page.input_value(f"#{name}-text") == "off"
    assert "Sampler" not in page.inner_text("#code")
    drag(page, f"#{name}", to)
    shown.wait()
    value = float(page.input_value(f"#{name}-text"))
    settings = {setting: int(value) if name == "k" else value, "order": order}
    if name == "xtc":
        settings["xtc_probability"] = 1.0
    z = np.array([2.0, 1, 3, 5, 4])
    kept = logitlab.truncate(z, temperature=1.5, **settings) > -np.inf
    assert kept.all() == (name == "dynatemp")
    p = np.zeros(5)
    tokens, log_p = logitlab.sample_with_log_prob(z, 1000, rng=0, temperature=1.5, **settings)
    p[tokens] = np.exp(log_p)
    np.testing.assert_allclose(shown.probabilities(), p, atol=1e-5)
    removed = page.eval_on_selector_all("#bars li", "all => all.map(a => a.matches('.removed'))")
    assert removed == (~kept).tolist()
    assert f"{setting}={settings[setting]!r}" in page.inner_text("#code")
    np.testing.assert_allclose(shown.run_code()["p"], p, rtol=1e-12)
    assert page.inner_text("#used") == ("" if name in ("k", "p", "minp") else "(1 on)")
    page.fill(f"#{name}-text", "off")
    page.press(f"#{name}-text", "Enter")
    shown.wait()
    assert f"{name}=" not in shown.state()
    page.focus(f"#{name}")  # a field with the focus is not changed
    page.keyboard.press("End" if name in ("k", "p", "typical", "nsigma", "xtc") else "Home")
    shown.wait()
    assert page.input_value(f"#{name}-text") == "off"
    np.testing.assert_allclose(shown.probabilities(), logitlab.softmax(z / 1.5), atol=1e-5)


def test_dynamic_temperature(open_page):
    """Its exponent, and the temperature of the row in the hint."""
    shown = open_page("set=five&dynatemp=0.5&exponent=2")
    assert shown.page.locator("#exponent").is_visible()  # opened, as a stage is on
    t = float(shown.page.inner_text("#dynatemp-hint").split("T = ")[1].rstrip("."))
    z = np.array([2.0, 1, 3, 5, 4])
    np.testing.assert_allclose(shown.probabilities(), logitlab.softmax(z, temperature=t), atol=1e-4)
    assert "This row" not in open_page("set=five").page.text_content("#dynatemp-hint")


def test_editing_a_logit(open_page):
    """By mouse and by keyboard: the bars, the address and the code follow."""
    shown = open_page("set=five&shift=2")
    drag(shown.page, "#bars li:nth-child(2) .track", 0.9)
    z = np.array(shown.wait().logits())
    assert z[1] > 4
    np.testing.assert_array_equal(z[[0, 2, 3, 4]], [4, 5, 7, 6])
    p = shown.run_code()["p"]
    np.testing.assert_allclose(p, logitlab.softmax(z), rtol=1e-12)
    np.testing.assert_allclose(shown.probabilities(), p, atol=1e-5)
    shown.page.focus("#bars li:nth-child(2) .track")
    shown.page.keyboard.press("Delete")
    shown.wait()
    assert shown.probabilities()[1] == 0
    assert "edit=1:-inf" in shown.state()
    shown.page.click("#undo")
    np.testing.assert_array_equal(shown.wait().logits(), [4, 3, 5, 7, 6])


def test_ten_thousand_samples(open_page):
    """Frequencies, the list and the code are those of logitlab.sample with the seed shown."""
    shown = open_page("set=five&p=0.95")
    shown.page.fill("#seed", "3")
    shown.page.click("text='10,000'")
    shown.wait()
    z = np.array([2.0, 1, 3, 5, 4])
    samples = logitlab.sample(z, 10_000, top_p=0.95, rng=3)
    np.testing.assert_array_equal(shown.run_code()["samples"], samples)
    dots = shown.page.eval_on_selector_all(
        "#bars .probability > em", "all => all.map(dot => parseFloat(dot.style.left) / 100)"
    )
    np.testing.assert_allclose(dots, np.bincount(samples, minlength=5) / 10_000, atol=1e-5)
    listed = shown.page.inner_text(".sample-list").split()
    assert [int(k) for k in listed] == samples[:300].tolist()
    shown.page.click("text='10,000'")
    shown.wait()
    assert shown.page.input_value("#seed") == "4"


def test_rows_of_a_file(open_page, data):
    """By number, and misclassified rows by confidence; the code reads the file."""
    z, y = np.load(data / "z.npy"), np.load(data / "y.npy")
    shown = open_page()
    shown.page.fill("#row", "17")
    shown.page.press("#row", "Enter")
    np.testing.assert_allclose(shown.wait().logits(), z[17], rtol=1e-6)
    np.testing.assert_array_equal(shown.run_code()["p"], logitlab.softmax(z[17].astype(float)))
    shown.page.select_option("#by", "mistake")
    shown.wait()
    wrong = np.flatnonzero(z.argmax(1) != y)
    row = wrong[logitlab.softmax(z[wrong]).max(1).argmax()]
    assert f"of {len(wrong)}: row {row}, true class {y[row]}" in shown.page.inner_text("#picked")
    np.testing.assert_allclose(shown.wait().logits(), z[row], rtol=1e-6)


def test_best_temperature(open_page, data):
    """The button sets the temperature of TemperatureScaling."""
    z, y = np.load(data / "z.npy"), np.load(data / "y.npy")
    shown = open_page("scale=2")
    best = logitlab.TemperatureScaling().fit(z, y).temperature_
    label = shown.page.inner_text("#reliability button:not(.explained)")
    assert float(label.split()[-1]) == pytest.approx(2 * best, rel=1e-5)
    assert "at T/c = " in shown.page.inner_text("#reliability")
    shown.page.click("#reliability button:not(.explained)")
    shown.wait()
    assert float(shown.page.input_value("#T-text")) == pytest.approx(2 * best, rel=1e-5)
    shown = open_page()
    shown.page.click("#reliability button:not(.explained)")
    shown.wait()
    assert float(shown.page.input_value("#T-text")) == pytest.approx(best, rel=1e-5)
    error = logitlab.calibration_error(z.astype(float) / best, y)
    label = shown.page.get_attribute("#reliability svg", "aria-label")
    assert float(label.split()[-1]) == pytest.approx(error, abs=1e-3)


@pytest.mark.parametrize("state", ["open=jacobian&T=0.01", "open=jacobian&z=1,2,3,4,5,6,7"])
@pytest.mark.parametrize("width", [1300, 390])
def test_sums_of_the_jacobian_are_visible(browser, address, state, width):
    """The column of sums does not scroll out of view."""
    page = Explorer(browser, address, state, viewport={"width": width, "height": 900}).page
    hidden = """() => {
      const view = document.querySelector("#jacobian .scroll").getBoundingClientRect();
      return [...document.querySelectorAll("#jacobian .sum")]
        .filter((sum) => sum.getBoundingClientRect().right > view.right + 1).length;
    }"""
    assert page.locator("#jacobian .sum").count() > 5
    assert page.evaluate(hidden) == 0
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", ["z=0,0&open=jacobian", "z=1,0.45,0&open=jacobian"])
def test_contrast_of_the_jacobian(open_page, state, scheme):
    """Numbers have a contrast of at least 4.5 in the darkest cells too."""
    shown = open_page(state, color_scheme=scheme)
    least = shown.page.evaluate(
        """() => {
          const often = { willReadFrequently: true }; // or the browser complains
          const seen = document.createElement("canvas").getContext("2d", often);
          const light = (...colours) => {
            for (const colour of colours) { seen.fillStyle = colour; seen.fillRect(0, 0, 1, 1); }
            const linear = [...seen.getImageData(0, 0, 1, 1).data].slice(0, 3)
              .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.05 + 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
          };
          const paper = getComputedStyle(document.body).backgroundColor;
          return Math.min(...[...document.querySelectorAll("#jacobian td[data-tip]")].map(cell => {
            const { color, backgroundColor } = getComputedStyle(cell);
            const pair = [light(paper, backgroundColor), light(color)];
            return Math.max(...pair) / Math.min(...pair);
          }));
        }"""
    )
    assert 4.5 <= least < 10


def test_jacobian_does_not_scroll(open_page):
    """At 1280 pixels five columns and their sums are visible."""
    shown = open_page("set=five&open=jacobian", viewport={"width": 1280, "height": 900})
    assert (
        shown.page.evaluate(
            """() => {
          const view = document.querySelector("#jacobian .scroll");
          return view.scrollWidth - view.clientWidth;
        }"""
        )
        <= 0
    )


def test_jacobian_without_visible_colours(open_page):
    """If no cell has a visible colour, a note gives the largest entry."""
    shown = open_page("z=0,100,1,2,3,4,5&open=jacobian")
    assert "too small to be visible as a colour" in shown.page.inner_text("#jacobian")
    assert "too small" not in open_page("z=0,1,1,2,3,4,5&open=jacobian").page.inner_text(
        "#jacobian"
    )


def test_negative_temperatures(open_page):
    """The checkbox follows the sign of a typed temperature."""
    shown = open_page("set=gentle&T=-2")
    page = shown.page
    assert page.is_checked("#negative")
    assert "T < 0 reverses the order" in page.inner_text("#ranking")
    assert "on the smallest logit" in page.inner_text("#T-hint")
    assert "to −∞" in page.inner_text("#simplex")
    page.fill("#T-text", "2")
    page.press("#T-text", "Enter")
    shown.wait()
    assert "T=2" in shown.state()
    assert not page.is_checked("#negative")
    assert "are in the same order" in page.inner_text("#ranking")
    page.fill("#T-text", "-inf")
    page.press("#T-text", "Enter")
    shown.wait()
    assert "T=-inf" in shown.state()
    page.fill("#T-text", "0")
    page.press("#T-text", "Enter")
    shown.wait()
    assert "on the largest logit" in page.inner_text("#T-hint")
    page.check("#negative")
    shown.wait()
    np.testing.assert_allclose(shown.probabilities(), [1, 0, 0], atol=1e-5)
    page.focus("#T")
    page.keyboard.press("Home")
    shown.wait()
    assert page.is_checked("#negative")
    np.testing.assert_allclose(shown.probabilities(), [1, 0, 0], atol=1e-5)


def test_last_row(open_page):
    """Neither the button nor a typed number goes past the last row."""
    shown = open_page("row=48")
    assert shown.page.is_enabled("#next")
    shown.page.click("#next")
    shown.wait()
    assert shown.page.is_disabled("#next")
    shown.page.fill("#row", "99")
    shown.page.press("#row", "Enter")
    shown.wait()
    assert shown.page.input_value("#row") == "49"
    shown = open_page("row=49&by=mistake")
    last = shown.page.inner_text("#picked").split()[1].rstrip(":")
    assert shown.page.input_value("#row") == str(int(last) - 1)
    shown.page.click("#previous")
    shown.wait()
    assert f"row={int(last) - 2}" in shown.state()


@pytest.mark.parametrize("z", ["10,20,30", "1,2,2.5", "1,2,8", "0,0,1e-9"])
def test_labels_of_the_simplex_do_not_overlap(open_page, z):
    """Both ends have a label."""
    shown = open_page(f"z={z}&open=simplex")
    boxes = shown.page.eval_on_selector_all(
        "#simplex text.tick",
        """all => all.map(label => {
          const { left, right, top, bottom } = label.getBoundingClientRect();
          return [left, right, top, bottom];
        })""",
    )
    assert {"T = 0", "T = ∞"} <= set(shown.page.locator("#simplex text.tick").all_text_contents())
    inset = 2  # the box of a text is higher than its glyphs
    for i, (left, right, top, bottom) in enumerate(boxes):
        for a, b, c, d in boxes[:i]:
            assert right < a or b < left or bottom - inset < c or d - inset < top


def test_logits_fit_into_their_fields(open_page):
    """Small and large logits of both signs."""
    shown = open_page("z=-0.0012345,-1.2345e-5,-123456,-1.2345e10,-12.345,1e-300")
    clipped = shown.page.eval_on_selector_all(
        "#bars input", "all => all.filter(a => a.scrollWidth > a.clientWidth).map(a => a.value)"
    )
    assert clipped == []


def test_copied_code(browser, open_page):
    """The code on the clipboard computes the probabilities shown."""
    shown = open_page("set=gentle&T=-0.5&scale=2&shift=-1")
    shown.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown.page.click("#copy")
    shown.page.locator("#copied:not(:empty)").wait_for()
    names = {}
    exec(shown.page.evaluate("navigator.clipboard.readText()"), names)
    np.testing.assert_allclose(shown.probabilities(), names["p"], atol=1e-5)
    z = 2 * np.array([1, 2, 2.5]) - 1
    np.testing.assert_array_equal(names["p"], logitlab.softmax(z, temperature=-0.5))


def test_address(open_page):
    """A link restores the view; an invalid setting shows an error."""
    first = open_page("set=three&T=8&k=2&n=100&seed=5")
    first.page.select_option("#order", "llama.cpp")
    first.wait()
    second = open_page(first.state())
    np.testing.assert_array_equal(first.probabilities(), second.probabilities())
    assert second.run_code().keys() == first.run_code().keys()
    first.page.fill("#p-text", "7")
    first.page.press("#p-text", "Enter")
    first.page.wait_for_selector("#message:visible")
    assert "top_p must be in (0, 1], got 7.0" in first.page.inner_text("#message")
    first.messages.clear()  # the browser reports the status 400
    first.page.click("#reset")
    first.wait()
    assert first.page.locator("#message").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "state",
    ["set=gentle&n=100", "set=tail&n=10000", "by=mistake&T=2&p=0.9", "dynatemp=1&typical=0.9"],
)
def test_narrow_screen(open_page, state, scheme):
    """At 390 pixels: no horizontal scrolling, every control has a name, the scheme is used."""
    shown = open_page(state, viewport={"width": 390, "height": 800}, color_scheme=scheme)
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert shown.page.locator("#settings details[open]").count() == 0
    shown.page.evaluate(
        "document.querySelectorAll('#settings details').forEach(d => d.open = true)"
    )
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 390
    unnamed = shown.page.evaluate(
        """[...document.querySelectorAll("button, input, select, [role=slider], [role=img]")]
           .filter(e => !(e.ariaLabel || e.labels?.length || e.textContent.trim())).length"""
    )
    assert unnamed == 0
    colour = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(255, 255, 255)") == (scheme == "light")


def test_requests_of_other_pages_are_refused(browser, address):
    """A page of another origin in the same browser gets no answer."""
    page = browser.new_page()
    page.route("http://example.org/", lambda route: route.fulfill(body="<p>elsewhere</p>"))
    page.goto("http://example.org/")
    outcome = page.evaluate(
        """address => fetch(address + "view", {method: "POST", body: "T=1"})
           .then(answer => answer.text(), () => "refused")""",
        address,
    )
    assert outcome == "refused"
    page.close()

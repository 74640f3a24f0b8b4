"""The page in a real browser: what a person moves, and what logitlab then gives."""

import signal
import subprocess
import sys

import numpy as np
import pytest

import logitlab


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
    """The page of a file with labels, as the command starts it."""
    command = [sys.executable, "-c", "from logitlab._app import main; main()", "explore"]
    command += [str(data / "z.npy"), "--labels", str(data / "y.npy"), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10) == ("", None)
    assert process.returncode == 0


class Opened:
    """A page, all it said and asked for, and what it shows."""

    def __init__(self, browser, address, state="", **options):
        options = {"viewport": {"width": 1300, "height": 900}, **options}
        self.page = browser.new_page(**options)
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(f"{address}#{state}")
        self.settled()

    def settled(self):
        """Wait until what is shown is what the address says."""
        self.page.wait_for_selector("#picture[aria-busy=false]")
        self.page.wait_for_selector("#message", state="hidden")
        return self

    def state(self):
        return self.page.evaluate("location.hash.slice(1)")

    def shares(self):
        """The probabilities that the bars show."""
        reach = float(self.page.inner_text("#axis").split()[-2]) / 100
        return reach * np.array(
            self.page.eval_on_selector_all(
                "#bars .chance > i", "all => all.map(bar => parseFloat(bar.style.width) / 100)"
            )
        )

    def logits(self):
        return [
            float(value)
            for value in self.page.eval_on_selector_all(
                "#bars .track", "all => all.map(track => track.getAttribute('aria-valuenow'))"
            )
        ]

    def program(self):
        names = {}
        exec(self.page.inner_text("#code"), names)
        return names


@pytest.fixture
def opened(browser, address):
    """Opens pages; in the end none has complained or left the machine."""
    pages = []

    def one(*state, **options):
        pages.append(Opened(browser, address, *state, **options))
        return pages[-1]

    yield one
    for shown in pages:
        assert shown.said == []
        assert all(url.startswith((address, "data:,")) for url in shown.asked), shown.asked
        shown.page.close()


def drag(page, selector, to):
    """With the mouse, from the middle of an element to a share of its width, in ten steps."""
    page.locator(selector).scroll_into_view_if_needed()
    box = page.locator(selector).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(box["x"] + to * box["width"], y, steps=10)
    page.mouse.up()


def test_a_slider_moves_the_bars(opened):
    """The temperature by mouse: the bars are what logitlab.softmax gives."""
    shown = opened("set=five")
    z = np.array([2.0, 1, 3, 5, 4])
    np.testing.assert_allclose(shown.shares(), logitlab.softmax(z), atol=1e-5)
    drag(shown.page, "#T", 0.75)
    shown.settled()
    T = float(shown.page.input_value("#T-text"))
    assert 5 < T < 20
    p = logitlab.softmax(z, temperature=T)
    np.testing.assert_allclose(shown.shares(), p, atol=1e-5)
    np.testing.assert_array_equal(shown.program()["p"], p)


def test_a_bar_is_dragged(opened):
    """A logit by mouse and by keyboard: the row, the address and the program follow."""
    shown = opened("set=five&shift=2")
    drag(shown.page, "#bars li:nth-child(2) .track", 0.9)
    z = np.array(shown.settled().logits())
    assert z[1] > 4
    np.testing.assert_array_equal(z[[0, 2, 3, 4]], [4, 5, 7, 6])
    p = shown.program()["p"]
    np.testing.assert_allclose(p, logitlab.softmax(z), rtol=1e-12)
    np.testing.assert_allclose(shown.shares(), p, atol=1e-5)
    shown.page.focus("#bars li:nth-child(2) .track")
    shown.page.keyboard.press("Delete")
    shown.settled()
    assert shown.shares()[1] == 0
    assert "edit=1:-inf" in shown.state()
    shown.page.click("#undo")
    np.testing.assert_array_equal(shown.settled().logits(), [4, 3, 5, 7, 6])


def test_ten_thousand_draws(opened):
    """Frequencies, stream and program are those of logitlab.sample with the seed shown."""
    shown = opened("set=five&p=0.95")
    shown.page.fill("#seed", "3")
    shown.page.click("text='10,000'")
    shown.settled()
    z = np.array([2.0, 1, 3, 5, 4])
    draws = logitlab.sample(z, 10_000, top_p=0.95, rng=3)
    np.testing.assert_array_equal(shown.program()["draws"], draws)
    dots = shown.page.eval_on_selector_all(
        "#bars .chance > em", "all => all.map(dot => parseFloat(dot.style.left) / 100)"
    )
    np.testing.assert_allclose(dots, np.bincount(draws, minlength=5) / 10_000, atol=1e-5)
    stream = shown.page.inner_text(".stream").split()
    assert [int(k) for k in stream] == draws[:300].tolist()
    shown.page.click("text='10,000'")
    shown.settled()
    assert shown.page.input_value("#seed") == "4"


def test_rows_of_a_file(opened, data):
    """By number and by the most confident mistake; the program reads the file."""
    z, y = np.load(data / "z.npy"), np.load(data / "y.npy")
    shown = opened()
    shown.page.fill("#row", "17")
    shown.page.press("#row", "Enter")
    np.testing.assert_allclose(shown.settled().logits(), z[17], rtol=1e-6)
    np.testing.assert_array_equal(shown.program()["p"], logitlab.softmax(z[17].astype(float)))
    shown.page.select_option("#by", "mistake")
    shown.settled()
    wrong = np.flatnonzero(z.argmax(1) != y)
    row = wrong[logitlab.softmax(z[wrong]).max(1).argmax()]
    assert f"of {len(wrong)}: row {row}, true class {y[row]}" in shown.page.inner_text("#picked")
    np.testing.assert_allclose(shown.settled().logits(), z[row], rtol=1e-6)


def test_the_best_temperature(opened, data):
    """The button sets the temperature that TemperatureScaling finds."""
    z, y = np.load(data / "z.npy"), np.load(data / "y.npy")
    shown = opened("scale=2")
    best = logitlab.TemperatureScaling().fit(z, y).temperature_
    said = shown.page.inner_text("#reliability button")
    assert float(said.split()[-1]) == pytest.approx(2 * best, rel=1e-5)
    assert "at T/c = " in shown.page.inner_text("#reliability")
    shown.page.click("#reliability button")
    shown.settled()
    assert float(shown.page.input_value("#T-text")) == pytest.approx(2 * best, rel=1e-5)
    shown = opened()
    shown.page.click("#reliability button")
    shown.settled()
    assert float(shown.page.input_value("#T-text")) == pytest.approx(best, rel=1e-5)
    error = logitlab.calibration_error(z.astype(float) / best, y)
    label = shown.page.get_attribute("#reliability svg", "aria-label")
    assert float(label.split()[-1]) == pytest.approx(error, abs=1e-3)


@pytest.mark.parametrize("state", ["open=jacobian&T=0.01", "open=jacobian&z=1,2,3,4,5,6,7"])
@pytest.mark.parametrize("width", [1300, 390])
def test_the_sums_of_the_jacobian_are_in_sight(browser, address, state, width):
    """However wide its rows are."""
    page = Opened(browser, address, state, viewport={"width": width, "height": 900}).page
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
def test_the_entries_of_the_jacobian_can_be_read(opened, state, scheme):
    """The darkest cells too: a contrast of 4.5."""
    shown = opened(state, color_scheme=scheme)
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
          return Math.min(...[...document.querySelectorAll("#jacobian td[title]")].map(cell => {
            const { color, backgroundColor } = getComputedStyle(cell);
            const pair = [light(paper, backgroundColor), light(color)];
            return Math.max(...pair) / Math.min(...pair);
          }));
        }"""
    )
    assert 4.5 <= least < 10


def test_no_column_of_the_jacobian_is_covered(opened):
    """On a common screen five columns and their sums stand side by side."""
    shown = opened("set=five&open=jacobian", viewport={"width": 1280, "height": 900})
    assert (
        shown.page.evaluate(
            """() => {
          const view = document.querySelector("#jacobian .scroll");
          return view.scrollWidth - view.clientWidth;
        }"""
        )
        <= 0
    )


def test_a_faint_jacobian_says_so(opened):
    """Where no cell has a colour, the largest entry is told."""
    shown = opened("z=0,100,1,2,3,4,5&open=jacobian")
    assert "too little to show as a colour" in shown.page.inner_text("#jacobian")
    assert "too little" not in opened("z=0,1,1,2,3,4,5&open=jacobian").page.inner_text("#jacobian")


def test_negative_temperatures(opened):
    """A typed number has its own sign; the box never says what is not so."""
    shown = opened("set=gentle&T=-2")
    page = shown.page
    assert page.is_checked("#negative")
    assert "The order is reversed" in page.inner_text("#laws")
    assert "the smallest takes all" in page.inner_text("#T-hint")
    assert "to −∞" in page.inner_text("#simplex")
    page.fill("#T-text", "2")
    page.press("#T-text", "Enter")
    shown.settled()
    assert "T=2" in shown.state()
    assert not page.is_checked("#negative")
    assert "The order is kept" in page.inner_text("#laws")
    page.fill("#T-text", "-inf")
    page.press("#T-text", "Enter")
    shown.settled()
    assert "T=-inf" in shown.state()
    page.fill("#T-text", "0")
    page.press("#T-text", "Enter")
    shown.settled()
    assert "the largest takes all" in page.inner_text("#T-hint")
    page.check("#negative")
    shown.settled()
    np.testing.assert_allclose(shown.shares(), [1, 0, 0], atol=1e-5)
    page.focus("#T")
    page.keyboard.press("Home")
    shown.settled()
    assert page.is_checked("#negative")
    np.testing.assert_allclose(shown.shares(), [1, 0, 0], atol=1e-5)


def test_rows_end(opened):
    """Neither an arrow nor a number leads past the last one."""
    shown = opened("row=48")
    assert shown.page.is_enabled("#next")
    shown.page.click("#next")
    shown.settled()
    assert shown.page.is_disabled("#next")
    shown.page.fill("#row", "99")
    shown.page.press("#row", "Enter")
    shown.settled()
    assert shown.page.input_value("#row") == "49"
    shown = opened("row=49&by=mistake")
    last = shown.page.inner_text("#picked").split()[1].rstrip(":")
    assert shown.page.input_value("#row") == str(int(last) - 1)
    shown.page.click("#previous")
    shown.settled()
    assert f"row={int(last) - 2}" in shown.state()


@pytest.mark.parametrize("z", ["10,20,30", "1,2,2.5", "1,2,8", "0,0,1e-9"])
def test_no_labels_of_the_triangle_overlap(opened, z):
    """Those of both ends are there."""
    shown = opened(f"z={z}&open=simplex")
    boxes = shown.page.eval_on_selector_all(
        "#simplex text.tick",
        """all => all.map(label => {
          const { left, right, top, bottom } = label.getBoundingClientRect();
          return [left, right, top, bottom];
        })""",
    )
    assert {"T = 0", "T = ∞"} <= set(shown.page.locator("#simplex text.tick").all_text_contents())
    inset = 2  # the box of a text is higher than its letters
    for i, (left, right, top, bottom) in enumerate(boxes):
        for a, b, c, d in boxes[:i]:
            assert right < a or b < left or bottom - inset < c or d - inset < top


def test_logits_fit_their_fields(opened):
    """Small and large ones, of both signs."""
    shown = opened("z=-0.0012345,-1.2345e-5,-123456,-1.2345e10,-12.345,1e-300")
    cut = shown.page.eval_on_selector_all(
        "#bars input", "all => all.filter(a => a.scrollWidth > a.clientWidth).map(a => a.value)"
    )
    assert cut == []


def test_the_copied_program(browser, opened):
    """What the button puts on the clipboard runs and gives what is on the screen."""
    shown = opened("set=gentle&T=-0.5&scale=2&shift=-1")
    shown.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown.page.click("#copy")
    shown.page.locator("#copied:not(:empty)").wait_for()
    names = {}
    exec(shown.page.evaluate("navigator.clipboard.readText()"), names)
    np.testing.assert_allclose(shown.shares(), names["p"], atol=1e-5)
    z = 2 * np.array([1, 2, 2.5]) - 1
    np.testing.assert_array_equal(names["p"], logitlab.softmax(z, temperature=-0.5))


def test_the_address_is_the_view(opened):
    """A link opens what was on the screen, and a bad one says what is wrong."""
    first = opened("set=three&T=8&k=2&n=100&seed=5")
    first.page.select_option("#order", "llama.cpp")
    first.settled()
    second = opened(first.state())
    np.testing.assert_array_equal(first.shares(), second.shares())
    assert second.program().keys() == first.program().keys()
    first.page.fill("#p-text", "7")
    first.page.press("#p-text", "Enter")
    first.page.wait_for_selector("#message:visible")
    assert "top_p must be in (0, 1], got 7.0" in first.page.inner_text("#message")
    first.said.clear()  # the browser notes the refusal
    first.page.click("#reset")
    first.settled()
    assert first.page.locator("#message").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", ["set=gentle&n=100", "set=tail&n=10000", "by=mistake&T=2&p=0.9"])
def test_on_a_phone(opened, state, scheme):
    """At 400 pixels: nothing sticks out, every control has a name, and the scheme is kept."""
    shown = opened(state, viewport={"width": 400, "height": 800}, color_scheme=scheme)
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 400
    nameless = shown.page.evaluate(
        """[...document.querySelectorAll("button, input, select, [role=slider], [role=img]")]
           .filter(e => !(e.ariaLabel || e.labels?.length || e.textContent.trim())).length"""
    )
    assert nameless == 0
    colour = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(255, 255, 255)") == (scheme == "light")


def test_another_page_learns_nothing(browser, address):
    """A page of another origin in the same browser: its requests are refused."""
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

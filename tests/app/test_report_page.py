"""The pages in a browser: no error, no request, no horizontal scrolling; what the script adds."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import logitlab
import softmaxes
from logitlab._app.cli import app
from logitlab.laws import check_sampler
from samplers import corrected_from_target

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page_of_many_classes(tmp_path_factory):
    """A report with every section and long class names."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    z = rng.standard_normal((200, 30)) * 3
    head = ",".join(f"a class of long name {k}" for k in range(30))
    np.savetxt(folder / "z.csv", z, delimiter=",", header=head, comments="")
    np.save(folder / "y.npy", (z + rng.gumbel(size=z.shape) * 2).argmax(1))
    arguments = [str(folder / "z.csv"), "--labels", str(folder / "y.npy"), "-o", str(folder)]
    result = CliRunner().invoke(app, ["report", *arguments])
    assert result.exit_code == 0, result.output
    return (folder / "report.html").as_uri()


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_opens(browser, page_of_many_classes, width, scheme):
    """No console message, no request but the page itself, no horizontal scrolling."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_of_many_classes)
    assert messages == []
    assert requests == [page_of_many_classes]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("figure svg").count() == 17
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(255, 255, 255)") == (scheme == "light")
    # The figures have the colours of the page, not the placeholders.
    fills = page.eval_on_selector_all("svg path", "a => a.map(e => getComputedStyle(e).fill)")
    assert not any(fill.startswith("rgb(1, 1, 1") for fill in fills)
    page.close()


def test_the_report_without_a_script(browser, page_of_many_classes):
    """All results are there; what needs the script is not shown."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_of_many_classes)
    assert page.locator("[data-name=scores] tbody tr").count() >= 2
    assert page.locator("button:visible").count() == 0
    for hidden in (".temperatures", "#rows"):
        assert not page.locator(hidden).is_visible()
    context.close()


def read_json(page_uri):
    return json.loads(Path(page_uri.removeprefix("file://")).with_name("report.json").read_text())


def test_diagram_at_a_temperature(browser, page_of_many_classes):
    """At T = 1 and at the fitted T the scores are those of the library."""
    folder = Path(page_of_many_classes.removeprefix("file://")).parent
    z, y = np.loadtxt(folder / "z.csv", delimiter=",", skiprows=1), np.load(folder / "y.npy")
    page = browser.new_page()
    page.goto(page_of_many_classes)
    fitted = read_json(page_of_many_classes)["temperature"]
    panel = page.locator(".temperatures")
    for button, t in (("fitted", fitted), ("one", 1.0)):
        panel.locator(f"[data-set={button}]").click()
        shown = {
            name: panel.locator(f"[data-show={name}]").text_content() for name in ("t", "error")
        }
        assert shown == {"t": f"{t:.4g}", "error": f"{logitlab.calibration_error(z / t, y):.4f}"}
        loss = logitlab.cross_entropy(z, y, temperature=t)
        assert panel.locator("[data-show=loss]").text_content() == f"{loss:.4f}"
        filled = np.histogram(logitlab.softmax(z / t).max(1), np.linspace(0, 1, 16))[0] > 0
        assert panel.locator("circle").count() == filled.sum()
    page.close()


def test_rows_of_a_bin_and_of_a_class(browser, page_of_many_classes):
    """A click lists them, the misclassified ones first."""
    folder = Path(page_of_many_classes.removeprefix("file://")).parent
    z, y = np.loadtxt(folder / "z.csv", delimiter=",", skiprows=1), np.load(folder / "y.npy")
    confidence, predicted = logitlab.softmax(z).max(1), z.argmax(1)
    page = browser.new_page()
    page.goto(page_of_many_classes)
    bins = (confidence * 15).astype(int)
    number = int(np.bincount(bins).argmax())
    page.locator(f"[data-lists] .value[data-key='{number}']").click()
    for members, total in ((bins == number, 0), (None, 1)):
        if total:
            button = page.locator("th[data-class] button").first
            name = button.text_content()
            button.click()
            members = predicted == int(name.rpartition(" ")[2])
        lines = page.locator("#rows tbody tr").all_text_contents()
        assert len(lines) == min(20, members.sum())
        note = page.locator("#rows output").text_content()
        assert note.startswith(f"{len(lines)} of {members.sum()} listed")
        cells = page.locator("#rows tbody tr td:first-child").all_text_contents()
        rows = np.array(cells, int)
        assert members[rows].all()
        wrong = predicted[rows] != y[rows]
        assert (np.diff(wrong.astype(int)) <= 0).all()
        assert (np.diff(confidence[rows][wrong]) <= 0).all()
    page.close()


def test_tables_are_sorted_and_downloaded(browser, page_of_many_classes, tmp_path):
    """The file has all digits of the scores, the bounds as columns and the order of the page."""
    page = browser.new_page()
    page.goto(page_of_many_classes)
    table = page.locator("[data-name=scores]")
    header = table.locator("th", has_text="log-loss")
    for direction, sign in (("ascending", 1), ("descending", -1)):
        header.locator("button").click()
        assert header.get_attribute("aria-sort") == direction
        with page.expect_download() as download:
            page.get_by_label("CSV: download the table: scores").click()
        download.value.save_as(tmp_path / "scores.csv")
        with open(tmp_path / "scores.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        losses = [float(row["log-loss (nats)"]) for row in rows]
        assert losses == sorted(losses, key=lambda x, sign=sign: sign * x)
        values = read_json(page_of_many_classes)
        row = next(row for row in rows if row["calibrator"] == "uncalibrated")
        assert float(row["log-loss (nats)"]) == values["log_loss"]
        low, _ = values["evaluation"]["uncalibrated"]["intervals"]["log_loss"]
        assert row["log-loss (nats): low"] == f"{low:.4f}"
    page.close()


def test_the_summary_is_a_picture(browser, page_of_many_classes, tmp_path):
    """A PNG of 2400 × 1260 pixels that is not empty."""
    from matplotlib import pyplot

    page = browser.new_page()
    page.goto(page_of_many_classes)
    with page.expect_download() as download:
        page.get_by_text("Summary as PNG").click()
    download.value.save_as(tmp_path / "summary.png")
    pixels = pyplot.imread(tmp_path / "summary.png")
    assert pixels.shape[:2] == (1260, 2400)
    for half in np.split(pixels, 2, axis=1):  # the text and the diagram
        assert half[..., :3].std() > 0.05
    page.close()


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("first", ["overflow", "output distribution"])
def test_the_page_of_a_check_opens(browser, tmp_path, width, first):
    """Failures in float64 before others, code that can be copied, no horizontal scrolling."""
    if first == "overflow":
        report = logitlab.check_softmax(
            softmaxes.no_shift, laws=["overflow", "order", "+inf"], dtypes=["float16", "float64"]
        )
    else:
        report = check_sampler(corrected_from_target)
    path = tmp_path / "check.html"
    path.write_text(report.to_html(), "utf-8")
    page = browser.new_page(viewport={"width": width, "height": 800})
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert (messages, requests) == ([], [path.as_uri()])
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    levels = page.locator("[data-name=laws] .level").all_text_contents()
    assert levels == sorted(levels, key=["fails", "differs", "exact", "passes"].index)
    assert page.locator("article h3").first.text_content() == f"{first} fails"
    code = page.locator("pre.copy").first
    assert code.text_content() == report[first].counterexample.code
    assert page.locator("pre.copy").count() == page.locator("article .tools").count() > 0
    page.close()


def test_the_report_prints(browser, page_of_many_classes):
    """To PDF, in light colours also in dark mode."""
    page = browser.new_page(color_scheme="dark")
    page.goto(page_of_many_classes)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.locator("[data-name=scores] th", has_text="accuracy").first.is_visible()
    assert page.locator("[data-name=scores] .sort").first.is_visible()
    assert page.locator("button:not(.sort):visible").count() == 0
    assert page.pdf(print_background=True).startswith(b"%PDF")
    page.close()

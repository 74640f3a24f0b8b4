"""The report in a browser: no error, no request, no horizontal scrolling on a phone."""

import numpy as np
import pytest
from typer.testing import CliRunner

from logitlab._app.cli import app


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


def test_the_report_prints(browser, page_of_many_classes):
    """To PDF, in light colours also in dark mode."""
    page = browser.new_page(color_scheme="dark")
    page.goto(page_of_many_classes)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.pdf(print_background=True).startswith(b"%PDF")
    page.close()

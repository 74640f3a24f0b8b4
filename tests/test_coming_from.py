"""The tables of the guide that compare logitlab with other libraries: both sides agree."""

import re
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parent.parent / "guide" / "howto" / "coming-from.md"
NOT_RUN = ("vLLM", "R")


def sections():
    """Title, setup and rows (there, here, difference) of each section."""
    intro, *parts = re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    for part in parts:
        rows = re.findall(r"^\| (.*) \| `(.*)` \| (.*?) ?\|$", part, re.MULTILINE)
        yield part.partition("\n")[0], code(intro) + code(part), rows


def code(text):
    return "".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


SECTIONS = {title: (setup, rows) for title, setup, rows in sections()}


def test_every_row_is_read():
    """Each row of a table is evaluated below."""
    lines = re.findall(r"^\| (?!.*\| logitlab \|)", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(lines) == sum(len(rows) for _, rows in SECTIONS.values()) > 40


@pytest.mark.slow
@pytest.mark.parametrize("title", SECTIONS)
def test_both_sides_agree(title):
    """The right side runs and, where the other library is called, gives the same numbers."""
    names = {"scipy": pytest.importorskip("scipy")}
    packages = {"scikit-learn": "sklearn", "R": "formulaic", "transformers": "transformers"}
    for package in ("torch", "scipy.special", "scipy.stats", packages.get(title, "sklearn")):
        pytest.importorskip(package)
    setup, rows = SECTIONS[title]
    exec(setup, names)
    names["tz"] = names["torch"].tensor(names["z"])
    if title == "vLLM":
        names["tokens"] = names["y"].reshape(-1, 1)
    for there, here, difference in rows:
        got = eval(here, names)
        if title in NOT_RUN:
            continue
        expected = eval(there.strip("`"), names)
        assert np.shape(got) == np.shape(expected), here
        if "random numbers" not in difference:
            tolerance = 1e-3 if "fit(" in here else 1e-12
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=tolerance, err_msg=here)

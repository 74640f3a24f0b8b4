"""The wrong kernels of the guide: a harness accepts them, `check_softmax` does not."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parent.parent / "guide" / "howto" / "check-harness.md"


def test_the_harness_accepts_what_the_laws_reject(capsys):
    """The page asserts it for each function; the causes that it prints are the planted ones."""
    scope = {"__name__": "page"}
    for cell in re.findall(r"```\{code-cell\}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(cell, scope)
    printed = capsys.readouterr().out
    for cause in (
        "zeros .* does not depend on the logits",
        "uniform .* does not depend on the logits",
        "rows_left_out .* depends on the batch size",
        r"row_copied .*first at 8 rows; row 5 gets the result of row 4\)",
        "maximum_not_subtracted .* the maximum is not subtracted",
        "in_float16 .* computed in float16",
        "last_entries_lost .* not a multiple of 64",
        "first_result_kept .* an earlier call",
        "writes_to_its_input .* input unchanged",
    ):
        assert re.search(cause, printed), (cause, printed)

"""Tables of a page: what is in them, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from lib.tables import table


def test_columns_and_rows_have_names_that_a_screen_reader_finds() -> None:
    html = table(["scale", "steps", "loss"], ["small", 3, "0.1"], ["large", 8, "0.2"])._repr_html_()
    assert re.findall(r'<th scope="col">(.*?)</th>', html) == ["scale", "steps", "loss"]
    assert re.findall(r'<th scope="row">(.*?)</th>', html) == ["small", "large"]
    assert re.findall(r"<td>(.*?)</td>", html) == ["3", "0.1", "8", "0.2"]


@pytest.mark.parametrize(
    ("head", "row", "message"),
    [
        (["", "loss"], ["small", 1], "head: got ['', 'loss'], want a name for every column"),
        (["scale", " "], ["small", 1], "head: got ['scale', ' '], want a name for every column"),
        (["scale", "loss"], ["small"], "rows: got ['small'], want 2 cells as in head"),
        (["scale"], ["small", 1], "rows: got ['small', 1], want 1 cells as in head"),
    ],
)
def test_what_is_wrong_is_named(head: Sequence[str], row: Sequence[object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        table(head, row)

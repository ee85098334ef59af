"""The front page as it is written: every chapter is on the map and on a path, and every dot is where it should be."""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FRONT = (ROOT / "book" / "intro.md").read_text(encoding="utf-8")
CHAPTERS = sorted(path.stem for path in (ROOT / "chapters").glob("*.ipynb"))


def table(header: str) -> list[str]:
    """The rows of the table whose header starts so."""
    found = re.search(rf"^\| {header} \|.*\n\|[-|]+\n((?:\|.*\n)+)", FRONT, re.MULTILINE)
    assert found is not None
    return found[1].splitlines()


def test_the_map_has_a_row_for_every_chapter_and_no_lonely_thread() -> None:
    rows = table("chapter")
    assert sorted(name for row in rows for name in re.findall(r"</chapters/(\w+)>", row)) == CHAPTERS
    columns = list(zip_longest(*(row.strip("|").split("|")[1:] for row in rows), fillvalue=""))
    assert len(columns) >= 6
    assert all(sum(bool(cell.strip()) for cell in column) >= 2 for column in columns)


def test_every_dot_of_the_map_leads_into_the_chapter_of_its_row() -> None:
    for row in table("chapter"):
        (chapter,) = re.findall(r"</chapters/(\w+)>", row)
        text = (ROOT / "chapters" / f"{chapter}.ipynb").read_text(encoding="utf-8")
        labels = re.findall(r"\{prf:ref\}`[^`<]+<([\w-]+)>`", row)
        assert [label for label in labels if f":label: {label}\\n" not in text] == [], chapter


@pytest.mark.parametrize("path", ["if you ask", "if you know"])
def test_every_chapter_is_on_both_kinds_of_path(path: str) -> None:
    assert {name for row in table(path) for name in re.findall(r"</chapters/(\w+)>", row)} == set(CHAPTERS)

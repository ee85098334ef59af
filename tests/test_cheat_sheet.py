"""The cheat sheet: every call prints what it says, and every chapter is on it with a few formulas and calls."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHEET = (ROOT / "book" / "cheat_sheet.md").read_text(encoding="utf-8")
CHAPTERS = sorted(path.stem for path in (ROOT / "chapters").glob("*.ipynb"))
PARTS = {re.findall(r"</chapters/(\w+)>", part)[0]: part for part in re.split(r"^## ", SHEET, flags=re.MULTILINE)[1:]}


def code(text: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))


def test_every_chapter_is_on_the_sheet() -> None:
    assert sorted(PARTS) == CHAPTERS


@pytest.mark.parametrize("chapter", PARTS)
def test_calls_print_what_the_sheet_says(chapter: str) -> None:
    opening = code(SHEET.partition("\n## ")[0])
    example = doctest.DocTestParser().get_doctest(opening + code(PARTS[chapter]), {}, chapter, "cheat_sheet.md", 0)
    failures: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=failures.append)
    assert "".join(failures) == ""
    assert runner.tries > 3


@pytest.mark.parametrize("chapter", PARTS)
def test_a_part_has_formulas_and_calls_and_imports_only_what_it_calls(chapter: str) -> None:
    part = PARTS[chapter]
    assert "\n$$\n" in part
    assert 1 <= len(set(re.findall(r"\{prf:ref\}`([\w-]+)`", part))) <= 6
    names = re.findall(r"\w+", re.findall(r"from lib\.\w+ import \(([^)]*)\)", part)[0])
    assert set(names) <= set(importlib.import_module(f"lib.{chapter}").__all__)
    assert 1 <= len(names) <= 6
    assert all(len(re.findall(rf"\b{name}\b", code(part))) > 1 for name in names)


def test_lines_fit_a_column_of_the_printed_sheet() -> None:
    lines = [line for line in code(SHEET).splitlines() if line.startswith((">>>", "..."))]
    assert [line for line in lines if len(line) > 76] == []

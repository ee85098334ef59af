"""Fill the page *Performance* from the runs recorded in `benchmarks/results/`; a build reads them, and times nothing.

What is filled in stands between markers, as in the ledger: tables and figures are made here, the words of the page are
written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import performance_figures, performance_tables
from .ledger import fill

PAGE = "performance.md"
OTHERS = ("precision", "compiled", "sweeps", "stamps")  # runs of no single chapter: a caption, headings and rows
NOTHING = "*No run has been recorded yet.*"
Result = dict[str, Any]


def write(results: Path, titles: Mapping[str, str], book: Path) -> None:
    """Fill the staged page and draw its figures; nothing where a book has no such page.

    Args:
        results: folder of the recorded runs: `<chapter>.json`, and one file for what belongs to no chapter.
        titles: title by chapter, in the order of the book.
        book: the staged folder of the page.

    Raises:
        LedgerError: the page lacks a marker.
    """
    page = book / PAGE
    if not page.exists():
        return
    found: dict[str, Result] = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in results.glob("*.json")
    }
    chapters = {titles[name]: found[name] for name in titles if name in found}
    figures = {title: performance_figures.growth(book, result) for title, result in chapters.items()}
    parts: dict[str, str] = {
        "bars": performance_tables.bars(chapters),
        "machine": performance_tables.machine(chapters),
        "races": performance_tables.races(chapters),
        "limits": performance_tables.limits(chapters),
        "growth": performance_tables.growth(chapters, figures),
    }
    parts |= {name: performance_tables.plain(name, found[name]) for name in OTHERS if name in found}
    parts = {name: part if chapters or name in OTHERS else NOTHING for name, part in parts.items()}
    parts |= {name: NOTHING for name in OTHERS if name not in found}
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        text = fill(text, name, part, page)
    page.write_text(text, encoding="utf-8")

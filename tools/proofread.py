"""What Sphinx does not notice: two meanings of a symbol, a figure without words, an exercise without a solution.

Each finding names the file and the place. The build stops at the first list of them, before any page is made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import notebooks
from .problems import Problem

NOTATION = Path("book") / "notation.md"

_EXERCISE = re.compile(r"^([`:]{3,})\{exercise(?:-start)?\} *(.*)\n((?::[\w-]+:.*\n)*)", re.MULTILINE)
_LABEL = re.compile(r"^:label: *(\S+)", re.MULTILINE)
_SOLVED = re.compile(r"^[`:]{3,}\{solution(?:-start)?\} *(\S+)", re.MULTILINE)
_SILENT_IMAGE = re.compile(r"!\[\s*\]\(")
_PICTURE = re.compile(r"^([`:]{3,})\{(?:image|figure|grid-item-card|card)\}.*\n((?::[\w-]+:.*\n)*)", re.MULTILINE)


def proofread(root: Path, executed: Mapping[str, Path]) -> None:
    """Read all pages and the executed chapters.

    Raises:
        Problem: one line for each thing that is wrong.
    """
    found = list(_symbols(root))
    texts = {path.relative_to(root).as_posix(): path for path in sorted((root / "book").glob("*.md"))}
    pages = {name: [(name, path.read_text(encoding="utf-8"))] for name, path in texts.items()}
    for chapter, path in executed.items():
        name = f"chapters/{chapter}.ipynb"
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found += _mute_cells(name, cells)
        pages[name] = [
            (f"{name}, cell {number}", notebooks.text(cell))
            for number, cell in enumerate(_written(cells), start=1)
            if cell["cell_type"] == "markdown"
        ]
    for parts in pages.values():
        found += _unsolved(parts)
        found += [line for place, text in parts for line in _mute_pictures(place, text)]
    if found:
        raise Problem("\n".join(found))


def _written(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells as the author sees them: without the one that papermill adds."""
    return [cell for cell in cells if "injected-parameters" not in notebooks.tags(cell)]


def _symbols(root: Path) -> Iterator[str]:
    """Symbols in the first column of the notation that stand there twice."""
    path = root / NOTATION
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        row = re.match(r"\| (\$.+?) \| ", line)
        for symbol in re.findall(r"\$([^$]+)\$", row[1]) if row else ():
            if symbol in first:
                yield f"{NOTATION.as_posix()}:{number}: ${symbol}$ is defined twice, first in line {first[symbol]}"
            first.setdefault(symbol, number)


def _unsolved(parts: list[tuple[str, str]]) -> Iterator[str]:
    """Exercises of one page, which comes in parts, that no part of it solves."""
    solved = {name for _, text in parts for name in _SOLVED.findall(text)}
    for place, text in parts:
        for exercise in _EXERCISE.finditer(text):
            label = _LABEL.search(exercise[3])
            if label is None or label[1] not in solved:
                name = label[1] if label else "without a label"
                yield f"{_line(place, text, exercise.start())}: exercise {name} ({exercise[2].strip()}) has no solution"


def _mute_pictures(place: str, text: str) -> Iterator[str]:
    """Images and cards with an image that say nothing to who cannot see them."""
    for image in _SILENT_IMAGE.finditer(text):
        yield f"{_line(place, text, image.start())}: an image without alternative text, want ![what is there](...)"
    for picture in _PICTURE.finditer(text):
        card = "card}" in picture[0]
        shows, tells = (":img-top:", ":img-alt:") if card else ("", ":alt:")
        if shows in picture[2] and not re.search(rf"^{tells} *\S", picture[2], re.MULTILINE):
            yield f"{_line(place, text, picture.start())}: a picture without alternative text, want {tells}"


def _mute_cells(name: str, cells: list[dict[str, Any]]) -> Iterator[str]:
    """Code cells that show a figure, with nothing in their metadata that says what is there."""
    code = [cell for cell in _written(cells) if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, start=1):
        shown = [kind for output in cell.get("outputs", ()) for kind in output.get("data", ())]
        image = cell["metadata"].get("mystnb", {}).get("image", {})
        if any(kind.startswith("image/") for kind in shown) and not str(image.get("alt", "")).strip():
            start = notebooks.text(cell).strip().partition("\n")[0]
            yield f'{name}, code cell {number} ("{start}"): a figure without alternative text, want mystnb.image.alt'


def _line(place: str, text: str, start: int) -> str:
    """The place, with a line number where it is a file that has lines."""
    return place if ", cell" in place else f"{place}:{text.count(chr(10), 0, start) + 1}"

"""The built book as files: every link leads somewhere, no name is given twice, the downloaded notebook runs alone."""

from __future__ import annotations

import os
import re
from collections import Counter
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbclient import NotebookClient

from lib.claims import collect

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted(path.stem for path in (ROOT / "chapters").glob("*.ipynb"))
REFERENCES = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src"}


class _Outline(HTMLParser):
    """The ids of a page, and what it points to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note both; the parser calls it."""
        facts = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        if target := facts.get(REFERENCES.get(tag, "")):
            self.targets.append(target)


@cache
def outline(page: Path) -> _Outline:
    return _Outline(page.read_text(encoding="utf-8"))


def pages(html: Path) -> list[Path]:
    return [page for page in sorted(html.rglob("*.html")) if "_static" not in page.relative_to(html).parts]


def test_every_internal_link_and_anchor_resolves(built_book: Path) -> None:
    dead = []
    for page in pages(built_book):
        for target in outline(page).targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            lost = parts.fragment and file.suffix == ".html" and unquote(parts.fragment) not in outline(file).ids
            if not file.is_file() or lost:
                dead.append(f"{page.relative_to(built_book)} -> {target}")
    assert dead == []


def test_no_page_gives_a_name_twice(built_book: Path) -> None:
    for page in pages(built_book):
        # The theme has its search field twice on the page of results.
        repeated = {name for name, times in Counter(outline(page).ids).items() if times > 1} - {"search-input"}
        assert repeated == set(), page


def test_pages_load_nothing_from_another_host(built_book: Path) -> None:
    for page in pages(built_book):
        loaded = re.findall(
            r"<(?:script|img|link|iframe|source)\b[^>]*(?:src|href)=\"(https?:[^\"]+)", page.read_text("utf-8")
        )
        assert loaded == [], page


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_downloaded_notebook_runs_outside_the_repository(
    built_book: Path, chapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = built_book / "chapters" / f"{chapter}.html"
    (link,) = {target for target in outline(page).targets if target.endswith(f"{chapter}.ipynb")}
    published = (page.parent / link).resolve()
    first = collect(published)[0]
    notebook = nbformat.read(published, as_version=4)
    upto = next(
        i
        for i, cell in enumerate(notebook.cells)
        if any("claim" in o.get("metadata", {}) for o in cell.get("outputs", []))
    )
    notebook.cells = notebook.cells[: upto + 1]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    # `lib` as installed: importable from anywhere, while nothing else of the repository is.
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "lib").symlink_to(ROOT / "lib", target_is_directory=True)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("CLAIMS_ON_FAILURE", raising=False)
    elsewhere = tmp_path / "somewhere else"
    elsewhere.mkdir()
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(elsewhere)}}).execute()
    nbformat.write(notebook, tmp_path / "again.ipynb")
    again = collect(tmp_path / "again.ipynb")[0]
    assert (again["id"], again["passed"]) == (first["id"], True)
    assert os.listdir(elsewhere) == []

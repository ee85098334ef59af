"""The printed book: what a reader of paper needs is on it, and links lead to pages of the same document."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from pypdf import PageObject, PdfReader

from tools import browser, pdf
from tools.problems import Problem

NAMES = ["book/intro", "chapters/rf_regression", "book/references"]


@pytest.fixture(scope="module")
def html(built_book: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the built book with the PDFs of three pages, and of a book of these three."""
    copy = tmp_path_factory.mktemp("pdf") / "html"
    shutil.copytree(built_book, copy)
    executable = browser.find()
    assert executable is not None
    written = pdf.make(copy, NAMES, executable)
    assert [path.name for path in written] == ["intro.pdf", "rf_regression.pdf", "references.pdf", pdf.BOOK]
    return copy


@pytest.fixture(scope="module")
def book(html: Path) -> PdfReader:
    return PdfReader(html / "_downloads" / "pdf" / pdf.BOOK)


def links(page: PageObject) -> list[Any]:
    return [link.get_object() for link in page.get("/Annots", ()) if link.get_object()["/Subtype"] == "/Link"]


def test_pages_are_numbered_through(book: PdfReader) -> None:
    for number, page in enumerate(book.pages, 1):
        assert page.extract_text().split()[-1] == str(number)


def test_theorems_proofs_and_solutions_are_on_paper(html: Path) -> None:
    text = "\n".join(page.extract_text() for page in PdfReader(html / "_downloads/pdf/rf_regression.pdf").pages)
    for printed in (r"Theorem 1\.\d", r"Proof\.", r"Figure 1\.\d", r"Solution to Exercise 1\.1", r"rival rejected"):
        assert re.search(printed, text), printed


def test_solutions_are_unfolded(html: Path) -> None:
    """The text of a solution that the page hides until it is clicked."""
    page = (html / "chapters" / "rf_regression.html").read_text(encoding="utf-8")
    solution = page[page.index('class="solution dropdown admonition"') :]
    (words,) = re.findall(r"<p>([^<]{12,})", solution)[:1]
    text = " ".join(
        " ".join(page.extract_text().split()) for page in PdfReader(html / "_downloads/pdf/rf_regression.pdf").pages
    )
    assert " ".join(words.split()[:3]) in text


@pytest.mark.parametrize("document", [pdf.BOOK, *(f"{name.split('/')[1]}.pdf" for name in NAMES)])
def test_no_link_leads_to_the_machine_that_printed(html: Path, document: str) -> None:
    for page in PdfReader(html / "_downloads" / "pdf" / document).pages:
        for link in links(page):
            assert "/Dest" in link or str(link["/A"]["/URI"]).startswith("https://")


def test_a_citation_leads_to_the_list_of_references(book: PdfReader) -> None:
    own = {page.indirect_reference.idnum: i for i, page in enumerate(book.pages) if page.indirect_reference}
    starts = [i for i, page in enumerate(book.pages) if "References" in page.extract_text()[:200]]
    led = {own[link["/Dest"][0].idnum] for page in book.pages[:20] for link in links(page) if "/Dest" in link}
    assert starts
    assert any(i >= starts[-1] for i in led)


def test_the_outline_names_the_pages(book: PdfReader) -> None:
    titles = [entry.title for entry in book.outline if not isinstance(entry, list)]
    assert len(titles) == len(NAMES)
    assert titles[0] == "Executable Theory"


@pytest.mark.parametrize("name", NAMES)
def test_each_page_links_its_paper_and_the_book(html: Path, name: str) -> None:
    page = html / f"{name}.html"
    text = page.read_text(encoding="utf-8")
    found = re.findall(r'href="(\.\./_downloads/pdf/[^"]+)"', text)
    assert found == [f"../_downloads/pdf/{name.split('/')[1]}.pdf", f"../_downloads/pdf/{pdf.BOOK}"]
    assert all((page.parent / target).is_file() for target in found)
    assert "window.print" not in text
    assert pdf.linked(text, name) == text


def test_what_is_missing_is_named(html: Path) -> None:
    with pytest.raises(Problem, match="no page chapters/nowhere: run make book first"):
        pdf.make(html, ["chapters/nowhere"], "unused")

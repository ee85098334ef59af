"""`make pdf`: one PDF a page and one of the whole book, printed by the browser that tests it, linked on each page.

Each page is printed once. A page's own PDF and the book differ only in where page numbers begin and where links lead:
within the book they jump, from a single page they are dropped unless they leave the book.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from urllib.parse import urldefrag

from playwright.sync_api import Browser, Page, PdfMargins
from pypdf import PdfReader, PdfWriter

from .browser import find
from .browsing import TYPESET, browsing, cut_off, serving
from .paper import Printed, joined
from .problems import Problem, finish
from .stage import toc_pages

BOOK = "executable-theory.pdf"
MARGIN: PdfMargins = {"top": "18mm", "bottom": "20mm", "left": "18mm", "right": "18mm"}
_BUTTON = re.compile(r'<button onclick="window\.print\(\)"\s+class="([^"]*)"(.*?)</button>', re.DOTALL)
# What folds on the screen is open on paper, and a formula wider than the column is made to fit. Links from other pages
# need a named place, and the browser names only places that the page itself links to.
PREPARE = """(anchors) => {
  for (const box of document.querySelectorAll(".solution details, details.solution")) box.open = true;
  for (const box of document.querySelectorAll(".solution.dropdown")) box.classList.remove("toggle-hidden");
  for (const formula of document.querySelectorAll("div.math")) {
    const number = formula.querySelector(".eqno");
    const wide = formula.scrollWidth + (number ? 2 * number.offsetWidth : 0);
    if (formula.scrollWidth > formula.clientWidth) {
      formula.style.fontSize = `${Math.floor(90 * formula.clientWidth / wide)}%`;
    }
  }
  for (const id of anchors) {
    if (!document.getElementById(id)) continue;
    const link = document.createElement("a");
    link.href = "#" + id;
    link.textContent = "\\u200b";
    link.ariaHidden = "true";
    document.querySelector(".bd-article").append(link);
  }
}"""
PAPER = {"width": 675, "height": 1000}  # the width that is left of A4 between the margins, in pixels
NUMBERS = """<style>@page { size: A4; margin: 0 } body { margin: 0 }
div { height: 297mm; position: relative; break-after: page } div:last-child { break-after: auto; height: 290mm }
p { position: absolute; bottom: 8mm; width: 100%; margin: 0; text-align: center; font: 9pt sans-serif }</style>"""


def make(html: Path, names: Sequence[str], executable: str) -> list[Path]:
    """Print the named pages of the built book, join them, and link the results on all pages.

    Args:
        html: the built book.
        names: pages in the order of the book, as in `chapters/starc`.
        executable: a Chromium.

    Returns:
        The files written, the book last.

    Raises:
        Problem: there is no book, or it lacks a page.
    """
    for name in names:
        if not (html / f"{name}.html").is_file():
            raise Problem(f"the book in {html} has no page {name}: run make book first")
    target = html / "_downloads" / "pdf"
    target.mkdir(parents=True, exist_ok=True)
    anchors = _anchors(html, names)
    with serving(html) as address, browsing(executable) as browser:
        printed = [_print(browser, address, name, anchors[name]) for name in names]
        written = [
            _write(joined([page], address, _numbers(browser, len(page.pdf.pages))), target / f"{_stem(page.name)}.pdf")
            for page in printed
        ]
        total = sum(len(page.pdf.pages) for page in printed)
        written.append(_write(joined(printed, address, _numbers(browser, total)), target / BOOK))
    for name in names:
        page = html / f"{name}.html"
        page.write_text(linked(page.read_text(encoding="utf-8"), name), encoding="utf-8")
    return written


def linked(html: str, name: str) -> str:
    """A page whose print button is a link to its PDF, followed by one to the book's."""
    up = "../" * name.count("/")

    def link(found: re.Match[str]) -> str:
        rest = re.sub(r'title="[^"]*"', 'title="This page as PDF"', found[2])
        own = f'<a href="{up}_downloads/pdf/{_stem(name)}.pdf" class="{found[1]}"{rest}</a>'
        whole = f'<a href="{up}_downloads/pdf/{BOOK}" class="{found[1]}"{found[2]}</a>'
        whole = re.sub(r'title="[^"]*"', 'title="The whole book as PDF"', whole).replace(
            ".pdf</span>", "book .pdf</span>"
        )
        return f"{own}</li><li>{whole}"

    return _BUTTON.sub(link, html)


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _anchors(html: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """For each page the places in it that other pages link to."""
    wanted: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for target in re.findall(r'href="([^":]+\.html#[^"]+)"', (html / f"{name}.html").read_text(encoding="utf-8")):
            path, anchor = urldefrag(target)
            other = os.path.normpath(Path(name).parent / path).removesuffix(".html")
            if other in wanted and other != name:
                wanted[other].add(anchor)
    return {name: sorted(found) for name, found in wanted.items()}


def _print(browser: Browser, address: str, name: str, anchors: Sequence[str]) -> Printed:
    with browser.new_context(viewport=PAPER, color_scheme="light") as context:  # type: ignore[arg-type]
        cut_off(context, address)
        tab = context.new_page()
        tab.goto(f"{address}{name}.html", wait_until="networkidle")
        tab.evaluate(TYPESET)
        tab.emulate_media(media="print")
        tab.evaluate(PREPARE, list(anchors))
        return Printed(name, PdfReader(BytesIO(_paper(tab, outline=True, tagged=True))))


def _paper(tab: Page, *, outline: bool, tagged: bool) -> bytes:
    return tab.pdf(
        format="A4", margin=MARGIN, print_background=True, outline=outline, tagged=tagged, prefer_css_page_size=True
    )


def _numbers(browser: Browser, count: int) -> PdfReader:
    """Empty pages with numbers at their feet."""
    with browser.new_page() as tab:
        tab.set_content(NUMBERS + "".join(f"<div><p>{i}</p></div>" for i in range(1, count + 1)))
        return PdfReader(BytesIO(_paper(tab, outline=False, tagged=False)))


def _write(writer: PdfWriter, path: Path) -> Path:
    part = path.with_suffix(".part")
    writer.write(part)
    part.replace(path)
    return path


def main() -> None:
    """Print the built book."""
    root = Path(__file__).resolve().parent.parent
    executable = find()
    if executable is None:
        raise Problem("no Chromium found: set CHROMIUM to the path of one")
    for path in make(root / "build" / "html", toc_pages(root), executable):
        print(f"{path.relative_to(root)}  {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    finish(main)

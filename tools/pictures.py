"""`make pictures`: the README's pictures, taken from the built book by the browser that tests it.

`page.png` and `page-dark.png` show a chapter around its first claim about numbers, `hero.svg` is its hero figure. They
are kept in the repository, because a README is read before anything is built.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser

from .browser import find
from .browsing import TYPESET, browsing, cut_off, serving
from .problems import Problem, finish
from .stage import toc_chapters

SIZE = {"width": 1010, "height": 900}
SCHEMES: dict[str, Literal["light", "dark"]] = {"page.png": "light", "page-dark.png": "dark"}
SHOW_CLAIM = """() => {
  const below = document.querySelector(".claim-value").getBoundingClientRect().bottom - innerHeight / 3;
  scrollBy({ top: below, behavior: "instant" });
}"""


def take(html: Path, chapter: str, target: Path, executable: str) -> list[Path]:
    """Write the pictures of one chapter.

    Args:
        html: the built book.
        chapter: its file stem.
        target: folder for the pictures.
        executable: a Chromium.

    Returns:
        The files written.

    Raises:
        Problem: there is no book, or it lacks this chapter or its hero figure.
    """
    hero = html / "_images" / f"{chapter}.svg"
    if not hero.is_file() or not (html / "chapters" / f"{chapter}.html").is_file():
        raise Problem(f"the book in {html} has no chapter {chapter} with a hero figure: run make book first")
    target.mkdir(parents=True, exist_ok=True)
    with serving(html) as address, browsing(executable) as browser:
        for name, scheme in SCHEMES.items():
            _shoot(browser, address, f"chapters/{chapter}.html", scheme, target / name)
    shutil.copyfile(hero, target / "hero.svg")
    return [*(target / name for name in SCHEMES), target / "hero.svg"]


def _shoot(browser: Browser, address: str, page: str, scheme: Literal["light", "dark"], target: Path) -> None:
    with browser.new_context(viewport=SIZE, color_scheme=scheme, device_scale_factor=1.5) as context:  # type: ignore[arg-type]
        cut_off(context, address)
        tab = context.new_page()
        tab.goto(address + page, wait_until="networkidle")
        tab.evaluate(TYPESET)
        tab.evaluate(SHOW_CLAIM)
        tab.wait_for_timeout(300)  # the header slides away
        tab.screenshot(path=target)


def main() -> None:
    """Take the pictures of the first chapter."""
    root = Path(__file__).resolve().parent.parent
    executable = find()
    if executable is None:
        raise Problem("no Chromium found: set CHROMIUM to the path of one")
    for path in take(
        root / "build" / "html", toc_chapters(root)[0], root / "book" / "_static" / "pictures", executable
    ):
        print(path.relative_to(root))


if __name__ == "__main__":
    finish(main)

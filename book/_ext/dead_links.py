"""A Sphinx extension: a link that leads nowhere is a warning, also where it was written as HTML; so it stops the build.

Sphinx itself resolves references; what it cannot see are the links of the ledger, of outputs of cells and of raw HTML.
"""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

_LOG = logging.getLogger(__name__)
_LINK = re.compile(r'<a\b[^>]*?\bhref="([^"]+)"')
_ID = re.compile(r'<[a-z][^>]*?\bid="([^"]+)"')


def dead(pages: Mapping[str, str], files: set[str]) -> Iterator[tuple[str, str]]:
    """Pages and their links that lead to no file, or to no element of a page.

    Args:
        pages: text of the pages by address, such as `book/intro.html`.
        files: addresses of everything else that a link may lead to.
    """
    ids = {place: set(map(html.unescape, _ID.findall(page))) for place, page in pages.items()}
    for place, page in pages.items():
        for link in dict.fromkeys(map(html.unescape, _LINK.findall(page))):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            target = posixpath.normpath(posixpath.join(posixpath.dirname(place), unquote(parts.path)))
            target = target if parts.path else place
            if target in ids:
                lost = bool(parts.fragment) and unquote(parts.fragment) not in ids[target]
            else:
                lost = target not in files
            if lost:
                yield place, link


def warn_of_dead_links(app: Sphinx, exception: Exception | None) -> None:
    """Check the pages of a build that succeeded."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    own = {f"{name}.html": name for name in app.env.found_docs}
    pages = {place: (out / place).read_text(encoding="utf-8") for place in sorted(own) if place in files}
    for place, link in dead(pages, files - set(pages)):
        source = Path(app.env.doc2path(own[place]))
        _LOG.warning("link not found: '%s'", link, location=f"{source}:{_line(source, link)}".removesuffix(":"))


def _line(source: Path, link: str) -> str:
    """The line of a text in which the end of the link stands; empty where it is not written there."""
    if source.suffix != ".md":
        return ""
    end = link.rpartition("#")[2] or link
    lines = enumerate(source.read_text(encoding="utf-8").splitlines(), start=1)
    return next((str(number) for number, line in lines if end in line), "")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the check after all other steps."""
    app.connect("build-finished", warn_of_dead_links, priority=990)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

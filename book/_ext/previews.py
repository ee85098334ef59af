"""A Sphinx extension: a page carries what its links to other pages lead to, so that `previews.js` can show it.

What a link within a page leads to is there already. For a theorem, a formula, a term, a claim or a source on another
page a copy is put at the end of the page, in a template, which no reader sees and no browser draws before it is asked
for. So previews need no server, and work from disk.
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sphinx.application import Sphinx

_LINK = re.compile(r'<a class="[^"]*\breference internal\b[^"]*" href="([^"#]+\.html#[^"]+)"')
_TAG = re.compile(r"<(/?)([a-z][a-z0-9]*)\b[^>]*?(/?)>", re.IGNORECASE)
_CLASSES = re.compile(r'\bclass="([^"]*)"')
_SHOWN = {"proof", "exercise", "claim", "citation", "math"}
_HEADER_LINK = re.compile(r'<a class="headerlink"[^>]*>.*?</a>', re.DOTALL)
_ANCHOR = re.compile(r"</?a\b[^>]*>")
_ID = re.compile(r' id="[^"]*"')
_LABEL = re.compile(r'<span class="label">.*?</span></span>|<span class="backrefs">.*?</span>', re.DOTALL)
_TITLE = re.compile(r'<p class="admonition-title">.*?</p>', re.DOTALL)
_FORMULA = 'class="math '
_TYPESETTER = re.compile(r'<script\b[^>]*\bsrc="[^"]*mathjax', re.IGNORECASE)


def element(page: str, name: str) -> str:
    """The element of a page with this id, from its first tag to its last; empty if there is none.

    >>> element('<div><div id="a"><div>x</div></div> y</div>', "a")
    '<div id="a"><div>x</div></div>'
    """
    found = re.search(rf'<([a-z][a-z0-9]*)\b[^>]*\bid="{re.escape(html.escape(name))}"[^>]*>', page)
    return _whole(page, found.start(), found[1]) if found else ""


def _whole(page: str, start: int, kind: str) -> str:
    depth = 0
    for tag in _TAG.finditer(page, start):
        if tag[2] == kind and not tag[3]:
            depth += -1 if tag[1] else 1
            if depth == 0:
                return page[start : tag.end()]
    return ""


def preview(page: str, name: str, *, formulas: bool) -> str:
    """What to show of a link to this id: a theorem, exercise, claim, source, formula, or a term with its meaning.

    Args:
        page: the page that the link leads to.
        name: the id.
        formulas: whether the page that shows it can set formulas; if not, a theorem with formulas shrinks to its title.
    """
    found = element(page, name)
    if found.startswith("<dt"):
        end = page.index(found) + len(found)
        meaning = re.compile(r"\s*<dd\b").match(page, end)
        found = f"<p><strong>{_plain(found[found.index('>') + 1 : -len('</dt>')])}</strong></p>" + (
            _whole(page, meaning.end() - len("<dd"), "dd")[len("<dd>") : -len("</dd>")] if meaning else ""
        )
    elif not found or not _SHOWN & set(_classes(found)):
        return ""
    if _FORMULA in found and not formulas:
        title = _TITLE.search(found)
        found = title[0] if title and _FORMULA not in title[0] else ""
    return _plain(_LABEL.sub("", found)).strip()


def _classes(found: str) -> list[str]:
    classes = _CLASSES.search(found, 0, found.index(">"))
    return classes[1].split() if classes else []


def _plain(found: str) -> str:
    """Without links, which a tip must not have, and without ids, which the page may have too."""
    return _ID.sub("", _ANCHOR.sub("", _HEADER_LINK.sub("", found)))


def with_previews(page: str, place: str, pages: dict[str, str]) -> str:
    """A page with templates for its links to other pages.

    Args:
        page: its text.
        place: its address within the book, such as `book/intro.html`.
        pages: the text of all pages by address.
    """
    templates = []
    for link in dict.fromkeys(_LINK.findall(page)):
        target, _, name = html.unescape(link).partition("#")
        other = posixpath.normpath(posixpath.join(posixpath.dirname(place), unquote(target)))
        shown = preview(pages.get(other, ""), unquote(name), formulas=bool(_TYPESETTER.search(page)))
        if shown:
            templates.append(f'<template data-preview="{link}">{shown}</template>')
    head, end, tail = page.rpartition("</body>")
    return f"{head}{''.join(templates)}{end}{tail}"


def embed_previews(app: Sphinx, exception: Exception | None) -> None:
    """Complete the pages of a build that succeeded."""
    if exception is not None or app.builder.format != "html":
        return
    places = {f"{name}.html": Path(app.outdir) / f"{name}.html" for name in app.env.found_docs}
    pages = {place: path.read_text(encoding="utf-8") for place, path in places.items() if path.is_file()}
    for place, page in pages.items():
        if (changed := with_previews(page, place, pages)) != page:
            places[place].write_text(changed, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the step after pages have got their final form, and before styles are counted."""
    app.add_js_file("previews.js", loading_method="defer")
    app.connect("build-finished", embed_previews, priority=940)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

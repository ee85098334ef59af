"""A Sphinx extension: pages carry what they use, and say to a screen reader what they are.

The theme loads a script for live code and draws its icons twice (as a font and by a script of 1.5 MB); Sphinx gives the
first page the mathematics of all the others; figures give coordinates to a millionth of a point. What a page does not
use goes, and what the theme forgets to name gets a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

_STARRED_SHAPE = re.compile(r"(?<!`)(\(\*#?[a-z][^()]*\))")
_DISPLAY = re.compile(r"^( *)\$\$(.+?)\$\$", re.DOTALL | re.MULTILINE)
_FORMULA = re.compile(r"``.*?``|(?<=(\w))?\$([^$`]+?)\$(?=(\w))?", re.DOTALL)
_SCRIPT = re.compile(r"<script\b[^>]*\bfontawesome/[^>]*\bjs/all\.min\.js[^>]*>\s*</script>\s*", re.IGNORECASE)
_SCRIPT_PRELOAD = re.compile(r"<link\b[^>]*\bfontawesome/[^>]*\bjs/all\.min\.js[^>]*>\s*", re.IGNORECASE)
_FONT_PRELOAD = re.compile(r'<link rel="preload"[^>]*\bfa-(?:brands|regular|solid)-[^>]*>\s*', re.IGNORECASE)
_SIDEBAR = '<div class="bd-sidebar-primary bd-sidebar'
_SVG = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->\s*", re.DOTALL)
_COORDINATES = re.compile(r'\b(?:d|points|[xy][12]?)="[^"]*"')
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_BETWEEN_TAGS = re.compile(r">\s*\n\s*<")
_PATH_DATA = re.compile(r' d="[^"]*"')
_AROUND_COMMAND = re.compile(r"\s*([MLQCHVZz])\s*")
_STYLED_PATH = re.compile(r'<path id="([^"]+)" d="[^"]*" style="([^"]*)"/>')
_STYLED_USE = re.compile(r'<use xlink:href="#([^"]+)"[^>]*? style="([^"]*)"/>')
_REPEATED_ID = re.compile(r'(<section class="[\w-]+-content"|<section) id="(?:proof|exercise|solution)-content"')
_FORMULA_AND_MARK = re.compile(r'(<span class="math notranslate nohighlight">[^<]*</span>)([.,;:!?)\]’”]+)')
_UNNAMED = (
    (' role="list"', ""),  # on a list of citations: its children are no list items
    (' role="doc-biblioentry"', ""),
    ('<table class="table">', '<table class="table" tabindex="0">'),  # on a phone it scrolls, and must by keyboard too
    (
        '<div class="proof admonition" id="proof">\n<p>Proof. ',
        '<div class="proof derivation admonition">\n<p><em>Proof.</em> ',
    ),
    (_SIDEBAR, _SIDEBAR.replace("<div ", '<div role="region" aria-label="Book" ')),
)


def drop_unused_scripts(
    _app: Sphinx, _pagename: str, _template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Take live-code scripts off every page, and MathJax off the pages without a formula."""
    has_math = doctree is not None and next(doctree.findall(_is_math), None) is not None
    context["script_files"] = [
        script for script in context["script_files"] if not _is_unused(script, has_math=has_math)
    ]


def _is_math(node: nodes.Node) -> bool:
    return isinstance(node, (nodes.math, nodes.math_block))


def _is_unused(script: Any, *, has_math: bool) -> bool:
    name = str(getattr(script, "filename", script) or "").lower()
    body = str(getattr(script, "attributes", {}).get("body", ""))
    return "thebe" in name or "THEBE" in body or ("mathjax" in name + body.lower() and not has_math)


def slim(html: str) -> str:
    """One page without the second set of icons, with named landmarks, and no full stop at the start of a line."""
    for unused in (_SCRIPT, _SCRIPT_PRELOAD, _FONT_PRELOAD):
        html = unused.sub("", html)
    html = _REPEATED_ID.sub(r"\1", html)
    html = _FORMULA_AND_MARK.sub(r'<span class="nobreak">\1\2</span>', html)
    for old, new in _UNNAMED:
        html = html.replace(old, new)
    return html


def slim_svg(svg: str) -> str:
    """A drawing with coordinates to a hundredth of a point, without comments, and with a marker's style said once."""
    svg = _COORDINATES.sub(
        lambda attribute: _NUMBER.sub(lambda number: f"{float(number[0]):.2f}", attribute[0]), _COMMENT.sub("", svg)
    )
    svg = _PATH_DATA.sub(lambda data: _AROUND_COMMAND.sub(r"\1", data[0]), _share_styles(svg))
    return _BETWEEN_TAGS.sub("><", svg)


def _share_styles(svg: str) -> str:
    """Where all uses of a path have one style, the path has it, and its own on top as before."""
    styles: dict[str, set[str]] = {}
    for name, style in _STYLED_USE.findall(svg):
        styles.setdefault(name, set()).add(style)
    shared = {name: found.pop() for name, found in styles.items() if len(found) == 1}
    known = {path[1] for path in _STYLED_PATH.finditer(svg)}
    svg = _STYLED_PATH.sub(
        lambda path: path[0].replace(path[2], f"{shared[path[1]]}; {path[2]}") if path[1] in shared else path[0], svg
    )
    bare = shared.keys() & known
    return _STYLED_USE.sub(lambda use: use[0].replace(f' style="{use[2]}"', "") if use[1] in bare else use[0], svg)


def slim_pages(app: Sphinx, exception: Exception | None) -> None:
    """Rewrite the pages and drawings of a build that succeeded."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    for page in out.rglob("*.html"):
        _rewrite(page, lambda html: _SVG.sub(lambda svg: slim_svg(svg[0]), slim(html)))
    for drawing in out.glob("_images/*.svg"):
        _rewrite(drawing, slim_svg)


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    text = path.read_text(encoding="utf-8")
    if (changed := change(text)) != text:
        path.write_text(changed, encoding="utf-8")


def quote(_app: object, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Translate the formulas and shapes of a docstring into reStructuredText.

    Left alone, the bars of $|x|$ would open a substitution there, and the star of (*batch, k) an emphasis.
    """
    text = "\n".join(_STARRED_SHAPE.sub(r"``\1``", line) for line in lines)
    text = _FORMULA.sub(_inline_math, _DISPLAY.sub(_display_math, text))
    lines[:] = text.split("\n")


def _display_math(found: re.Match[str]) -> str:
    body = " ".join(found[2].split())
    return f"\n{found[1]}.. math:: {body}\n\n{found[1]}"


def _inline_math(found: re.Match[str]) -> str:
    before, formula, after = found.groups()
    if formula is None:
        return found[0]
    return ("\\ " if before else "") + f":math:`{formula}`" + ("\\ " if after else "")


def name_the_logo(_app: Sphinx, config: Any) -> None:
    """Print the book's title beside its sign, as text that the style sheet and a reader's own font can reach."""
    config.html_theme_options.setdefault("logo", {}).setdefault("text", config.html_title or config.project)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the steps; late priorities, so that they see what the other extensions have added."""
    app.connect("config-inited", name_the_logo, priority=900)
    app.connect("html-page-context", drop_unused_scripts, priority=900)
    app.connect("autodoc-process-docstring", quote, priority=900)
    app.connect("build-finished", slim_pages, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

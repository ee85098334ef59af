"""A Sphinx extension: the style sheets of the theme keep the rules that a page of this book can need.

Bootstrap and the themes style hundreds of components that no page shows, and every page loads them. A rule goes if each
of its selectors asks for a class that stands in no page and in no script. The book's own style sheets stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tinycss2
from sphinx.application import Sphinx
from tinycss2.ast import AtRule, Node, QualifiedRule

_CLASS_ATTRIBUTE = re.compile(r"""\bclass=(?:"([^"]*)"|'([^']*)'|([^\s>"']+))""")
_INLINE_SCRIPT = re.compile(r"<script\b[^>]*>(.*?)</script>", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_][\w-]*")
_CLASS = re.compile(r"\.([A-Za-z_-][\w-]*)")
_BRACKETS = re.compile(r"\([^()]*\)|\[[^][]*\]")
_NESTING = {"media", "supports", "layer", "container"}


def classes_of(page: str) -> set[str]:
    """The classes that a page has, or that its own scripts may give."""
    attributes = (name for found in _CLASS_ATTRIBUTE.findall(page) for name in " ".join(found).split())
    return {*attributes, *(word for script in _INLINE_SCRIPT.findall(page) for word in _WORD.findall(script))}


def slim_styles(css: str, used: set[str]) -> str:
    """A style sheet without the rules that match nothing, and without comments.

    >>> slim_styles(".a, .b:not(.c) { x: y } .d .a { x: z } @media print { .d { x: y } } p { x: y }", {"a", "b"})
    '.a,.b:not(.c){x: y}p{x: y}'
    """
    return _written(tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True), used)


def _written(rules: Iterable[Node], used: set[str]) -> str:
    return "".join(_rule(rule, used) for rule in rules)


def _rule(rule: Node, used: set[str]) -> str:
    if isinstance(rule, QualifiedRule):
        kept = [selector for selector in _selectors(rule.prelude) if _can_match(selector, used)]
        return f"{','.join(kept)}{{{_text(rule.content)}}}" if kept else ""
    if isinstance(rule, AtRule) and rule.content is not None:
        if rule.lower_at_keyword not in _NESTING:
            return f"@{rule.at_keyword} {_text(rule.prelude)}{{{_text(rule.content)}}}"
        inner = _written(tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True), used)
        return f"@{rule.at_keyword} {_text(rule.prelude)}{{{inner}}}" if inner else ""
    return str(rule.serialize())


def _text(nodes: Iterable[Node]) -> str:
    return str(tinycss2.serialize(node for node in nodes if node.type != "comment")).strip()


def _selectors(prelude: Iterable[Node]) -> list[str]:
    """The selectors of a list, which commas separate (those within brackets belong to one selector)."""
    groups: list[list[Node]] = [[]]
    for node in prelude:
        if node.type == "literal" and node.value == ",":
            groups.append([])
        else:
            groups[-1].append(node)
    return [_text(group) for group in groups]


def _can_match(selector: str, used: set[str]) -> bool:
    """Whether every class that the selector asks for is used; what stands in brackets asks for none."""
    while (outside := _BRACKETS.sub("", selector)) != selector:
        selector = outside
    return "\\" in selector or used.issuperset(_CLASS.findall(selector))


def slim_built_styles(app: Sphinx, exception: Exception | None) -> None:
    """Rewrite the style sheets of a build that succeeded."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    used = {name for page in out.rglob("*.html") for name in classes_of(page.read_text(encoding="utf-8"))}
    for script in (*out.glob("_static/*.js"), *out.glob("_static/scripts/*.js")):
        used.update(_WORD.findall(script.read_text(encoding="utf-8")))
    own = {path.name for folder in app.config.html_static_path for path in (Path(app.confdir) / folder).glob("*.css")}
    for sheet in (*out.glob("_static/*.css"), *out.glob("_static/styles/*.css")):
        if sheet.name not in own:
            sheet.write_text(slim_styles(sheet.read_text(encoding="utf-8"), used), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the step after pages and icons have got what they keep."""
    app.connect("build-finished", slim_built_styles, priority=960)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

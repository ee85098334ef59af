"""A Sphinx extension: a long formula within a line may break before a relation, as it would on paper.

A browser treats a formula as one word. On a phone a long one would stick out of its column, so it is set as several,
with a place to break between them: before each relation outside all brackets, and before a plus or minus where what is
between two relations is still long. What stands on one line looks as before.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

LONG, VERY_LONG = 16, 34  # characters as printed, roughly

_HEAD, _TAIL = r'<span class="math notranslate nohighlight">\(', r"\)</span>"
_INLINE = re.compile(f"{re.escape(_HEAD)}(.*?){re.escape(_TAIL)}", re.DOTALL)
_TOKEN = re.compile(r":=|&\w+;|\\[a-zA-Z]+\*?|\\.|.", re.DOTALL)
_RELATIONS = {
    *("=", ":=", "&lt;", "&gt;", r"\le", r"\leq", r"\ge", r"\geq", r"\ne", r"\neq", r"\equiv", r"\sim"),
    *(r"\simeq", r"\approx", r"\propto", r"\to", r"\iff", r"\implies", r"\Rightarrow"),
}
_OPEN = {"{", "(", "[", r"\{", r"\langle", r"\lfloor", r"\lceil", r"\left", r"\begin"}
_CLOSE = {"}", ")", "]", r"\}", r"\rangle", r"\rfloor", r"\rceil", r"\right", r"\end"}
_DELIMITED = {r"\left", r"\right"}


def printed_length(tokens: list[str]) -> int:
    """About how many characters a formula prints: a command counts as one, grouping as none."""
    return sum(token not in {"{", "}", "^", "_", " ", "\n", r"\,", r"\!", r"\;", r"\rm"} for token in tokens)


def pieces(formula: str) -> list[str]:
    r"""The formula cut at its relations, and where it is very long before signs; each piece is complete in itself.

    >>> pieces("f(x)=a_1+a_2+a_3+a_4+a_5")
    ['f(x)', '=a_1+a_2+a_3+a_4+a_5']
    >>> pieces(r"\\{x : |x|=1\\}"), pieces("a=b")
    (['\\\\{x : |x|=1\\\\}'], ['a=b'])
    """
    tokens = _TOKEN.findall(formula)
    if printed_length(tokens) < LONG:
        return [formula]
    cut = _cut(tokens, _RELATIONS)
    fine = [
        part for piece in cut for part in (_cut(piece, {"+", "-"}) if printed_length(piece) > VERY_LONG else [piece])
    ]
    return ["".join(piece) for piece in fine]


def _cut(tokens: list[str], marks: set[str]) -> list[list[str]]:
    """Before each mark outside all brackets; nowhere if brackets do not match, as in a half-open interval."""
    found: list[list[str]] = [[]]
    depth, bars, before, skipped = 0, 0, "", False
    for token in tokens:
        if skipped:  # the delimiter of \left or \right
            skipped = False
        elif token in _OPEN or token in _CLOSE:
            depth += 1 if token in _OPEN else -1
            skipped = token in _DELIMITED
        elif token in {"|", r"\|", r"\vert", r"\Vert"}:
            bars += 1
        elif token in marks and depth == 0 and bars % 2 == 0 and found[-1] and _is_binary(before):
            found.append([])
        found[-1].append(token)
        before = before if token.isspace() else token
    return found if depth == 0 and bars % 2 == 0 else [tokens]


def _is_binary(before: str) -> bool:
    """Whether a sign after `before` joins two terms: not after a relation, a script, another sign or a negation."""
    return before not in _RELATIONS | {"", "^", "_", "+", "-", ",", r"\not", r"\pm", r"\in", r"\cdot", r"\times"}


def break_formulas(html: str) -> str:
    """A page with places to break in its long formulas."""
    return _INLINE.sub(_broken, html)


def _broken(found: re.Match[str]) -> str:
    first, *rest = pieces(found[1])
    # The empty group keeps the space that a relation or sign has on its left.
    return "<wbr>".join(f"{_HEAD}{text}{_TAIL}" for text in (first, *("{}" + piece for piece in rest)))


def break_built_formulas(app: Sphinx, exception: Exception | None) -> None:
    """Rewrite the pages of a build that succeeded."""
    if exception is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if (changed := break_formulas(text)) != text:
            page.write_text(changed, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the step before full stops are tied to the formula that they follow."""
    app.connect("build-finished", break_built_formulas, priority=890)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""The Sphinx extensions of the book that `test_pages.py` does not cover: on small inputs, without a build."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import pytest

from tests.sphinx_extensions import load

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))


@pytest.mark.parametrize(
    ("css", "slim"),
    [
        (".a { x: y } .gone { x: y }", ".a{x: y}"),
        (".a, .gone > p, p.b { x: y }", ".a,p.b{x: y}"),
        ("p:not(.gone), :is(.gone, .a) b { x: y }", "p:not(.gone),:is(.gone, .a) b{x: y}"),
        ("@media print { .gone { x: y } }", ""),
        ("@media print { .gone { x: y } .a { x: y } }", "@media print{.a{x: y}}"),
        ("@keyframes gone { 12.5% { x: y } }", "@keyframes gone{12.5% { x: y }}"),
        ('@import "a.gone.css";', '@import "a.gone.css";'),
        ('a[href$=".gone"] { content: "}" } /* .a */', 'a[href$=".gone"]{content: "}"}'),
        (r".a\:b { x: y }", r".a\:b{x: y}"),
        (":root { --c: .5rem }", ":root{--c: .5rem}"),
    ],
)
def test_a_style_sheet_loses_only_rules_that_match_nothing(css: str, slim: str) -> None:
    assert load("lean_styles").slim_styles(css, {"a", "b"}) == slim


def test_classes_are_those_of_tags_and_of_scripts_in_the_page() -> None:
    page = """<p class="a b-1">class="no" told</p><i class='c'></i><script>x.classList.add("d")</script><p>e</p>"""
    assert load("lean_styles").classes_of(page) >= {"a", "b-1", "c", "d"}
    assert "e" not in load("lean_styles").classes_of(page)


THEOREM = (
    '<div class="proof theorem admonition" id="t"><p class="admonition-title"><span>Theorem 1</span> (Big)</p>'
    '<section><div class="math notranslate" id="equation-e"><a class="headerlink" href="#e">#</a>x</div>'
    '<div><a href="y.html">see</a></div></section></div>'
)
SHOWN = (
    '<div class="proof theorem admonition"><p class="admonition-title"><span>Theorem 1</span> (Big)</p>'
    '<section><div class="math notranslate">x</div><div>see</div></section></div>'
)


def test_a_preview_is_the_element_without_links_and_ids() -> None:
    previews = load("previews")
    page = f"<div>before{THEOREM}<div>after</div></div>"
    assert previews.preview(page, "t", formulas=True) == SHOWN
    assert previews.preview(page, "equation-e", formulas=True) == '<div class="math notranslate">x</div>'
    assert previews.preview(page, "nothing", formulas=True) == ""


def test_a_page_that_sets_no_formulas_previews_a_title() -> None:
    previews = load("previews")
    title = '<p class="admonition-title"><span>Theorem 1</span> (Big)</p>'
    assert previews.preview(THEOREM, "t", formulas=False) == title
    assert previews.preview(THEOREM, "equation-e", formulas=False) == ""


def test_a_term_is_previewed_with_its_meaning_and_a_source_without_its_number() -> None:
    previews = load("previews")
    glossary = (
        '<dl><dt id="term-a">a<a class="headerlink" href="#">#</a></dt><dd><p>An <a href="#b">x</a>.</p>\n</dd></dl>'
    )
    assert previews.preview(glossary, "term-a", formulas=True) == "<p><strong>a</strong></p><p>An x.</p>"
    source = '<div class="citation" id="id1"><span class="label"><span>[</span>1<span>]</span></span><p>Book.</p></div>'
    assert previews.preview(source, "id1", formulas=True) == '<div class="citation"><p>Book.</p></div>'


def test_templates_stand_at_the_end_once_for_each_link_to_another_page() -> None:
    link = '<a class="reference internal" href="../chapters/c.html#t">1</a>'
    inside = '<a class="reference internal" href="#t">1</a>'
    typesetter = '<script src="mathjax/tex.js"></script>'
    page = f"{typesetter}<body>{link}{link}{inside}</body>"
    template = f'<template data-preview="../chapters/c.html#t">{SHOWN}</template>'
    pages = {"chapters/c.html": THEOREM}
    assert load("previews").with_previews(page, "book/p.html", pages) == page.replace("</body>", f"{template}</body>")


CELLS = (
    "from lib import claims, figures\nfrom lib.claims import claim\nfrom lib.a import f, g, h as k\n",
    "x = f(1)\nfigures.axes()\ndef helper(y):\n    return g(y)\n",
    "rows = []\nfor i in range(3):\n    rows.append(helper(i))\nk(2)\n",
    'claim("one", "text", predicted=k(3), measured=x)\nclaim("two", "text", measured=rows, predicted=f(2))\n',
)


def test_a_claim_uses_what_its_numbers_were_made_from() -> None:
    cells = [{"cell_type": "code", "source": source} for source in CELLS]
    found = load("used_in").uses({"cells": [{"cell_type": "markdown", "source": "not python"}, *cells]})
    assert found["lib.a.f"] == ["two", "one"]  # first where it is called itself
    assert found["lib.a.g"] == ["two"]
    assert found["lib.a.h"] == ["one"]
    assert found["lib.figures.axes"] == []
    assert "lib.a" not in found


def test_a_name_that_is_made_anew_forgets_and_a_bound_one_is_another() -> None:
    source = """
from lib.a import f, g, h
from lib.claims import claim
x, kept = f(1), f(2)
y = 0
x = 3
if x:
    kept = 4
for x_ in range(2):
    claim("loop", "text", measured=y)
    y = g(x_)
inner = [x for x in h(1)]
def local(kept):
    return kept
claim("last", "text", predicted=x, measured=local(5))
claim("kept", "text", measured=kept)
"""
    found = load("used_in").uses({"cells": [{"cell_type": "code", "source": source}]})
    del found["lib.claims.claim"]
    assert found == {"lib.a.f": ["kept"], "lib.a.g": ["loop"], "lib.a.h": []}


def test_use_is_told_in_one_sentence() -> None:
    used_in = load("used_in").used_in
    many = [f"c{i}" for i in range(8)]
    assert used_in("lib.a.f", {"a": {}}) == ""
    assert used_in("lib.a.f", {"a": {"lib.a.f": ["x"]}}) == "Used in :doc:`/chapters/a` (claim :claim:`x`)."
    assert used_in("lib.a.f", {"a": {"lib.a.f": many}}).endswith(":claim:`c5` and 2 more).")
    assert used_in("lib.data.f", {"a": {"lib.data.f": many}, "b": {"lib.data.f": []}}) == (
        "Used in :doc:`/chapters/a`; :doc:`/chapters/b`."
    )


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_uses_most_of_its_library_for_claims(chapter: Path) -> None:
    package = importlib.import_module(f"lib.{chapter.stem}")
    functions = [name for name in package.__all__ if inspect.isfunction(getattr(package, name))]
    found = load("used_in").uses(json.loads(chapter.read_text(encoding="utf-8")))
    with_claims = [name for name in functions if found.get(f"lib.{chapter.stem}.{name}")]
    assert len(with_claims) >= 0.8 * len(functions)
    made = {claim for claims in found.values() for claim in claims}
    assert made
    assert all(f'\\"{claim}\\"' in chapter.read_text(encoding="utf-8") for claim in made)

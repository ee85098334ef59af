"""The Sphinx extensions of the book that `test_pages.py` does not cover: on small inputs, without a build."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load(name: str) -> ModuleType:
    """A Sphinx extension of the book."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / "_ext" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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

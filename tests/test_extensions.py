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

"""The pages as they are written, and the extension that slims them: cheap to check, before anything is built."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import json
import pkgutil
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from fontTools.ttLib import TTFont

import lib
from tests.sphinx_extensions import load

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "book").glob("*.md"))
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
ROOMS = [room.name for room in pkgutil.iter_modules(lib.__path__) if room.ispkg] + [
    "claims",
    "data",
    "figures",
    "sweeps",
    "tables",
]


def text_of(path: Path) -> str:
    """A page's text; of a notebook its Markdown cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


def python_examples(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def run(example: str) -> str:
    """What the example prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, "example", "exec"), {"__name__": "__main__"})
    return printed.getvalue()


def test_every_citation_has_an_entry() -> None:
    entries = re.findall(r"^@\w+\{([^,]+),", (ROOT / "book" / "references.bib").read_text("utf-8"), flags=re.MULTILINE)
    assert [key for key, times in Counter(entries).items() if times > 1] == []
    cited = {
        (key.strip(), path.name)
        for path in [*PAGES, *CHAPTERS]
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text_of(path))
        for key in keys.split(",")
    }
    assert {found for found in cited if found[0] not in entries} == set()


def test_every_claim_that_a_page_names_is_made_in_a_chapter() -> None:
    named = {name for path in [*PAGES, *CHAPTERS] for name in re.findall(r"\{claim\}`([^`]+)`", text_of(path))}
    assert len(named) > 10
    cells = [cell for path in CHAPTERS for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert {name for name in named if f'"{name}"' not in code} == set()


def test_every_page_of_the_book_is_listed_and_every_listed_page_exists() -> None:
    listed = re.findall(r"(?:file|root): *(\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert [name for name, times in Counter(listed).items() if times > 1] == []
    written = {f"book/{path.stem}" for path in PAGES} | {f"chapters/{path.stem}" for path in CHAPTERS}
    assert set(listed) == written


def test_no_symbol_has_two_meanings() -> None:
    rows = re.findall(
        r"^\| (\$.+?) \| (.+?) \| (.+?) \| (.+?) \|$", text_of(ROOT / "book" / "notation.md"), re.MULTILINE
    )
    symbols = [symbol for row in rows for symbol in re.findall(r"\$([^$]+)\$", row[0])]
    assert len(symbols) > 20
    assert [symbol for symbol, times in Counter(symbols).items() if times > 1] == []
    chapters = {"all"} | {path.stem for path in CHAPTERS}
    assert {row[3] for row in rows} <= chapters


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_symbols_of_a_chapter_stand_in_the_notation(path: Path) -> None:
    table = re.search(r"^\| *symbol *\|.*\n\|[-| :]+\n((?:\|.*\n?)+)", text_of(path), re.MULTILINE)
    assert table is not None, "the chapter has no table of symbols"
    first_cells = [row.split(" | ")[0] for row in table[1].splitlines()]
    known = heads(re.findall(r"^\| (\$.+?) \| ", text_of(ROOT / "book" / "notation.md"), re.MULTILINE))
    assert heads(first_cells) - known == set()


def heads(cells: list[str]) -> set[str]:
    """The symbols in cells of a table, without their arguments and definitions."""
    symbols = [symbol for cell in cells for symbol in re.findall(r"\$([^$]+)\$", cell)]
    return {re.split(r"=|\\in(?![a-z])|\\[gl]e(?![a-z])|\(|>|<", symbol)[0].strip() for symbol in symbols}


def test_no_term_is_explained_twice() -> None:
    terms = re.findall(r"^(\S.*)\n(?=    \S)", text_of(ROOT / "book" / "glossary.md"), flags=re.MULTILINE)
    assert len(terms) > 20
    assert terms == sorted(set(terms), key=str.lower)


def test_every_chapter_has_its_card_on_the_front_page() -> None:
    front = text_of(ROOT / "book" / "intro.md")
    for path in CHAPTERS:
        assert f":img-top: hero/{path.stem}.svg" in front
        assert f":link: ../chapters/{path.stem}\n" in front
    assert front.count(":img-top:") == front.count(":img-alt:")


def test_configuration_loads_what_is_there() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert config["execute"]["execute_notebooks"] == "off"
    for name in [config["logo"], config["html"]["favicon"], *config["bibtex_bibfiles"], "book/_static/book.css"]:
        assert (ROOT / name).is_file()


@pytest.mark.parametrize("page", ["README.md", "book/how_to_use.md", "book/scaling_out.md"])
def test_examples_run_as_printed(page: str) -> None:
    examples = [example for example in python_examples(ROOT / page) if "import" in example]
    assert examples
    for example in examples:
        run(example)


def test_readme_example_prints_what_the_readme_says() -> None:
    example = next(example for example in python_examples(ROOT / "README.md") if "import" in example)
    said = re.findall(r"# (\[.*\])$", example, flags=re.MULTILINE)
    assert run(example).splitlines() == said
    assert len(example.splitlines()) <= 8


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_are_listed_and_documented(room: str) -> None:
    module = importlib.import_module(f"lib.{room}")
    own = {
        name
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__ == module.__name__
    }
    assert own <= set(module.__all__), "public, but not in __all__"
    assert module.__doc__
    for name in module.__all__:
        thing = getattr(module, name)
        if not callable(thing):
            continue
        text = inspect.getdoc(thing) or ""
        assert text, f"{name} has no docstring"
        if inspect.isfunction(thing) and hasattr(module, "__path__"):  # a chapter's theory
            missing = [part for part in ("Args:", "Returns:", "Source:", ">>>") if part not in text]
            assert missing == [], name


@pytest.fixture(scope="module")
def extension() -> ModuleType:
    return load("lean_pages")


@pytest.fixture(scope="module")
def icons() -> ModuleType:
    return load("lean_icons")


def test_pages_lose_the_second_icon_set_and_nothing_else(extension: ModuleType) -> None:
    heavy = '<script defer src="../_static/vendor/fontawesome/6.5.2/js/all.min.js?digest=1"></script>'
    kept = '<script src="../_static/documentation_options.js"></script><p>text</p>'
    assert extension.slim(heavy + kept) == kept


def test_a_full_stop_never_leaves_its_formula(extension: ModuleType) -> None:
    formula = '<span class="math notranslate nohighlight">\\(x^2\\)</span>'
    assert extension.slim(f"for {formula}. Then") == f'for <span class="nobreak">{formula}.</span> Then'
    assert extension.slim(f"for {formula} we") == f"for {formula} we"


@pytest.mark.parametrize(
    ("formula", "parts"),
    [
        (
            r"\ell=\sum_i\log p_\theta(y_i\mid x,\beta,\gamma)",
            [r"\ell", r"=\sum_i\log p_\theta(y_i\mid x,\beta,\gamma)"],
        ),
        (r"E[a=b+c+d+e+f+g+h+i+j]", [r"E[a=b+c+d+e+f+g+h+i+j]"]),
        (r"x\in[0,a=1), b+c+d+e+f=g", [r"x\in[0,a=1), b+c+d+e+f", "=g"]),
        (r"a(x)b(x)c(x)d(x)\le -f(y)", [r"a(x)b(x)c(x)d(x)", r"\le -f(y)"]),
        (r"\left(\frac{a=b}c\right.c+d+e+f+g&lt;h", [r"\left(\frac{a=b}c\right.c+d+e+f+g", "&lt;h"]),
        ("a+" * 20 + "a", ["a", *["+a"] * 20]),
        ("a=b", ["a=b"]),
    ],
)
def test_a_long_formula_may_break_where_a_printer_would_break_it(formula: str, parts: list[str]) -> None:
    module = load("breakable_math")
    assert module.pieces(formula) == parts
    assert "".join(module.pieces(formula)) == formula
    head, tail = r'<span class="math notranslate nohighlight">\(', r"\)</span>"
    pieces = [parts[0], *("{}" + part for part in parts[1:])]
    assert module.break_formulas(f"for {head}{formula}{tail}.") == (
        "for " + "<wbr>".join(f"{head}{piece}{tail}" for piece in pieces) + "."
    )


def test_claims_are_found_in_the_outputs_of_cells() -> None:
    outputs = [{"metadata": {"claim": {"id": "a"}}}, {"output_type": "stream"}, {"metadata": {}}]
    notebook = {"cells": [{"outputs": outputs}, {"source": ""}, {"outputs": [{"metadata": {"claim": {"id": "b"}}}]}]}
    assert load("claim_links").claims_of(notebook) == ["a", "b"]


def test_drawings_lose_digits_nobody_sees(extension: ModuleType) -> None:
    drawing = '<svg><!-- a --><path d="M 1.234567 -0.0049999 L 12 3.5"/><g transform="scale(0.015625)"/></svg>'
    assert extension.slim_svg(drawing) == ('<svg><path d="M1.23 -0.00L12 3.5"/><g transform="scale(0.015625)"/></svg>')


def test_a_style_that_all_uses_of_a_marker_share_is_said_once(extension: ModuleType) -> None:
    marker = '<path id="m1" d="M 0 0" style="stroke: red"/>\n  <path id="m2" d="M 1 1" style="stroke: red"/>'
    uses = '<use xlink:href="#m1" x="1" style="fill: blue"/><use xlink:href="#m1" x="2" style="fill: blue"/>'
    mixed = '<use xlink:href="#m2" x="1" style="fill: blue"/><use xlink:href="#m2" x="2" style="fill: green"/>'
    assert extension.slim_svg(marker + uses + mixed) == (
        '<path id="m1" d="M0 0" style="fill: blue; stroke: red"/><path id="m2" d="M1 1" style="stroke: red"/>'
        '<use xlink:href="#m1" x="1"/><use xlink:href="#m1" x="2"/>' + mixed
    )


def test_icons_that_are_used_keep_their_name(icons: ModuleType) -> None:
    css = '.fa-sun:before{content:"a"}.fa-moon:before,.fa-night:before{content:"b"}.fa-cat:before{content:"c"}.fa{x:y}'
    slimmed = '.fa-sun:before{content:"a"}.fa-moon:before,.fa-night:before{content:"b"}.fa{x:y}'
    assert icons.slim_icons(css, {"fa-sun", "fa-night"}) == slimmed
    face = (
        'src:url(../webfonts/fa-solid-900.woff2) format("woff2"),url(../webfonts/fa-solid-900.ttf) format("truetype")'
    )
    assert icons.slim_icons(face, set()) == 'src:url(../webfonts/fa-solid-900.woff) format("woff")'


def test_icons_that_are_used_keep_their_drawing(icons: ModuleType, tmp_path: Path) -> None:
    theme = importlib.util.find_spec("pydata_sphinx_theme")
    assert theme is not None
    assert theme.origin is not None
    (original,) = Path(theme.origin).parent.rglob("fa-solid-900.ttf")
    font = tmp_path / original.name
    font.write_bytes(original.read_bytes())
    wanted = icons.icons_of('.fa-sun:before{content:"\\f185"}.x::after { content: "\\f061"; }.y{content:"z"}')
    assert wanted == {0xF185, 0xF061}
    icons.slim_font(font, wanted)
    with TTFont(original) as whole, TTFont(font.with_suffix(".woff")) as slim:
        assert set(slim.getBestCmap()) == wanted
        for code in wanted:
            same = [face["glyf"][face.getBestCmap()[code]].coordinates for face in (whole, slim)]
            assert same[0] == same[1]
    assert font.with_suffix(".woff").stat().st_size < 0.02 * font.stat().st_size


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Shape (*batch, k) and (*#batch,).", "Shape ``(*batch, k)`` and ``(*#batch,)``."),
        ("where $|x||y|$ is", "where :math:`|x||y|` is"),
        (r"gives $\alpha=-$slope", r"gives :math:`\alpha=-`\ slope"),
        ("a ``$HOME`` stays", "a ``$HOME`` stays"),
        ("$$ a = b\nc, $$\nthen", "\n.. math:: a = b c,\n\n\nthen"),
    ],
)
def test_docstrings_are_translated(extension: ModuleType, written: str, read: str) -> None:
    lines = written.split("\n")
    extension.quote(None, "function", "f", None, None, lines)
    assert "\n".join(lines) == read

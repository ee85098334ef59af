"""What a book must not contain stops its build, with the file and the place."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest

from tools.build import build
from tools.options import Options
from tools.problems import Problem
from tools.proofread import proofread

from .conftest import HERO, Toy

EXTENSIONS = Path(__file__).resolve().parent.parent.parent / "book" / "_ext"


def findings(toy: Toy) -> list[str]:
    """What proofreading says of the toy, its chapters taken as executed."""
    try:
        proofread(toy.root, {path.stem: path for path in (toy.root / "chapters").glob("*.ipynb")})
    except Problem as problem:
        return str(problem).splitlines()
    return []


def test_a_good_book_has_no_findings(toy: Toy) -> None:
    assert findings(toy) == []


def test_a_symbol_of_two_meanings_is_found_with_both_lines(toy: Toy) -> None:
    rows = "| $n$, $k$ | samples | – | all |\n| $x_k$ | input | – | all |\n| $k$ | steps | – | all |\n"
    (toy.root / "book/notation.md").write_text(f"# Notation\n\n| symbol | meaning |\n|---|---|\n{rows}")
    assert findings(toy) == ["book/notation.md:7: $k$ is defined twice, first in line 5"]


def test_an_exercise_without_a_solution_is_found(toy: Toy) -> None:
    exercise = "```{exercise} Two apples\n:label: ex-two\nWhy?\n```\n"
    toy.chapter("apple", text=exercise)
    assert findings(toy) == ["chapters/apple.ipynb, cell 1: exercise ex-two (Two apples) has no solution"]
    toy.chapter(
        "apple", text=exercise + "\n```{solution-start} ex-two\n:class: dropdown\n```\nSo.\n\n```{solution-end}\n```"
    )
    assert findings(toy) == []
    (toy.root / "book/more.md").write_text("# More\n\n````{exercise}\nNo label.\n````\n")
    assert findings(toy) == ["book/more.md:3: exercise without a label () has no solution"]


def test_a_figure_without_alternative_text_is_found(toy: Toy) -> None:
    path = toy.chapter("apple", "x = 1", HERO)
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.source == HERO:
            cell.outputs = [nbformat.v4.new_output("display_data", {"image/svg+xml": "<svg/>"})]
    nbformat.write(notebook, path)
    (found,) = findings(toy)  # the hero has its words
    assert found.startswith('chapters/apple.ipynb, code cell 4 ("from IPython.display import SVG"): a figure without')


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("![](a.svg)", "3"),
        ("Text.\n\n![ ](a.svg)", "5"),
        ("```{figure} a.svg\n:name: a\nCaption\n```", "3"),
        (":::{grid-item-card} A\n:img-top: a.svg\n:::", "3"),
        ("![A square](a.svg)\n\n```{image} a.svg\n:alt: A square\n```\n\n:::{grid-item-card} A\ntext\n:::", ""),
    ],
)
def test_a_picture_without_alternative_text_is_found(toy: Toy, text: str, place: str) -> None:
    (toy.root / "book/more.md").write_text(f"# More\n\n{text}\n")
    assert [line.split(": ")[0] for line in findings(toy)] == ([f"book/more.md:{place}"] if place else [])


def test_the_build_names_the_file_and_line_of_what_leads_nowhere(toy: Toy) -> None:
    (toy.root / "book/_ext").mkdir()
    shutil.copy(EXTENSIONS / "dead_links.py", toy.root / "book/_ext")
    (toy.root / "book/references.bib").write_text(
        "@book{known, title={A}, author={B, C}, publisher={D}, year={2000}}\n"
    )
    config = toy.root / "_config.yml"
    config.write_text(
        config.read_text().replace("sphinx: {", "sphinx: {local_extensions: {dead_links: book/_ext}, ")
        + "bibtex_bibfiles: [book/references.bib]\n"
    )
    page = toy.root / "book/start.md"
    good = (
        page.read_text() + '\n{cite}`known` <a href="../chapters/pear.html#pear">pear</a>\n\n```{bibliography}\n```\n'
    )
    page.write_text(good)
    assert build(toy.root, Options())
    bad = (
        good + '\n{cite}`nobody`\n\n[x](../chapters/pear.ipynb#plum)\n\n<a href="../chapters/pear.html#fig">y</a>\n\n'
        '<a href="none.html">z</a>\n\n{ref}`lost`\n'
    )
    page.write_text(bad)
    line = {
        text: str(bad[: bad.index(text)].count("\n") + 1) for text in ("nobody", "plum", "#fig", "none.html", "lost")
    }
    with pytest.raises(Problem) as failure:
        build(toy.root, Options())
    said = str(failure.value).splitlines()
    for text, number in line.items():
        assert any(f"book/start.md:{number}:" in found and text in found for found in said), (text, number, said)
    assert said[-1] == "the pages were not built; the last good book stays as it is"

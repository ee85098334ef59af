"""Every chapter: stored clean, complete in its form, and true with a seed that nobody has looked at."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import Any

import pytest

from lib.claims import collect
from tools import notebooks
from tools.notebooks import tags, text

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted(path.stem for path in (ROOT / "chapters").glob("*.ipynb"))
SEED = 20_011  # published by no chapter
LONGEST = 40  # lines of a code cell
SHOWN = {"image/svg+xml", "image/png", "image/jpeg"}

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS)


def cells_of(chapter: str, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in notebooks.read(ROOT, chapter)["cells"] if cell["cell_type"] == kind]


@pytest.fixture(params=CHAPTERS)
def executed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Path of a chapter executed with a seed other than the published one; only one test asks for it."""
    target = tmp_path / f"{request.param}.ipynb"
    command = [sys.executable, "-m", "tools.execute", target.stem, "--failing-claims", "record"]
    command += ["--parameters", json.dumps({"seed": SEED}), "--target", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(done.stderr.strip().splitlines()[-1], pytrace=False)
    return target


@each_chapter
def test_is_stored_without_outputs(chapter: str) -> None:
    code = cells_of(chapter, "code")
    stained = [i for i, cell in enumerate(code, start=1) if cell["outputs"] or cell["execution_count"] is not None]
    assert not stained, f"code cells {stained} have outputs; run: .venv/bin/nbstripout chapters/{chapter}.ipynb"


@each_chapter
def test_parameters_come_first_and_are_not_the_tested_ones(chapter: str) -> None:
    code = cells_of(chapter, "code")
    assert ["parameters" in tags(cell) for cell in code].index(True) == 0
    own = notebooks.own_parameters(ROOT, chapter)
    assert own["seed"] != SEED
    assert own["scale"] == "laptop"
    assert own["device"] == "auto"


@each_chapter
def test_code_cells_are_short(chapter: str) -> None:
    lengths = {first_line(cell): len(text(cell).splitlines()) for cell in cells_of(chapter, "code")}
    assert not {first: lines for first, lines in lengths.items() if lines > LONGEST}


@each_chapter
def test_exactly_one_figure_stands_for_the_chapter_on_the_front_page(chapter: str) -> None:
    assert sum("hero" in tags(cell) for cell in cells_of(chapter, "code")) == 1


@each_chapter
def test_a_figure_cell_shows_nothing_but_its_figure(chapter: str) -> None:
    """The text of a last expression would be a second output of the figure's name, which the page build refuses."""
    shown = [
        f"{chapter}, code cell {i} ({first_line(cell)})"
        for i, cell in enumerate(cells_of(chapter, "code"), start=1)
        if "figure" in cell["metadata"].get("mystnb", {}) and shows_a_value(text(cell))
    ]
    assert not shown, f"end the last line with a semicolon in: {'; '.join(shown)}"


@pytest.mark.parametrize(
    ("code", "shows"),
    [
        ("ax.legend()", True),
        ("fig = 1\nax.plot(\n    x\n)  # a comment", True),
        ("ax.legend();", False),
        ("ax.legend(\n    title='a;'\n);  # a comment", False),
        ("line = ax.plot(x)", False),
        ("for ax in axes:\n    ax.legend()", False),
    ],
)
def test_a_value_is_shown_by_a_last_expression_without_a_semicolon(code: str, shows: bool) -> None:
    assert shows_a_value(code) is shows


@each_chapter
def test_every_exercise_has_an_executed_solution(chapter: str) -> None:
    exercises: list[str] = []
    solved: dict[str, int] = {}
    at = ""  # the solution we are in
    for cell in notebooks.read(ROOT, chapter)["cells"]:
        if cell["cell_type"] == "code":
            if at:
                solved[at] += bool(text(cell).strip())
            continue
        marks = r"\{(exercise|exercise-start|solution-start|solution-end)\}[ \t]*(\S*)(?:[^`]*?^:label:[ \t]*(\S+))?"
        for kind, argument, label in re.findall(marks, text(cell), flags=re.MULTILINE):
            if kind.startswith("exercise"):
                exercises.append(label)
            elif kind == "solution-start":
                at = argument
                solved[at] = 0
            else:
                at = ""
    assert exercises, "a chapter has exercises"
    assert all(exercises), "every exercise has a label"
    assert set(exercises) == set(solved)
    assert not [label for label, code_cells in solved.items() if not code_cells], "solutions without code"


def test_claims_hold_with_another_seed_and_outputs_are_fit_for_a_page(executed: Path) -> None:
    """All checks of an executed chapter in one test, because the execution takes a minute."""
    records = collect(executed)
    assert records
    assert {record["seed"] for record in records} == {SEED}
    cells = [cell for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    complaints = [f"{record['id']}: {record['reason']}" for record in records if not record["passed"]]
    complaints += [
        f"{record['id']}: got no rival, so that it cannot fail"
        for record in records
        if record["kind"] in ("value", "ordering") and not record["rivals"]
    ]
    complaints += [f"a figure without caption and alt text: {first_line(cell)}" for cell in cells if is_bare(cell)]
    complaints += [
        f"printed to stderr by: {first_line(cell)}"
        for cell in cells
        if any(output.get("name") == "stderr" for output in cell["outputs"])
    ]
    assert not complaints


def shows_a_value(code: str) -> bool:
    """Whether a notebook shows the value of the code's last statement."""
    statements = ast.parse(code).body
    if not statements or not isinstance(statements[-1], ast.Expr):
        return False
    marks = [token.string for token in tokenize.generate_tokens(io.StringIO(code).readline) if token.string.strip()]
    return [mark for mark in marks if not mark.startswith("#")][-1] != ";"


def first_line(cell: dict[str, Any]) -> str:
    return text(cell).strip().partition("\n")[0]


def is_bare(cell: dict[str, Any]) -> bool:
    """Whether a cell shows a figure that has not both a caption and an alt text."""
    if not any(SHOWN & set(output.get("data", {})) for output in cell["outputs"]):
        return False
    page = cell["metadata"].get("mystnb", {})
    return not (page.get("figure", {}).get("caption", "").strip() and page.get("image", {}).get("alt", "").strip())

"""The assignments: the solution earns full marks, the blank version none, and the grader for lecturers agrees."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools import assignments
from tools.assignments import Assignment
from tools.notebooks import text
from tools.problems import Problem

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted(path.stem for path in (ROOT / "chapters").glob("*.ipynb"))

pytestmark = pytest.mark.filterwarnings("ignore")  # of the grader's own dependencies
each_chapter = pytest.mark.parametrize("chapter", CHAPTERS)


def source(chapter: str) -> Path:
    path = ROOT / assignments.SOURCES / f"{chapter}.ipynb"
    assert path.is_file(), f"{path.relative_to(ROOT)} is missing: every chapter has an assignment"
    return path


@pytest.fixture
def assignment(chapter: str, tmp_path: Path) -> Assignment:
    """The three files of a chapter's assignment."""
    return assignments.make(source(chapter), tmp_path / "made")


def cells(notebook: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def marks(notebook: Path, questions: tuple[str, ...]) -> dict[str, float]:
    """Run a version from top to bottom as a student would, past cells that fail, and let the grader in it judge."""
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(notebook.parent):
        for cell in cells(notebook, "code"):
            if "grader.check" not in text(cell):
                with contextlib.suppress(Exception):  # a blank is not yet an answer
                    exec(compile(text(cell), notebook.name, "exec"), names)
        return {question: names["grader"].check(question, global_env=names).score for question in questions}


@each_chapter
def test_solution_earns_full_marks_and_blanks_none(assignment: Assignment) -> None:
    full = marks(assignment.solution, assignment.questions)
    assert sum(full.values()) == assignment.points, full
    assert set(marks(assignment.student, assignment.questions).values()) == {0}


def test_grader_for_lecturers_agrees(tmp_path: Path) -> None:
    made = assignments.make(source(CHAPTERS[0]), tmp_path)
    run = [sys.executable, "-m", "otter", "run", "--no-logo", "-a", str(made.grader), "-o", str(tmp_path)]
    for version, share in ((made.solution, 1), (made.student, 0)):  # in a process that takes its server's socket along
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*run, str(version)], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / "results.json").read_text("utf-8"))["tests"]
        assert sum(test.get("score", 0) for test in found) == share * made.points, found


@each_chapter
def test_it_is_work_for_half_an_hour(assignment: Assignment) -> None:
    assert 4 <= len(assignment.questions) <= 6
    assert 20 <= assignment.minutes <= 40
    said = re.search(r"(\d+)\s+points", text(cells(assignment.student, "markdown")[0]))
    assert said is not None
    assert int(said[1]) == assignment.points


@each_chapter
def test_students_get_blanks_and_the_chapters_library(assignment: Assignment, chapter: str) -> None:
    code = "\n".join(text(cell) for cell in cells(assignment.student, "code"))
    assert "SOLUTION" not in code
    assert code.count("...") >= len(assignment.questions)
    assert f"from lib.{chapter} import" in code


@each_chapter
def test_source_is_stored_without_outputs_and_hides_no_test(chapter: str) -> None:
    code = cells(source(chapter), "code")
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None]
    assert not [cell for cell in code if re.match(r"# *hidden", text(cell), re.IGNORECASE)]


def test_none_is_left_without_a_chapter(tmp_path: Path) -> None:
    folder = tmp_path / assignments.SOURCES
    folder.mkdir(parents=True)
    (folder / "plum.ipynb").touch()
    with pytest.raises(
        Problem, match=r"book/assignments/plum\.ipynb: there is no chapter of this name, want one of pear"
    ):
        assignments.make_all(tmp_path, ["pear"], tmp_path / "made")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# END QUESTION", "# THE END", r"rf_regression\.ipynb: is no assignment that can be graded"),
        ("# Assignment: ", "# Homework: ", r"rf_regression\.ipynb: got no '# Assignment: title'"),
        ('{"', "{", r"rf_regression\.ipynb: is no assignment that can be graded"),
    ],
)
def test_a_broken_source_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    broken = tmp_path / "rf_regression.ipynb"
    content = json.dumps(json.loads(source("rf_regression").read_text(encoding="utf-8")))
    broken.write_text(content.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(Problem, match=message):
        assignments.make(broken, tmp_path / "made")

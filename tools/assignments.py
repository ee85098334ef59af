"""`make assignments`: from the source of each assignment its student version, its solution version and its grader.

The sources in `book/assignments/` are notebooks in the form of Otter Assign, one a chapter and named like it. Nothing
is executed here: `tests/test_assignments.py` grades both versions.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import ledger, notebooks, stage
from .problems import Problem, finish

SOURCES = Path("book") / "assignments"
TITLE = re.compile(r"^# Assignment: (.+)$", re.MULTILINE)
MINUTES = re.compile(r"About (\d+)\s+minutes")
HEAD = "| assignment | minutes | points | files |\n|---|---|---|---|\n"


@dataclass(frozen=True)
class Assignment:
    """One assignment: what it says of itself, and its three files."""

    chapter: str
    title: str
    minutes: int
    points: int
    questions: tuple[str, ...]
    student: Path
    solution: Path
    grader: Path

    def row(self) -> str:
        """Its row in the table of the page *Teaching*."""
        files = {"student version": self.student, "solution": self.solution, "grader": self.grader}
        links = ", ".join(f"{{download}}`{name} <assignments/{path.name}>`" for name, path in files.items())
        about = f"{{doc}}`/chapters/{self.chapter}`: {self.title}"
        return f"| {about} | {self.minutes} | {self.points} | {links} |\n"


def make(source: Path, target: Path) -> Assignment:
    """Write the three files of one assignment into `target`.

    Raises:
        Problem: it is no assignment as Otter wants it, or does not say what it is about and how long it takes.
    """
    with warnings.catch_warnings(action="ignore"):  # of what Otter imports
        from otter.assign import main as assign  # takes seconds, and a warm build makes no assignment
    chapter, where = source.stem, f"{SOURCES}/{source.name}"
    target.mkdir(parents=True, exist_ok=True)
    student = target / f"{chapter}_assignment.ipynb"
    solution = target / f"{chapter}_solution.ipynb"
    grader = target / f"{chapter}_grader.zip"
    with tempfile.TemporaryDirectory(prefix="assignment-") as folder:
        master = Path(folder) / student.name
        shutil.copyfile(source, master)
        try:
            with warnings.catch_warnings(action="ignore"):  # Otter gives some cells no id
                assign(str(master), f"{folder}/made", no_pdfs=True, no_run_tests=True)
            (archive,) = (Path(folder) / "made" / "autograder").glob("*.zip")
        except Exception as error:
            raise Problem(f"{where}: is no assignment that can be graded ({' '.join(str(error).split())})") from error
        shutil.copyfile(Path(folder) / "made" / "student" / student.name, student)
        shutil.copyfile(archive, grader)
        solved = (Path(folder) / "made" / "autograder" / student.name).read_text(encoding="utf-8")
        solution.write_text(solved.replace(student.name, solution.name), encoding="utf-8")
    notebook = json.loads(student.read_text(encoding="utf-8"))
    text = "\n".join(notebooks.text(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    title, minutes = TITLE.search(text), MINUTES.search(text)
    if title is None or minutes is None:
        raise Problem(f"{where}: got no '# Assignment: title' and 'About 30 minutes' in its text, want both")
    tests = notebook["metadata"]["otter"]["tests"]
    points = sum(test["points"] for test in tests.values())
    return Assignment(chapter, title[1], int(minutes[1]), points, tuple(tests), student, solution, grader)


def make_all(root: Path, chapters: Sequence[str], target: Path) -> list[Assignment]:
    """Write the files of all assignments into `target`, in the order of the chapters.

    Raises:
        Problem: as `make`, or an assignment that belongs to no chapter.
    """
    found = {path.stem: path for path in sorted((root / SOURCES).glob("*.ipynb"))}
    for name in found:
        if name not in chapters:
            want = ", ".join(chapters)
            raise Problem(f"{SOURCES}/{name}.ipynb: there is no chapter of this name, want one of {want}")
    return [make(found[name], target) for name in chapters if name in found]


def write(root: Path, chapters: Sequence[str], tree: Path) -> None:
    """Put the files of all assignments in the place of their sources in a staged tree, and their table on its page.

    Raises:
        Problem: as `make_all`, or the page has no place for the table.
    """
    shutil.rmtree(tree / SOURCES, ignore_errors=True)
    made, page = make_all(root, chapters, tree / SOURCES), tree / "book" / "teaching.md"
    if made:
        text = ledger.fill(page.read_text(encoding="utf-8"), "assignments", table(made), page)
        page.write_text(text, encoding="utf-8")


def table(assignments: Sequence[Assignment]) -> str:
    """The table of the page *Teaching*, in Markdown."""
    return HEAD + "".join(assignment.row() for assignment in assignments)


def main() -> None:
    """Write all of them into `build/assignments`."""
    root = Path(__file__).resolve().parent.parent
    for made in make_all(root, stage.toc_chapters(root), root / "build" / "assignments"):
        for path in (made.student, made.solution, made.grader):
            print(path.relative_to(root))


if __name__ == "__main__":
    finish(main)

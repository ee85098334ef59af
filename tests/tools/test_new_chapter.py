"""A new chapter passes everything at once; a bad name leaves no trace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from lib.claims import collect
from tools import assignments, ledger, new_chapter, notebooks
from tools.problems import Misuse, Problem

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what a new chapter touches or needs."""
    root = tmp_path / "tree"
    for name in ("pyproject.toml", "_toc.yml", "tests/conftest.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "book", root / "book", ignore=shutil.ignore_patterns("_static", "__pycache__"))
    shutil.copytree(ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "lib").mkdir()
    for path in (ROOT / "lib").glob("*.py"):
        shutil.copy(path, root / "lib")
    (root / "chapters").mkdir()
    (root / "benchmarks").mkdir()
    for name in ("counts", "harness", "machine"):
        shutil.copy(ROOT / "benchmarks" / f"{name}.py", root / "benchmarks")
    return root


def everything(root: Path) -> dict[str, bytes]:
    """Every file with its content, and every folder."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else b""
        for path in root.rglob("*")
        if "__pycache__" not in path.parts
    }


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def test_its_tests_and_style_pass_at_once(tree: Path) -> None:
    made = [str(path) for path in new_chapter.create(tree, "my_paper") if path.suffix in (".py", ".ipynb")]
    assert len(made) == 6
    for command in (["pytest", "-p", "no:cacheprovider", "tests/my_paper", "lib/my_paper"], ["ruff", "check", *made]):
        done = run(tree, "-m", *command)
        assert done.returncode == 0, done.stdout + done.stderr
    done = run(tree, "-m", "ruff", "format", "--check", *made)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_claims_hold_and_its_benchmark_runs(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_chapter.create(tree, "my_paper")
    monkeypatch.setenv("PYTHONPATH", str(tree))
    path = tree / "chapters" / "my_paper.ipynb"
    assert notebooks.own_parameters(tree, "my_paper") == {"seed": 0, "scale": "laptop", "device": "auto"}
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tree)}}).execute()
    executed = tree / "executed.ipynb"
    nbformat.write(notebook, executed)
    records = collect(executed)
    assert {record["id"] for record in records} == {"my-paper-enumeration", "my-paper-error"}
    assert all(record["passed"] and record["rivals"] for record in records)
    totals = ledger.write({"my_paper": executed}, {}, tree / "out", tree / "source")
    assert totals.claims_passed == 2
    done = run(tree, "benchmarks/bench_my_paper.py")
    assert done.returncode == 0, done.stderr
    assert "ours" in done.stdout


def test_its_assignment_is_made(tree: Path) -> None:
    new_chapter.create(tree, "my_paper")
    made = assignments.make(tree / assignments.SOURCES / "my_paper.ipynb", tree / "out")
    assert (made.title, made.points, len(made.questions)) == ("the price of a mean", 4, 4)


def test_it_is_entered_everywhere(tree: Path) -> None:
    new_chapter.create(tree, "my_paper")
    new_chapter.create(tree, "another2")
    pages = {path.name: path.read_text(encoding="utf-8") for path in [tree / "_toc.yml", *(tree / "book").glob("*.md")]}
    toc = pages["_toc.yml"].splitlines()
    at = toc.index("      - file: chapters/my_paper")
    assert toc[at + 1] == "      - file: chapters/another2"
    for name in ("my_paper", "another2"):
        assert f":img-top: hero/{name}.svg" in pages["intro.md"]
        assert pages["intro.md"].count(f"</chapters/{name}>`") == 3, "the map and two reading paths"
        assert f"({{prf:ref}}`{name.replace('_', '-')}-error`)" in pages["cheat_sheet.md"]
        assert f".. automodule:: lib.{name}\n" in pages["library.md"]
        assert f"| `error_of_mean` | {name} |\n" in pages["notation.md"]
    assert pages["intro.md"].index("another2") < pages["intro.md"].index("## What a claim looks like")


@pytest.mark.parametrize("name", ["", "My_paper", "2fast", "my-paper", "a__b", "class", "../up", "a b", "a_"])
def test_a_bad_name_is_refused_and_nothing_written(tree: Path, name: str) -> None:
    before = everything(tree)
    with pytest.raises(Misuse, match=r"NAME: got .*, want lower-case letters"):
        new_chapter.create(tree, name)
    assert everything(tree) == before


@pytest.mark.parametrize("name", ["claims", "my_paper"])
def test_a_taken_name_is_refused_and_nothing_written(tree: Path, name: str) -> None:
    new_chapter.create(tree, "my_paper")
    before = everything(tree)
    with pytest.raises(Misuse, match=f"NAME: got '{name}', but .* exists"):
        new_chapter.create(tree, name)
    assert everything(tree) == before


def test_nothing_is_half_written(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(tree)
    written: list[Path] = []

    def fail_late(path: Path, text: str) -> None:
        if len(written) == 6:
            written.append(path)
            raise OSError("the disk is full")
        written.append(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    monkeypatch.setattr(notebooks, "write", fail_late)
    with pytest.raises(OSError, match="full"):
        new_chapter.create(tree, "my_paper")
    assert everything(tree) == before


def test_a_page_without_a_place_is_named(tree: Path) -> None:
    (tree / "book" / "library.md").write_text("# The library\n", encoding="utf-8")
    before = everything(tree)
    with pytest.raises(Problem, match=r"book/library\.md: found no place"):
        new_chapter.create(tree, "my_paper")
    assert everything(tree) == before


def test_the_command_says_it_in_one_line_and_exits_with_2(tree: Path) -> None:
    done = run(tree, "-m", "tools.new_chapter", "No")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert run(tree, "-m", "tools.new_chapter").returncode == 2

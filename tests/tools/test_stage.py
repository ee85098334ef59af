"""Staging: the tree that Jupyter Book reads, from executed chapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from tools import stage
from tools.execute import Run
from tools.problems import Problem

from .conftest import Toy

SVG = '<svg xmlns="http://www.w3.org/2000/svg"/>'
RUN = Run(fingerprint="", sha256="", seconds=1.5, peak_memory=2**20, parameters={})


def executed(toy: Toy, name: str, *, hero: dict[str, Any] | None = None, claims: tuple[str, ...] = ()) -> Path:
    """A chapter as papermill leaves it."""
    hero = {"image/svg+xml": SVG} if hero is None else hero
    rows = [
        nbformat.v4.new_output("display_data", {"text/plain": id}, metadata={"claim": record(id, name)})
        for id in claims
    ]
    figure = nbformat.v4.new_output("display_data", hero)
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell("seed = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("seed = 2", metadata={"tags": ["injected-parameters"]}),
        nbformat.v4.new_code_cell("draw()", metadata={"tags": ["hero"]}, outputs=[figure]),
        nbformat.v4.new_code_cell("claim()", outputs=rows),
    ]
    path = toy.executed(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def record(id: str, chapter: str) -> dict[str, Any]:
    """A claim's record."""
    numbers = dict.fromkeys(("predicted", "measured", "error", "tolerance", "margin"), 1.0)
    facts = {"id": id, "chapter": chapter, "kind": "value", "statement": "One is one", "passed": True, "reason": ""}
    run = {"criterion": "exact", "points": 1, "seed": 1, "scale": "laptop", "device": "cpu", "seconds": 1.0}
    return {**facts, **numbers, **run, "rivals": {}, "versions": {}}


def staged(toy: Toy, *names: str, **hero: Any) -> Path:
    """Stage some chapters, in a project that has them all."""
    return stage.stage(
        toy.root, {name: executed(toy, name, **hero) for name in names}, dict.fromkeys(names, RUN), toy.root / "facts"
    )


def test_the_tree_holds_everything_and_nothing_of_an_earlier_one(toy: Toy) -> None:
    (toy.root / "build/source/chapters").mkdir(parents=True)
    (toy.root / "build/source/chapters/old.ipynb").touch()
    sources = {path: path.read_bytes() for path in toy.root.rglob("*") if path.is_file() and "build" not in path.parts}
    tree = staged(toy, "apple", "pear")
    assert sorted(path.name for path in (tree / "chapters").iterdir()) == ["apple.ipynb", "pear.ipynb"]
    assert (tree / "book/hero/apple.svg").read_text() == SVG
    assert (tree / "book/start.md").read_text() == (toy.root / "book/start.md").read_text()
    assert (tree / "book/claims.md").exists()
    assert {path: path.read_bytes() for path in sources} == sources


def test_the_injected_cell_is_removed_from_the_page_and_the_chapters_own_is_not(toy: Toy) -> None:
    tree = staged(toy, "apple", "pear")
    cells = json.loads((tree / "chapters/apple.ipynb").read_text())["cells"]
    assert cells[0]["metadata"]["tags"] == ["parameters"]
    assert cells[1]["metadata"]["tags"] == ["injected-parameters", "remove-cell"]


def test_totals_stand_in_the_configuration_and_claims_in_json(toy: Toy) -> None:
    (toy.root / "_config.yml").write_text("title: Toy\nparse: {myst_substitutions: {mine: kept}}\n")
    tree = staged(toy, "apple", "pear", claims=())
    executed(toy, "apple", claims=("one", "two"))
    paths = {name: toy.executed(name) for name in ("apple", "pear")}
    tree = stage.stage(toy.root, paths, dict.fromkeys(paths, RUN), toy.root / "facts")
    said = yaml.safe_load((tree / "_config.yml").read_text())["parse"]["myst_substitutions"]
    assert said["mine"] == "kept"
    assert (str(said["claims_total"]), str(said["claims_passed"]), str(said["chapters_total"])) == ("2", "2", "2")
    claims = json.loads((toy.root / "facts/claims.json").read_text())["claims"]
    assert [claim["id"] for claim in claims] == ["one", "two"]


def test_one_id_twice_is_one_clear_problem(toy: Toy) -> None:
    with pytest.raises(Problem, match="one"):
        stage.stage(
            toy.root,
            {name: executed(toy, name, claims=("one",)) for name in ("apple", "pear")},
            dict.fromkeys(("apple", "pear"), RUN),
            toy.root / "facts",
        )


def test_a_chapter_left_out_is_left_out_of_the_contents(toy: Toy) -> None:
    tree = staged(toy, "pear")
    files = [entry["file"] for entry in yaml.safe_load((tree / "_toc.yml").read_text())["chapters"]]
    assert files == ["chapters/pear", "book/claims"]


def test_a_part_without_chapters_is_left_out_too(toy: Toy) -> None:
    (toy.root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/start\nparts:\n"
        "- {caption: A, chapters: [{file: chapters/apple}]}\n"
        "- {caption: B, chapters: [{file: book/claims, sections: [{file: chapters/pear}]}]}\n"
    )
    parts = yaml.safe_load((staged(toy, "pear") / "_toc.yml").read_text())["parts"]
    assert [part["caption"] for part in parts] == ["B"]


def test_a_chapter_needs_a_figure_for_the_front_page(toy: Toy) -> None:
    with pytest.raises(Problem, match=r"chapters/apple\.ipynb: no cell tagged 'hero' shows a figure \(SVG\)"):
        staged(toy, "apple", hero={"image/png": "aGk="})


def test_contents_and_chapters_must_agree(toy: Toy) -> None:
    assert stage.in_order(toy.root, []) == ["apple", "pear"]
    assert stage.in_order(toy.root, ["pear"]) == ["pear"]
    toy.chapter("plum")
    with pytest.raises(Problem, match=r"_toc\.yml: lists no chapters/plum"):
        stage.toc_chapters(toy.root)
    (toy.root / "chapters/plum.ipynb").unlink()
    (toy.root / "chapters/pear.ipynb").unlink()
    with pytest.raises(Problem, match=r"_toc\.yml: lists chapters/pear, want a file"):
        stage.toc_chapters(toy.root)
    (toy.root / "_toc.yml").write_text("a: [")
    with pytest.raises(Problem, match=r"_toc\.yml: cannot be read"):
        stage.toc_chapters(toy.root)

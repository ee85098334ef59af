"""A toy project for the tools: two chapters of a few trivial cells, which need nothing of the real `lib`."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

PARAMETERS = "seed = 1\nscale = 'laptop'\ndevice = 'auto'"
ALT = {"mystnb": {"image": {"alt": "A square."}}}
HERO = 'from IPython.display import SVG\nSVG(\'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>\')'
CONFIG = """\
title: Toy
only_build_toc_files: true
execute: {execute_notebooks: "off"}
html: {use_issues_button: false, use_repository_button: false}
sphinx: {extra_extensions: [sphinx_proof]}
"""
TOC = """\
format: jb-book
root: book/start
chapters:
  - file: chapters/apple
  - file: chapters/pear
  - file: book/claims
"""


class Toy:
    """A small project in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("chapters", "book", "lib/apple", "lib/pear"):
            (root / folder).mkdir(parents=True)
        for name, text in {
            "_config.yml": CONFIG,
            "_toc.yml": TOC,
            "requirements.txt": "numpy\n",
            "constraints.txt": "numpy==2\n",
            "lib/shared.py": "",
            "lib/apple/core.py": "",
            "lib/pear/core.py": "",
            "book/start.md": "# Toy\n\n{{ chapters_total }} chapters\n",
        }.items():
            (root / name).write_text(text, encoding="utf-8")
        self.chapter("apple", "print('seed', seed)")
        self.chapter("pear", "print('seed', seed)")

    def chapter(self, name: str, *cells: str, parameters: str | None = PARAMETERS, text: str = "") -> Path:
        """Write a chapter: a heading, the parameters, a hero figure, and the given code cells."""
        notebook = nbformat.v4.new_notebook()
        notebook.cells = [nbformat.v4.new_markdown_cell(f"# {name}\n\n{text}")]
        if parameters is not None:
            notebook.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        notebook.cells.append(nbformat.v4.new_code_cell(HERO, metadata={"tags": ["hero"], **ALT}))
        notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
        path = self.root / "chapters" / f"{name}.ipynb"
        nbformat.write(notebook, path)
        return path

    def executed(self, name: str) -> Path:
        """Where the build keeps an executed chapter."""
        return self.root / "build" / "executed" / f"{name}.ipynb"

    def pages(self) -> dict[str, int]:
        """The built pages with what tells a new one from an old one."""
        html = self.root / "build" / "html"
        return {os.path.relpath(path, html): path.stat().st_mtime_ns for path in html.rglob("*.html")}


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """The toy project, fresh for every test."""
    return Toy(tmp_path / "toy")

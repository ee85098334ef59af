"""Lay out `build/source`, which Jupyter Book reads: configuration, pages, executed chapters, hero figures, ledger,
assignments.

It is made from scratch every time, so that nothing of an earlier book stays in it; the sources are only read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from . import notebooks
from .execute import Run
from .notebooks import tags
from .problems import Problem


def toc_pages(root: Path) -> list[str]:
    """The pages of the table of contents, in the order of the book."""
    return _files(_load(root / "_toc.yml"))


def toc_chapters(root: Path) -> list[str]:
    """The chapters of the table of contents, in the order of the book.

    Raises:
        Problem: a chapter is listed and does not exist, or exists and is not listed.
    """
    listed = [name.removeprefix("chapters/") for name in toc_pages(root) if name.startswith("chapters/")]
    there = {path.stem for path in (root / "chapters").glob("*.ipynb")}
    for chapter in listed:
        if chapter not in there:
            raise Problem(f"_toc.yml: lists chapters/{chapter}, want a file chapters/{chapter}.ipynb")
    for chapter in sorted(there - set(listed)):
        raise Problem(f"_toc.yml: lists no chapters/{chapter}, want every chapter of the folder in it")
    return listed


def in_order(root: Path, wanted: Sequence[str]) -> list[str]:
    """The wanted chapters (none named: all) in the order of the book."""
    return [chapter for chapter in toc_chapters(root) if not wanted or chapter in wanted]


def inputs(root: Path) -> list[Path]:
    """All files besides the executed chapters that decide what the pages look like."""
    folders = [root / "book", root / "lib", Path(__file__).parent]
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    files += sorted((root / "benchmarks" / "results").glob("*.json"))
    pins = [root / name for name in ("_config.yml", "_toc.yml", "requirements.txt", "constraints.txt")]
    return pins + [path for path in files if "__pycache__" not in path.parts]


def stage(root: Path, executed: Mapping[str, Path], runs: Mapping[str, Run], facts: Path) -> Path:
    """Write the tree.

    Args:
        root: the project.
        executed: path of the executed notebook by chapter, in the order of the book.
        runs: what each execution took.
        facts: folder for `claims.json`.

    Returns:
        The tree's root.

    Raises:
        Problem: a chapter has no hero figure, the claims do not make one ledger, or an assignment cannot be graded.
    """
    from . import assignments, ledger, performance, repository  # bring in torch, and a warm build stages nothing

    tree = root / "build" / "source"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(root / "book", tree / "book", ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "chapters").mkdir()
    (tree / "book" / "hero").mkdir(exist_ok=True)
    for chapter, path in executed.items():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        (tree / "book" / "hero" / f"{chapter}.svg").write_text(_hero(chapter, notebook), encoding="utf-8")
        for cell in notebook["cells"]:
            if "injected-parameters" in tags(cell):
                cell["metadata"]["tags"].append("remove-cell")
        staged = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        (tree / "chapters" / f"{chapter}.ipynb").write_text(staged, encoding="utf-8")

    try:
        took = {name: {"seconds": run.seconds, "peak_memory": run.peak_memory} for name, run in runs.items()}
        totals = ledger.write(executed, took, facts, tree)
        chapters = {name: ledger.title(root / "chapters" / f"{name}.ipynb") for name in toc_chapters(root)}
        performance.write(root / "benchmarks" / "results", chapters, tree / "book")
    except ValueError as error:
        raise Problem(str(error)) from error
    assignments.write(root, toc_chapters(root), tree)
    left_out = set(toc_chapters(root)) - set(executed)
    config = _load(root / "_config.yml")
    repository.write_section(config, tree)
    config = repository.with_buttons(config)
    config.setdefault("parse", {}).setdefault("myst_substitutions", {}).update(totals.substitutions())
    _dump(tree / "_config.yml", config)
    _dump(tree / "_toc.yml", _without(_load(root / "_toc.yml"), {f"chapters/{chapter}" for chapter in left_out}))
    return tree


def _hero(chapter: str, notebook: Mapping[str, Any]) -> str:
    """The figure of the cell tagged `hero`, as SVG."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []) if "hero" in tags(cell) else []:
            if "image/svg+xml" in output.get("data", {}):
                return notebooks.joined(output["data"]["image/svg+xml"])
    raise Problem(f"chapters/{chapter}.ipynb: no cell tagged 'hero' shows a figure (SVG), want one for the front page")


def _files(entry: Any) -> list[str]:
    """All pages a table of contents names, in its order."""
    if isinstance(entry, Mapping):
        own = [str(entry[key]) for key in ("root", "file") if key in entry]
        return own + [name for value in entry.values() for name in _files(value)]
    return [name for item in entry for name in _files(item)] if isinstance(entry, list) else []


def _without(entry: Any, gone: set[str]) -> Any:
    """A table of contents without some pages, and without the parts that have no pages left."""
    if isinstance(entry, Mapping):
        return {key: _without(value, gone) for key, value in entry.items()}
    if not isinstance(entry, list):
        return entry
    kept = [_without(item, gone) for item in entry if not (isinstance(item, Mapping) and item.get("file") in gone)]
    return [item for item in kept if not (isinstance(item, Mapping) and item.get("chapters") == [])]


def _load(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise Problem(f"{path.name}: cannot be read ({' '.join(str(error).split())})") from error


def _dump(path: Path, content: Any) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")

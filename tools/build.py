"""`make book`: execute what changed, stage it, build the pages, and put them in place only when all of it went well."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from . import execute, notebooks, options, pages, parallel, proofread, stage
from .options import Options
from .problems import Problem, finish


def build(root: Path, chosen: Options) -> bool:
    """Bring `build/html` up to date; returns whether there was anything to do.

    Raises:
        Problem: another build is running, a chapter failed, or the pages have warnings. The last good book stays.
    """
    (root / "build").mkdir(exist_ok=True)
    try:
        with FileLock(root / "build" / "book.lock", timeout=0):
            return _build(root, chosen)
    except Timeout as error:
        raise Problem("another build of this book is running; wait for it to end, or stop it") from error


def _build(root: Path, chosen: Options) -> bool:
    _clear_up(root)
    chapters, given = stage.in_order(root, chosen.chapters), chosen.parameters()
    changed = [name for name in chapters if not _current(root, name, given)]
    if changed:
        parallel.execute_all(root, changed, given)
    executed = {name: execute.executed_path(root, name) for name in chapters}
    runs = {name: run for name, path in executed.items() if (run := execute.last_run(path))}
    fingerprint = notebooks.digest(root, [*stage.inputs(root), *executed.values()], json.dumps(chapters))
    made, claims = root / "build" / "html.fingerprint", root / "build" / "claims.json"
    if _html(root).is_dir() and claims.exists() and made.exists() and made.read_text(encoding="utf-8") == fingerprint:
        return False
    proofread.proofread(root, executed)
    facts = root / "build" / "facts"
    tree = stage.stage(root, executed, runs, facts)
    left_out = {name: _text(root, name) for name in stage.toc_chapters(root) if name not in executed}
    finished = pages.build(root, tree, left_out)
    made.unlink(missing_ok=True)
    _publish(root, finished)
    os.replace(facts / "claims.json", claims)
    notebooks.write(made, fingerprint)
    return True


def _html(root: Path) -> Path:
    return root / "build" / "html"


def _text(root: Path, chapter: str) -> str:
    return "\n".join(notebooks.text(cell) for cell in notebooks.read(root, chapter)["cells"])


def _current(root: Path, chapter: str, given: Mapping[str, notebooks.Parameter]) -> bool:
    return execute.current(root, chapter, given, execute.executed_path(root, chapter)) is not None


def _clear_up(root: Path) -> None:
    """What a build left that was killed: half-made results, and a book between its two names."""
    for part in (root / "build" / "executed").glob(".*.part*"):
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    old = root / "build" / "html.old"
    if old.exists():
        if _html(root).exists():
            shutil.rmtree(old)
        else:
            old.rename(_html(root))


def _publish(root: Path, finished: Path) -> None:
    """Put the new pages in the place of the old ones by renaming: nobody sees a mixture."""
    html, old = _html(root), root / "build" / "html.old"
    if html.exists():
        html.rename(old)
    finished.rename(html)
    shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    """Build the book of this project with the options of the environment."""
    root, start = Path(__file__).resolve().parent.parent, time.perf_counter()
    worked = build(root, options.read(root))
    state = f"built in {time.perf_counter() - start:.0f} s" if worked else "up to date"
    print(f"The book is {state}. Open {(_html(root) / 'index.html').as_uri()} or run: make serve")


if __name__ == "__main__":
    finish(main)

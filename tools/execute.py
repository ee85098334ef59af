"""Execute one chapter with papermill: `python -m tools.execute CHAPTER`, a fresh process for every chapter.

The result is written in one step when the last cell has passed, with a record beside it of what it was made from; so a
result that is whole and up to date can be told from everything else by content alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import notebooks
from .notebooks import Parameter
from .problems import Problem, finish

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # colours of a traceback
START_TIMEOUT = 180  # seconds for a kernel to start on a busy machine


@dataclass(frozen=True)
class Run:
    """What an executed chapter was made from, and what it took."""

    fingerprint: str
    sha256: str  # of the executed notebook: a result that was cut off or mixed up is none
    seconds: float
    peak_memory: int  # bytes
    parameters: dict[str, Parameter]


def executed_path(root: Path, chapter: str) -> Path:
    """Where the build keeps an executed chapter."""
    return root / "build" / "executed" / f"{chapter}.ipynb"


def record(target: Path) -> Path:
    """Where the record of an executed chapter lies: beside it."""
    return target.with_suffix(".json")


def last_run(target: Path) -> Run | None:
    """The record of an executed chapter, or None where there is no whole one."""
    try:
        run = Run(**json.loads(record(target).read_text(encoding="utf-8")))
        whole = hashlib.sha256(target.read_bytes()).hexdigest() == run.sha256
    except (OSError, ValueError, TypeError):
        return None
    return run if whole else None


def current(root: Path, chapter: str, given: Mapping[str, Parameter], target: Path) -> Run | None:
    """The record of an executed chapter if nothing it depends on has changed since."""
    run = last_run(target)
    wanted = notebooks.fingerprint(root, chapter, notebooks.differing(root, chapter, given))
    return run if run is not None and run.fingerprint == wanted else None


def execute(
    root: Path,
    chapter: str,
    given: Mapping[str, Parameter],
    target: Path,
    *,
    failing_claims: str = "raise",
    on_cell: Callable[[int, int], None] = lambda _cell, _cells: None,
) -> Run:
    """Execute a chapter into `target`.

    Args:
        root: the project.
        chapter: file stem of the notebook.
        given: parameters; only those that differ from the chapter's own are injected.
        target: where the executed notebook goes, with its record beside it.
        failing_claims: "raise" ends the chapter at a claim that fails, "record" goes on (an audit).
        on_cell: called before each cell with its index and the number of cells.

    Raises:
        Problem: one sentence that names chapter, cell and error.
    """
    from papermill.exceptions import PapermillExecutionError  # takes a second, and a warm build has no need of it
    from papermill.execute import execute_notebook

    parameters = notebooks.differing(root, chapter, given)
    fingerprint = notebooks.fingerprint(root, chapter, parameters)  # of what is about to be read
    source = _valid(notebooks.read(root, chapter), chapter)
    started: list[Any] = []

    def note(cell: Any, cell_index: int) -> None:  # nbclient passes both by name
        started.append(cell)
        on_cell(cell_index, len(source.cells) + bool(parameters))

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what went wrong is told once, below
    start = time.perf_counter()
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{chapter}.{os.getpid()}.part-", dir=target.parent) as scratch,
        _kernel_environment(root, Path(scratch), failing_claims),
    ):
        try:
            executed = execute_notebook(
                source,
                None,  # nothing is written before the last cell has passed
                parameters=parameters,
                kernel_name="python3",
                language="python",  # a notebook need not say so
                cwd=scratch,
                progress_bar=False,
                start_timeout=START_TIMEOUT,
                on_cell_start=note,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # it warns at every start
            )
        except PapermillExecutionError as error:
            raise Problem(_failure(chapter, started, error.ename, error.evalue)) from error
        except RuntimeError as error:  # from nbclient: the kernel died, or did not start
            raise Problem(_failure(chapter, started, type(error).__name__, str(error))) from error
    content = json.dumps(_clean(executed), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    run = Run(
        fingerprint=fingerprint,
        sha256=hashlib.sha256(content.encode()).hexdigest(),
        seconds=round(time.perf_counter() - start, 2),
        peak_memory=_children_peak_memory(),
        parameters=notebooks.own_parameters(root, chapter) | parameters,
    )
    notebooks.write(target, content)
    notebooks.write(record(target), json.dumps(asdict(run), indent=1) + "\n")
    return run


def _valid(notebook: dict[str, Any], chapter: str) -> Any:
    import nbformat

    node = nbformat.from_dict(notebook)
    try:
        nbformat.validate(node)
    except nbformat.ValidationError as error:
        raise Problem(f"chapters/{chapter}.ipynb: is no valid notebook ({str(error).splitlines()[0]})") from error
    return node


@contextmanager
def _kernel_environment(root: Path, scratch: Path, failing_claims: str) -> Iterator[None]:
    """What the kernel inherits: this checkout's `lib`, and none of the user's own IPython start-up files."""
    own = {"PYTHONPATH": str(root), "IPYTHONDIR": str(scratch / ".ipython"), "CLAIMS_ON_FAILURE": failing_claims}
    # Threads that sleep while they wait instead of spinning: on a busy machine a chapter took three times as long.
    own["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _failure(chapter: str, started: list[Any], name: str, value: str) -> str:
    """Chapter, cell and error in one line; cells are counted as a reader of the source sees them."""
    cells = [cell for cell in started if cell.cell_type == "code" and "injected-parameters" not in notebooks.tags(cell)]
    lines = notebooks.text(cells[-1]).strip().splitlines() if cells else []
    where = f'code cell {len(cells)} ("{lines[0] if lines else ""}")' if cells else "before the first cell"
    return f"chapters/{chapter}.ipynb, {where}: {name}: {' '.join(ESCAPES.sub('', value).split())}"


def _clean(notebook: Any) -> Any:
    """The executed notebook without paths and times of this machine."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]  # papermill gives every cell an empty list
    return notebook


def _children_peak_memory() -> int:
    """Bytes of this process's largest child so far, which is the kernel when a process executes one chapter."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Execute the chapter that the command line names, and report every cell on stdout."""
    here = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(prog="python -m tools.execute", description=str(__doc__).splitlines()[0])
    parser.add_argument("chapter")
    parser.add_argument("--parameters", type=json.loads, default={}, help='as JSON: {"seed": 3}')
    parser.add_argument("--root", type=Path, default=here)
    parser.add_argument("--target", type=Path, help="default: build/executed/CHAPTER.ipynb")
    parser.add_argument("--failing-claims", choices=("raise", "record"), default="raise")
    arguments = parser.parse_args()
    root, chapter = arguments.root.resolve(), arguments.chapter

    def report(cell: int, cells: int) -> None:
        print(f"cell {cell + 1} {cells}", flush=True)

    target = arguments.target or executed_path(root, chapter)
    claims = arguments.failing_claims
    execute(root, chapter, arguments.parameters, target, failing_claims=claims, on_cell=report)


if __name__ == "__main__":
    finish(main)

"""Execute several chapters side by side, a process each, and tell how far they are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Lock

from . import execute, notebooks
from .notebooks import Parameter
from .problems import Problem

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
HERE = Path(__file__).resolve().parent.parent


def cores() -> int:
    """The cores this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Progress:
    """A bar over all cells on a terminal, elsewhere a line when a chapter starts; a line for every finished chapter."""

    def __init__(self, cells: int) -> None:
        from tqdm import tqdm  # loaded only when there is something to do

        self._bar = tqdm(total=cells, unit="cell", leave=False) if sys.stderr.isatty() else None
        self._lock = Lock()

    def cell(self) -> None:
        """One more cell was started."""
        if self._bar is not None:
            with self._lock:
                self._bar.update()

    def line(self, text: str, *, only_without_bar: bool = False) -> None:
        """Print a line; above the bar, if there is one."""
        with self._lock:
            if self._bar is None:
                print(text, flush=True)
            elif not only_without_bar:
                self._bar.write(text)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


class Runner:
    """The processes that execute chapters, and how to stop them all."""

    def __init__(self, root: Path, given: Mapping[str, Parameter], threads: int, progress: Progress) -> None:
        self.root, self.given, self.progress = root, given, progress
        self.environment = os.environ | dict.fromkeys(THREADS, str(threads))
        self._running: set[subprocess.Popen[str]] = set()
        self._lock, self._stopped = Lock(), False

    def run(self, chapter: str) -> execute.Run | None:
        """Execute one chapter to its end; None where it was stopped.

        Raises:
            Problem: the sentence with which its process ended.
        """
        parameters = json.dumps(dict(self.given))
        command = [sys.executable, "-m", "tools.execute", chapter, "--root", str(self.root), "--parameters", parameters]
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as messages:
            with self._lock:
                if self._stopped:
                    return None
                # A session of its own: Ctrl-C reaches it once, from us, and it can put its house in order.
                process = subprocess.Popen(
                    command, cwd=HERE, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=messages,
                    start_new_session=True,
                )  # fmt: skip
                self._running.add(process)
            self.progress.line(f"{chapter}: executing", only_without_bar=True)
            with process:  # closes the pipe, and waits
                for _ in process.stdout or ():
                    self.progress.cell()
            code = process.returncode
            with self._lock:
                self._running.discard(process)
                if self._stopped:
                    return None
            run = execute.last_run(execute.executed_path(self.root, chapter))
            if code or run is None:
                messages.seek(0)
                said = messages.read().strip().splitlines() or [f"its process ended with code {code}"]
                raise Problem(said[-1] if chapter in said[-1] else f"chapters/{chapter}.ipynb: {said[-1]}")
            return run

    def stop(self) -> None:
        """Interrupt what runs, start nothing more, and wait."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.send_signal(signal.SIGINT)
        for process in running:
            process.wait()


def execute_all(root: Path, chapters: Sequence[str], given: Mapping[str, Parameter]) -> None:
    """Execute chapters into `build/executed`, as many at once as there are cores; these share the cores.

    A chapter that fails does not stop the others, whose results the next build will find.

    Raises:
        Problem: a line for every chapter that failed.
    """
    at_once = min(len(chapters), cores())
    progress = Progress(sum(_cells(root, chapter, given) for chapter in chapters))
    runner = Runner(root, given, max(1, cores() // at_once), progress)
    problems: list[str] = []
    with ThreadPoolExecutor(at_once) as pool:
        try:
            running = {pool.submit(runner.run, chapter): chapter for chapter in chapters}
            for future in as_completed(running):
                try:
                    run = future.result()
                except Problem as problem:
                    problems.append(str(problem))
                else:
                    progress.line(f"{running[future]}: {_took(run)}")
        except BaseException:
            runner.stop()
            raise
        finally:
            progress.close()
    if problems:
        raise Problem("\n".join(problems))


def _cells(root: Path, chapter: str, given: Mapping[str, Parameter]) -> int:
    return len(notebooks.read(root, chapter)["cells"]) + bool(notebooks.differing(root, chapter, given))


def _took(run: execute.Run | None) -> str:
    return f"executed in {run.seconds:.0f} s, {run.peak_memory / 2**20:.0f} MiB" if run else "stopped"

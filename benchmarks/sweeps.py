"""What a sweep over workers costs: the share of the workers' time that is work, the overhead of a task, a lost worker.

Run `make bench`, or this file alone; it writes `benchmarks/results/sweeps.json` for the page *Performance*. Shares and
not times are compared between numbers of workers: where cores are fewer, or do other work, a task takes longer.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import machine
from benchmarks.harness import RESULTS
from lib.rf_regression import powerlaw_task, simulate_rf_ridge
from lib.sweeps import sweep

TASKS, TRIVIAL = 16, 300


def simulated(point: tuple[int, int]) -> tuple[float, float]:
    """A task of some tenths of a second: its result, and the seconds it took."""
    _, seed = point
    torch.set_num_threads(1)
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    result = simulate_rf_ridge(*powerlaw_task(300, 1.2, 1.5), 100, 150, [0.1], 0.2, num_trials=30, generator=generator)
    return result.test.item(), time.perf_counter() - start


def nothing(point: int) -> int:
    return point


def timed(
    function: Callable[..., object], points: Sequence[object], workers: int
) -> tuple[dict[object, object], float]:
    start = time.perf_counter()
    answers = sweep(function, points, workers=workers, progress=False)
    return dict(answers), time.perf_counter() - start


def main() -> None:
    """Measure and write."""
    points = [(1, seed) for seed in range(TASKS)]
    alone, _ = timed(simulated, points, 0)
    rows = []
    for workers in (1, 2, 4):
        _, started = timed(nothing, range(workers), workers)
        answers, whole = timed(simulated, points, workers)
        if any(answers[p][0] != alone[p][0] for p in points):  # type: ignore[index]
            raise AssertionError(f"{workers} workers give other answers than this process")
        work = sum(answers[p][1] for p in points)  # type: ignore[index]
        rows.append(
            [
                f"{workers} worker{'s' * (workers > 1)}",
                f"{TASKS} tasks of {work / TASKS:.2g} s: {work / (workers * max(whole - started, 1e-9)):.0%} of the"
                f" workers' time is work; {started:.1f} s to start and end them",
            ]
        )
        print(*rows[-1])
    _, few = timed(nothing, range(2), 2)
    _, many = timed(nothing, range(TRIVIAL), 2)
    each = (many - few) / (TRIVIAL - 2)
    rows.append(["A task", f"{each * 1e3:.2g} ms of overhead, from {TRIVIAL:,} tasks that do nothing on 2 workers"])
    with tempfile.TemporaryDirectory() as folder:
        killed, tries = Path(folder) / "killed", Path(folder) / "tries"

        def fragile(point: tuple[int, int]) -> tuple[float, float]:
            with tries.open("a") as file:
                file.write("x")
            if point[1] == TASKS // 2 and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return simulated(point)

        _, undisturbed = timed(simulated, points, 2)
        answers, whole = timed(fragile, points, 2)
        same = all(answers[p][0] == alone[p][0] for p in points)  # type: ignore[index]
        again = len(tries.read_text()) - TASKS
    if not same or len(answers) != TASKS:
        raise AssertionError("a lost worker changed the answers")
    rows.append(
        [
            "A lost worker",
            f"1 of 2 killed in the middle: all {TASKS} answers, each once and equal; {again} computed again; "
            f"{whole:.1f} s instead of {undisturbed:.1f} s",
        ]
    )
    what = machine.describe(("dask", "distributed"))
    content = {
        "caption": f"Sweeps over processes of one machine: {what['processor']}, {what['cores']} cores; "
        f"load {what['load']}, {what['date']}",
        "headings": ["What", "Measured"],
        "rows": rows,
        "machine": what,
    }
    (RESULTS / "sweeps.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(*rows[-2:], sep="\n")


if __name__ == "__main__":
    main()

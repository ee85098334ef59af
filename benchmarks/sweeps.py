"""What a sweep over workers costs: the share of the workers' time that is work, the overhead of a task, a lost worker.

Run `make bench`, or this file alone; it writes `benchmarks/results/sweeps.json` for the page *Performance*. What a busy
machine falsifies is not compared: shares stand for times, between the start of the first task and the end of the last,
and the overhead of a task is the processor time of the process that hands it out and takes its answer.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import machine
from benchmarks.harness import RESULTS
from lib.rf_regression import powerlaw_task, simulate_rf_ridge
from lib.sweeps import sweep

TASKS, TRIVIAL = 16, 300


def simulated(point: int) -> tuple[float, float, float]:
    """A task of some tenths of a second: its result, and when it began and ended."""
    torch.set_num_threads(1)
    start = time.time()
    generator = torch.Generator().manual_seed(point)
    task = powerlaw_task(300, 1.2, 1.5)
    result = simulate_rf_ridge(*task, 100, 150, [0.1], 0.2, num_trials=30, generator=generator)
    return result.test.item(), start, time.time()


def nothing(point: int) -> int:
    return point


def share_of_work(answers: Mapping[int, tuple[float, float, float]], workers: int) -> str:
    """The part of the workers' time, from the first start to the last end, that the tasks took; and a task's time."""
    starts, ends = zip(*(answer[1:] for answer in answers.values()), strict=True)
    work = sum(ends) - sum(starts)
    share = work / (workers * (max(ends) - min(starts)))
    return f"{share:.0%} of the workers' time is work ({len(answers)} tasks, {work / len(answers):.2g} s each)"


def overhead() -> float:
    """Processor seconds of this process, where the scheduler runs, for each further task that does nothing."""
    used = []
    for tasks in (2, TRIVIAL):
        start = time.process_time()
        sweep(nothing, range(tasks), workers=2, progress=False)
        used.append(time.process_time() - start)
    return (used[1] - used[0]) / (TRIVIAL - 2)


def with_a_lost_worker() -> tuple[dict[int, tuple[float, float, float]], int]:
    """Answers of a sweep, one of whose two workers is killed in the middle; and how many points were tried again."""
    with tempfile.TemporaryDirectory() as folder:
        killed, tries = Path(folder) / "killed", Path(folder) / "tries"

        def fragile(point: int) -> tuple[float, float, float]:
            with tries.open("a") as file:
                file.write("x")
            if point == TASKS // 2 and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return simulated(point)

        answers = sweep(fragile, range(TASKS), workers=2, progress=False)
        return answers, len(tries.read_text()) - TASKS


def main() -> None:
    """Measure and write.

    Raises:
        AssertionError: workers give other answers than this process.
    """
    points = range(TASKS)
    alone = [simulated(point)[0] for point in points]

    def check(answers: Mapping[int, tuple[float, float, float]]) -> None:
        if [answer[0] for answer in answers.values()] != alone:
            raise AssertionError("workers give other answers than this process")

    rows = []
    for workers in (1, 2, 4):
        answers = sweep(simulated, points, workers=workers, progress=False)
        check(answers)
        rows.append([f"{workers} worker{'s' * (workers > 1)}", share_of_work(answers, workers)])
        print(*rows[-1], flush=True)
    each = overhead()
    told = f"{each * 1e3:.2g} ms of processor time where the scheduler runs, from {TRIVIAL} tasks that do nothing"
    rows.append(["A task", told])
    answers, again = with_a_lost_worker()
    check(answers)
    told = f"1 of 2 killed in the middle: all {TASKS} answers, each once and equal; {again} tried again"
    rows.append(["A lost worker", told])
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

"""What `torch.compile` would add to kernels that are far from the machine's limit: time gained, and time to compile.

Run this file alone: compiling takes minutes. It writes `benchmarks/results/compiled.json` for the page *Performance*.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import machine
from benchmarks.harness import RESULTS, apart
from lib.h_consistency import calibration_gap
from lib.rf_regression import powerlaw_task, rf_risk

ROUNDS = 7
Call = partial[Any]


def calls() -> dict[str, Call]:
    """A call of each kernel at a size of its benchmark."""
    n = torch.logspace(1, 3, 600, dtype=torch.float64)
    probs = torch.rand(100_000, 10, dtype=torch.float64).softmax(-1)
    return {
        "rf_risk, 2,000 modes, 600 points": partial(rf_risk, *powerlaw_task(2_000, 1.3, 1.7), n, 2 * n, 0.01, 0.1),
        "calibration_gap, 100,000 distributions, bound 1": partial(calibration_gap, probs, 0, 1.0),
    }


def values(result: Any) -> Any:
    """The numbers to compare: of a result with parts, its test error."""
    return result.test if hasattr(result, "test") else result


def row(name: str, plain: Call) -> list[str]:
    """Prove that both give the same, then let them take turns."""
    compiled = torch.compile(plain.func)
    start = perf_counter()
    found = compiled(*plain.args)
    took = perf_counter() - start
    difference = apart(values(found), values(plain()))
    if difference > 1e-9:
        raise SystemExit(f"{name}: compiled and plain differ by {difference:.1e}")
    ratios = []
    for _ in range(ROUNDS):
        times = []
        for call in (plain.func, compiled):
            start = process_time()
            call(*plain.args)
            times.append(process_time() - start)
        ratios.append(times[0] / times[1])
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return [name, spread, f"{took:.0f} s"]


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    what = machine.describe(("torch",))
    content = {
        "caption": "Time of a call over that of the compiled one, median and range, and time until the first result",
        "headings": ["Kernel", "Gain", "First call"],
        "rows": [row(name, call) for name, call in calls().items()],
        "machine": what,
    }
    print(*map(", ".join, content["rows"]), sep="\n")
    (RESULTS / "compiled.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

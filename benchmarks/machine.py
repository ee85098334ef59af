"""The machine of a run: what it is, what else it was doing, and how fast it copies, multiplies and exponentiates."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import process_time
from typing import Any

import torch

from .counts import Rates


def seconds(call: Callable[[], object], at_least: float = 0.02) -> float:
    """Processor time of one call, from as many in a row as fill 20 ms."""
    start, count = process_time(), 0
    while count == 0 or process_time() - start < at_least:
        call()
        count += 1
    return (process_time() - start) / count


def rates() -> Rates:
    """The best of five: copying 128 MiB, products of 1,024 x 1,024, exponentials in cache, operators on a number."""
    source, one = torch.rand(2**24, dtype=torch.float64), torch.zeros(1)
    target, found = torch.empty_like(source), {}
    for bits, dtype in ((64, torch.float64), (32, torch.float32)):
        square, row = torch.rand(1024, 1024, dtype=dtype), torch.rand(2**14, dtype=dtype)
        found[f"product{bits}"] = 2 * 1024**3 / best(lambda square=square: square @ square)  # type: ignore[misc]
        found[f"curved{bits}"] = len(row) / best(row.exp)
    return Rates(
        copy=2 * source.nbytes / best(lambda: target.copy_(source)),
        operators=1 / best(one.neg_),
        views=1 / best(lambda: one.view(1)),
        **found,
    )


def best(call: Callable[[], object], repeats: int = 5) -> float:
    """The shortest of several times."""
    return min(seconds(call) for _ in range(repeats))


def with_peak(call: Callable[[], Any]) -> tuple[Any, float | None]:
    """What a call gives, and the bytes it takes at its peak above what is resident before (None but on Linux)."""
    result, used, took = _with_peak(call)
    if (
        took < 1
    ):  # a short call is measured the second time, when it has loaded what it loads; for a long one it is little
        _, used, _ = _with_peak(call)
    return result, used


def _with_peak(call: Callable[[], Any]) -> tuple[Any, float | None, float]:
    before = None
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # else the call could live on what was freed before
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        before = _resident("VmRSS")
    start = process_time()
    result = call()
    took = process_time() - start
    return result, None if before is None else max(0.0, _resident("VmHWM") - before), took


def _resident(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024.0


def describe(packages: tuple[str, ...]) -> dict[str, object]:
    """Date, processor, threads, load, versions; nothing that tells whose machine it is."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": load(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("torch", "numpy", "scipy", *packages)},
    }


def load() -> float | None:
    """How many processes wanted a core in the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"

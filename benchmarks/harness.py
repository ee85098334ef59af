"""One harness for all benchmarks: ours and the peer in turn, in one process, on one input, agreement proved first.

`pytest-benchmark` times a test to its end before the next begins, and `asv` and `pyperf` give each its own process;
then a machine that turns busy in between falsifies a ratio. Here each round times ours and the peer one right after the
other and gives one ratio. Times are those of the processor on one thread; a ratio above 1 is in our favour.

A benchmark says what it measures (`Race`, `Growth`), and ends with `run(__file__, ...)`, which prints, and writes
`benchmarks/results/<chapter>.json`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import machine
from .counts import Rates, count
from .machine import seconds, with_peak

Call = Callable[[], Any]
RESULTS = Path(__file__).resolve().parent / "results"
MIB = 2**20
PATIENCE = 3.0  # seconds after which two rounds are enough


def apart(ours: object, peer: object) -> float:
    """The largest difference of two answers, relative to the largest entry; the worst of several parts."""
    one, other = _arrays(ours), _arrays(peer)
    if len(one) != len(other):
        raise AssertionError(f"ours has {len(one)} parts and the peer {len(other)}")
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-300)) for a, b in zip(one, other, strict=True))


def _arrays(value: object) -> list[np.ndarray]:
    if is_dataclass(value) and not isinstance(value, type):
        value = tuple(vars(value).values())
    parts = value if isinstance(value, tuple) else (value,)
    return [np.asarray(x.detach() if isinstance(x, Tensor) else x, dtype=float) for x in parts]


@dataclass(frozen=True)
class Race:
    """A kernel on an input of one size, alone or against what a user would write or pick instead."""

    kernel: str  # its public name
    size: str  # of the input, for a reader
    ours: Call
    peer: str = ""
    theirs: Call | None = None
    agree: Callable[[Any, Any], float] = apart
    limit: float = 1e-9  # of what `agree` gives
    share: float = 1.0  # of the work that `theirs` does: its time is divided by it, and marked as extrapolated
    rest: Call | None = None  # of the peer's work, done once whatever the share
    at_least: float | None = None  # bar: how many times the peer's time ours must fit into
    within: float | None = None  # bar: seconds of ours
    memory: float | None = None  # bar: MiB of ours above its input
    reason: str = ""  # why a bar is not met, and what was tried
    repeats: int = 5  # at most


@dataclass(frozen=True)
class Growth:
    """The cost of a kernel along one of its sizes; `call` makes the call for a size."""

    kernel: str
    axis: str  # what grows, with its unit
    sizes: Sequence[int]
    call: Callable[[int], Call]
    expected: tuple[float, float]  # exponents between which theory puts the last sizes
    why: str  # the exponent in words
    batch: bool = False  # the axis is a batch: then the cost of an element may not rise
    reason: str = ""  # why the cost of an element rises, where it does


@dataclass
class Report:
    """What a run found, as it is written."""

    chapter: str
    machine: dict[str, object]
    rates: Rates
    races: list[dict[str, Any]] = field(default_factory=list)
    growth: list[dict[str, Any]] = field(default_factory=list)


def race(given: Race, rates: Rates) -> dict[str, Any]:
    """Prove agreement, measure memory, then time both in turn.

    Raises:
        AssertionError: the two sides differ by more than the limit.
    """
    found: dict[str, Any] = {"kernel": given.kernel, "size": given.size, "peer": given.peer}
    ours, memory = with_peak(given.ours)
    difference = peer_memory = None
    if given.theirs is not None:
        theirs, peer_memory = with_peak(given.theirs)
        difference = given.agree(ours, theirs)
        if not difference <= given.limit:
            raise AssertionError(f"{given.kernel}, {given.size}: differs from {given.peer} by {difference:.1e}")
    found |= {"difference": difference, "limit": given.limit if given.theirs else None}
    rounds: list[tuple[float, float]] = []
    start = process_time()
    while len(rounds) < given.repeats and not (len(rounds) >= 2 and process_time() - start > PATIENCE):
        rounds.append((seconds(given.ours), _their_seconds(given)))
    us = median(a for a, _ in rounds)
    found |= {"seconds": us, "repeats": len(rounds), "memory": memory, "extrapolated": given.share < 1}
    bars = {}
    if given.theirs is not None:
        ratios = [b / a for a, b in rounds]
        found |= {
            "peer_seconds": median(b for _, b in rounds),
            "peer_memory": peer_memory,
            "ratio": median(ratios),
            "low": min(ratios),
            "high": max(ratios),
        }
        bars["at_least"] = (given.at_least, median(ratios) >= (given.at_least or 0))
    bars["within"] = (given.within, us <= (given.within or 0))
    bars["memory"] = (given.memory, memory is not None and memory <= (given.memory or 0) * MIB)
    found["bars"] = {name: {"bar": bar, "met": met} for name, (bar, met) in bars.items() if bar is not None}
    found["reason"] = given.reason if not all(bar["met"] for bar in found["bars"].values()) else ""
    counts = count(given.ours)
    floors = rates.floor(counts)
    bound = max(floors, key=lambda name: floors[name])
    found |= {
        "counts": asdict(counts),
        "bound": bound,
        "reached": floors[bound] / us,
        "moving": counts.moved / rates.copy / us,
    }
    return found


def _their_seconds(given: Race) -> float:
    if given.theirs is None:
        return math.nan
    return seconds(given.theirs) / given.share + (seconds(given.rest) if given.rest else 0.0)


def growth(given: Growth) -> dict[str, Any]:
    """Times along an axis, the exponent of the last three, and for a batch how the cost of an element rises."""
    calls = [given.call(size) for size in given.sizes]
    times = [seconds(call) for call in calls]
    for _ in range(3):  # in turn, so that a busy machine hits all sizes; half a second of work averages by itself
        times = [min(time, seconds(call)) if time < 0.5 else time for time, call in zip(times, calls, strict=True)]
    exponent = float(np.polyfit(np.log(given.sizes[-3:]), np.log(times[-3:]), 1)[0])
    found: dict[str, Any] = {
        "kernel": given.kernel,
        "axis": given.axis,
        "sizes": list(given.sizes),
        "seconds": times,
        "exponent": exponent,
        "expected": list(given.expected),
        "why": given.why,
        "batch": given.batch,
    }
    if given.batch:
        each = {size: time / size for size, time in zip(given.sizes, times, strict=True)}
        found["rise"] = max(each[n] for n in given.sizes if n > 100) / each[100]
        found["memory"] = with_peak(calls[-1])[1]
        found["reason"] = given.reason if found["rise"] > 1.5 else ""
    return found


def run(
    file: str,
    races: Callable[[], Iterable[Race]],
    growths: Callable[[], Iterable[Growth]],
    packages: tuple[str, ...] = (),
) -> None:
    """Run a chapter's benchmark, print each line as it is known, and write the results at the end.

    Args:
        file: of the benchmark, `bench_<chapter>.py`.
        races: makes them one after the other, so that inputs of only one are in memory.
        growths: the same.
        packages: peers whose versions are to be recorded besides torch, numpy and scipy.
    """
    torch.set_num_threads(1)
    chapter = Path(file).stem.removeprefix("bench_")
    report = Report(chapter, machine.describe(packages), machine.rates())
    print(", ".join(f"{name} {what}" for name, what in report.machine.items()))
    print("a second: " + ", ".join(f"{name} {value:.2e}" for name, value in asdict(report.rates).items()), flush=True)
    for given in races():
        report.races.append(race(given, report.rates))
        print(_race_line(report.races[-1]), flush=True)
    for series in growths():
        report.growth.append(growth(series))
        print(_growth_line(report.growth[-1]), flush=True)
    report.machine["load_at_end"] = machine.load()
    target = RESULTS / f"{chapter}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(_rounded(asdict(report)), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {target.parent.name}/{target.name}")


def _race_line(found: dict[str, Any]) -> str:
    what = f"{found['kernel']}, {found['size']}: ours {found['seconds']:.2e} s"
    if found["peer"]:
        about = "~" if found["extrapolated"] else ""
        what += (
            f", {found['peer']} {about}{found['peer_seconds']:.2e} s: {found['ratio']:.3g} x "
            f"({found['low']:.3g} to {found['high']:.3g}), differ by {found['difference']:.0e}"
        )
    memory = [f"{x / MIB:.0f}" if x is not None else "?" for x in (found["memory"], found.get("peer_memory"))]
    verdicts = "".join(
        f"; bar {name} {bar['bar']:g}: {'met' if bar['met'] else 'MISSED'}" for name, bar in found["bars"].items()
    )
    return f"{what}; {' and '.join(memory)} MiB; {found['reached']:.0%} of {found['bound']}{verdicts}"


def _growth_line(found: dict[str, Any]) -> str:
    row = ", ".join(f"{x:,}: {t:.2e} s" for x, t in zip(found["sizes"], found["seconds"], strict=True))
    rise = f", an element's cost rises {found['rise']:.2f} times" if found["batch"] else ""
    return f"{found['kernel']} against {found['axis']}: {row}; exponent {found['exponent']:.2f}{rise}"


def _rounded(value: Any) -> Any:
    """Four digits: more is noise, and makes a recorded run harder to compare."""
    if isinstance(value, dict):
        return {key: _rounded(x) for key, x in value.items()}
    if isinstance(value, list):
        return [_rounded(x) for x in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def optional(name: str) -> Any:
    """A peer that is no part of the environment, or None, said to be missing."""
    try:
        return import_module(name)
    except ImportError as error:
        print(f"{name.split('.')[0]} is missing ({error}): not compared", file=sys.stderr)
        return None

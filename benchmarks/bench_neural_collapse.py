"""Metrics of collapse and optimal gaps: ours against peers, one thread, agreement proved first.

Run `python benchmarks/bench_neural_collapse.py`, or with `--full` for 100,000 features of 1,000 classes as well. The
peers (`neural_collapse_peers.py`) are a loop over classes and per-sample outer products; of the latter 500 samples are
timed, and the time for all is extrapolated and marked with ~. Times are those of the processor; ratios are medians of
runs in turn, with the smallest and the largest, and above 1 where ours is faster.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import ctypes
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import neural_collapse_peers as peers
from lib import figures
from lib.neural_collapse import collapse_metrics, distilled_optimum, streamed_collapse_metrics

ROOT = Path(__file__).resolve().parents[1]
DIM, REPEATS, SAMPLED = 512, 5, 500
SETTINGS = [(20_000, 10), (20_000, 100), (50_000, 1000)]  # features, classes
BARS = {10: (4.0, 20.0), 100: (2.5, 0.0), 1000: (1.5, 0.0)}  # loop over classes, outer products
Layer = tuple[Tensor, Tensor, Tensor, Tensor]


def layer(count: int, classes: int, dim: int = DIM) -> Layer:
    """Features, labels, head and bias; classes as far apart as their samples spread, and ReLU-like means."""
    source = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, dim, generator=source, dtype=torch.float64) + 1
    labels = torch.randperm(count, generator=source) % classes
    features = centres[labels] + torch.randn(count, dim, generator=source, dtype=torch.float64)
    noise = torch.randn(classes, dim, generator=source, dtype=torch.float64)
    return features, labels, centres + noise, noise[:, 0].clone()


def seconds(call: Callable[[], object]) -> float:
    start = process_time()
    call()
    return process_time() - start


def in_turn(*calls: Callable[[], object], repeats: int = REPEATS) -> list[list[float]]:
    """Times of all calls, one after the other, so that a busy machine hits each."""
    rounds = [[seconds(call) for call in calls] for _ in range(repeats)]
    return [list(times) for times in zip(*rounds, strict=True)]


def report(what: str, ours: list[float], peer: list[float], error: float, bar: float = 0.0, mark: str = " ") -> None:
    ratios = sorted(b / a for a, b in zip(ours, peer, strict=True))
    verdict = f"   bar {bar:g} x: {'met' if median(ratios) >= bar else 'MISSED'}" if bar else ""
    print(
        f"{what:<44} ours {median(ours) * 1e3:8.1f} ms   peer {mark}{median(peer) * 1e3:9.1f} ms   "
        f"{median(ratios):6.2f} x ({ratios[0]:.2f} to {ratios[-1]:.2f})   differ by {error:.0e}{verdict}",
        flush=True,
    )


def difference(ours: object, peer: list[Tensor], limit: float = 1e-9) -> float:
    """The largest relative difference of the five metrics, proved to be below `limit`."""
    error = max(float((a - b).abs() / b.abs().clamp_min(1e-12)) for a, b in zip(vars(ours).values(), peer, strict=True))
    if not error <= limit:
        raise AssertionError(f"the two sides differ by {error:.1e}, more than {limit:.0e}")
    return error


def machine_rate() -> float:
    """Multiplications and additions in double precision a second, of a large square product."""
    x = torch.randn(2048, 2048, dtype=torch.float64)
    return 2 * 2048**3 / min(seconds(lambda: x @ x) for _ in range(3))


def against_peers(settings: list[tuple[int, int]]) -> None:
    print(f"\n1. collapse_metrics, {DIM} dimensions, double precision; both sides compute all five metrics")
    for count, classes in settings:
        x = layer(count, classes)
        features, labels, weight, bias = x
        few, some = features[:SAMPLED], labels[:SAMPLED]
        centres = torch.stack([mean for _, mean in peers.means(features, labels, classes)])
        scatter = peers.scatter_by_sample(few, some, centres)
        deviation = few - centres[some]
        torch.testing.assert_close(scatter, deviation.mT @ deviation, rtol=1e-9, atol=1e-9)
        error = difference(collapse_metrics(*x), peers.by_class(*x))
        rest = partial(peers.metrics, features, scatter, centres, weight, bias, peers.general_inverse)
        ours, by_class, sampled, others = in_turn(
            partial(collapse_metrics, *x),
            partial(peers.by_class, *x),
            partial(peers.scatter_by_sample, few, some, centres),
            rest,
            repeats=REPEATS if classes < 1000 else 3,
        )
        what, (bar, outer_bar) = f"{count:,} features, {classes:,} classes", BARS[classes]
        report(f"{what}: loop over classes", ours, by_class, error, bar)
        outer = [a * count / SAMPLED + b for a, b in zip(sampled, others, strict=True)]
        report(f"{what}: outer products", ours, outer, error, outer_bar, "~")
        rank = min(DIM, classes - 1)
        needed = 2 * count * DIM * (rank + 2 * classes) / machine_rate()
        share = needed / median(ours)
        print(
            f"   products with whitening, head and class means at the machine's double rate: {needed * 1e3:.1f} ms,"
            f" {share:.0%} of our time"
        )


def memory(settings: list[tuple[int, int]]) -> None:
    print("\n2. peak memory above the inputs, each in a process of its own; bar 64 MiB and ten C x d matrices")
    for count, classes in settings:
        call = [sys.executable, __file__, "--peak-memory", str(count), str(classes)]
        used = float(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
        bar = 64 + 10 * classes * DIM * 8 / 2**20
        verdict = "met" if used <= bar else "MISSED"
        print(f"   {count:,} features, {classes:,} classes: {used:.1f} MiB   bar {bar:.1f} MiB: {verdict}", flush=True)


def resident(what: str) -> float:
    """Resident memory of this process in MiB, VmRSS now or VmHWM at its peak (Linux)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(what))
    return int(line.split()[1]) / 1024


def peak_memory(count: int, classes: int) -> None:
    """In a process of its own: memory that the call adds to its input."""
    collapse_metrics(*layer(2 * classes, classes, DIM))  # loads what the first call loads
    x = layer(count, classes)
    ctypes.CDLL(None).malloc_trim(0)  # else the call could live on what making the input left behind
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = resident("VmRSS")
    collapse_metrics(*x)
    print(resident("VmHWM") - before)


def streaming() -> None:
    print("\n3. streamed_collapse_metrics: batches of the same samples against all at once; bar: equal to 1e-10")
    for count, classes in SETTINGS[:2]:
        features, labels, weight, bias = x = layer(count, classes)
        whole = list(vars(collapse_metrics(*x)).values())
        for size in (64, 1000, 7777):
            batches = list(zip(features.split(size), labels.split(size), strict=True))
            call = partial(streamed_collapse_metrics, batches, weight, bias)
            error = difference(call(), whole, 1e-10)
            ours, together = in_turn(call, partial(collapse_metrics, *x), repeats=3)
            report(f"{count:,} features, {classes} classes, batches of {size:,}", ours, together, error)


def optima() -> None:
    print("\n4. distilled_optimum of 1,000 settings, against a loop over scipy.optimize.brentq")
    rng = np.random.default_rng(0)
    classes, per_class = rng.integers(2, 200, 1000), rng.integers(1, 500, 1000)
    lambda_w, lambda_h, alpha = 10 ** rng.uniform(-5, -1.5, (3, 1000))
    teacher, heat = rng.uniform(1, 15, 1000), rng.uniform(1, 8, 1000)
    given = (classes, per_class, lambda_w, lambda_h, teacher, heat, alpha)
    rows = [tuple(v.item() for v in row) for row in zip(*given, strict=True)]
    for heads, peer in ((1, peers.one_head), (2, peers.two_heads)):
        got = distilled_optimum(*given, heads=heads)
        want = torch.tensor([peer(*row) for row in rows], dtype=torch.float64)
        error = float((torch.stack((got.main_gap, got.aux_gap), -1) - want).abs().max())
        if not error < 1e-7:
            raise AssertionError(f"heads = {heads}: gaps differ by {error:.1e}, more than 1e-07")
        ours, loop = in_turn(
            lambda heads=heads: distilled_optimum(*given, heads=heads),  # type: ignore[misc]
            lambda peer=peer: [peer(*row) for row in rows],  # type: ignore[misc]
        )
        report(f"{heads} head{'s' * (heads > 1)}", ours, loop, error)


def growth() -> None:
    print("\n5. cost against n, d and C; exponents of the last three sizes")
    sizes: dict[str, list[tuple[int, int, int]]] = {
        "n": [(n, 512, 100) for n in (1_000, 4_000, 16_000, 64_000)],
        "d": [(20_000, d, 100) for d in (64, 128, 256, 512, 1024)],
        "C": [(10_000, 512, c) for c in (10, 50, 100, 200, 500, 1000, 2000)],
    }
    names = {"n": "features", "d": "dimensions", "C": "classes"}
    drawing, panels = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
    for axis, (name, grid) in enumerate(sizes.items()):
        times: dict[str, list[float]] = {"ours": [], "loop over classes": []}
        for count, dim, classes in grid:
            x = layer(count, classes, dim)
            found = in_turn(partial(collapse_metrics, *x), partial(peers.by_class, *x))
            for key, values in zip(times, found, strict=True):
                times[key].append(min(values))
        grown = [(size[0], size[1], size[2])[axis] for size in grid]
        for (key, values), style in zip(times.items(), ("o-", "s--"), strict=True):
            exponent = np.polyfit(np.log(grown[-3:]), np.log(values[-3:]), 1)[0]
            row = "   ".join(f"{at:,}: {value * 1e3:.3g} ms" for at, value in zip(grown, values, strict=True))
            print(f"   {name}   {key:<18} {row}   exponent {exponent:.2f}", flush=True)
            colour = figures.COLOURS["theory" if key == "ours" else "rival"]
            panels[axis].loglog(grown, np.array(values) * 1e3, style, color=colour, label=key)
        panels[axis].set_xlabel(names[name])
    panels[0].set_ylabel("processor time (ms)")
    panels[0].legend()
    target = ROOT / "build" / "bench_neural_collapse.svg"
    target.parent.mkdir(exist_ok=True)
    drawing.savefig(target)
    print(f"   drawn in {target.relative_to(ROOT)}")


def main() -> None:
    """Agreement, times, memory."""
    print(f"torch {torch.__version__}; one thread on both sides; double rate {machine_rate() / 1e9:.0f} Gflop/s")
    settings = [*SETTINGS, (100_000, 1000)] if "--full" in sys.argv else SETTINGS
    against_peers(settings)
    memory(settings)
    for section in (streaming, optima, growth):
        section()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--peak-memory" in sys.argv:
        peak_memory(*map(int, sys.argv[-2:]))
    else:
        main()

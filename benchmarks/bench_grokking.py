"""Curves of training, predicted and trained: ours against numpy, one thread, agreement proved first.

Run `python benchmarks/bench_grokking.py`. The peers are what a user would write: a network of P samples in D dimensions
trained in numpy by four matrix products a step, the same network at width 4,000, and the eigendecomposition of the
kernel. Mean-field runs are random, so agreement is one of law: losses of several runs of both sides within 4.5 standard
errors. Times are those of the processor, of runs in turn; ratios are medians with the smallest and the largest, and
above 1 where ours is faster.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import math
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.grokking import Trajectory, dmft, gd_step, lazy_curve, moment_step, moments

REPEATS = 5
Array = Any  # of numpy


def seconds(call: Callable[[], object], at_least: float = 0.05) -> float:
    """Processor time of one call, from as many in a row as fill 50 ms."""
    start, count = process_time(), 0
    while count == 0 or process_time() - start < at_least:
        call()
        count += 1
    return (process_time() - start) / count


def short(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def race(what: str, ours: Callable[[], object], peer: Callable[[], object], error: str, bar: float = 0.0) -> None:
    """Time both in turn, so that a busy machine hits both, and print the verdict."""
    us, them = zip(*((seconds(ours), seconds(peer)) for _ in range(REPEATS)), strict=True)
    ratios = [b / a for a, b in zip(us, them, strict=True)]
    ratio, spread = median(ratios), f"({short(min(ratios))} to {short(max(ratios))})"
    verdict = f"   bar {bar:g} x: {'met' if ratio >= bar else 'MISSED'}" if bar else ""
    print(
        f"{what:<40} ours {median(us) * 1e3:8.2f} ms   peer {median(them) * 1e3:8.2f} ms   "
        f"{short(ratio):>6} x {spread:<16} {error}{verdict}",
        flush=True,
    )


def run(units: int, alpha: Any, eps: Any, psi: float, lr: float, steps: int, samples: int, seed: int = 0) -> Trajectory:
    """One call of `dmft` from the usual start."""
    overlap, alignment = beginning(units)
    source = torch.Generator().manual_seed(seed)
    return dmft(overlap, alignment, alpha, eps, psi, lr, steps, samples, source)


def beginning(units: int) -> tuple[Tensor, Tensor]:
    """Overlap and alignment of units that lean on the target by a quarter, one to each side in turn."""
    m = 0.25 * (-1.0) ** torch.arange(units, dtype=torch.float64)
    return torch.eye(units, dtype=torch.float64), m


def planted(units: int, dim: int) -> Array:
    """Weights with these overlaps; the target is the first axis."""
    c, m = (x.numpy() for x in beginning(units))
    W = np.zeros((units, dim))
    W[:, 0], W[:, 1 : units + 1] = m, np.linalg.cholesky(c - np.outer(m, m))
    return W * math.sqrt(dim)


def direct(X: Array, W: Array, alpha: float, eps: float, lr: float, steps: int) -> tuple[Array, Array]:
    """Train and test loss along centred descent, with nothing computed twice."""
    P, D = X.shape
    y, first, W = 0.5 * D * X[:, 0] ** 2, W, W.copy()
    train, test = np.empty(steps + 1), np.empty(steps + 1)
    zero, N = None, len(W)
    C0, m0 = first @ first.T / D, first[:, 0] / math.sqrt(D)
    for t in range(steps + 1):
        h = X @ W.T
        f = alpha * (h.mean(1) + eps / 2 * (h**2).mean(1))
        zero = f if zero is None else zero
        delta = y - f + zero
        C, B, m = W @ W.T / D, W @ first.T / D, W[:, 0] / math.sqrt(D)
        both = alpha * eps
        gap = 1 - both * (np.trace(C) - np.trace(C0)) / N
        square = 1 - 2 * both * (m @ m - m0 @ m0) / N + both**2 * ((C**2).mean() - 2 * (B**2).mean() + (C0**2).mean())
        train[t] = delta @ delta / P
        test[t] = alpha**2 * (C - B - B.T + C0).mean() + square / 2 + gap**2 / 4
        if t < steps:
            W += lr * D / (alpha * P) * ((delta[:, None] * (1 + eps * h)).T @ X)
    return train, test


def mean_field() -> None:
    print(
        "\n1. dmft against the network itself, psi 2, alpha 1, eps 0.25, lr 0.3; inputs drawn outside the peer's time"
    )
    for samples, units, steps, bar in ((2_000, 2, 60, 0.0), (4_000, 2, 60, 0.0), (8_000, 2, 60, 5.0)):
        dim, rng = samples // 2, np.random.default_rng(0)
        W = planted(units, dim)
        ours = partial(run, units, 1.0, 0.25, 2.0, 0.3, steps, samples)
        runs = 4 if samples > 4_000 else 12
        found = [ours(seed) for seed in range(runs)]
        trained, inputs = [], np.empty(0)
        for _ in range(runs):
            inputs = rng.normal(size=(samples, dim)) / math.sqrt(dim)
            trained.append(direct(inputs, W, 1.0, 0.25, 0.3, steps))
        off = 0.0
        for which, name in enumerate(("train", "test")):
            a = np.array([getattr(one, name)[-1].item() for one in found])
            b = np.array([one[which][-1] for one in trained])
            off = max(off, abs(a.mean() - b.mean()) / math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / runs))
        if off > 4.5:
            raise AssertionError(f"S = {samples}: the two sides differ by {off:.1f} standard errors")
        peer = partial(direct, inputs, W, 1.0, 0.25, 0.3, steps)
        race(f"S = {samples:,}, N = {units}, {steps} steps", ours, peer, f"apart by {off:.1f} se", bar)
    draw = [seconds(lambda: np.random.default_rng(0).normal(size=(8_000, 4_000))) for _ in range(2)]
    print(f"   drawing the peer's inputs at S = 8,000 costs {min(draw):.2f} s more; ours draws within its time")
    for _ in range(2):
        call = [sys.executable, __file__, "--long-run"]
        used, taken = map(float, subprocess.run(call, capture_output=True, text=True, check=True).stdout.split())
        share = used * 2**20 / 8 / (6_000 * 4 * 200)
        print(
            f"   S = 6,000, N = 4, 200 steps: {taken:.2f} s (bar 4 s: {'met' if taken <= 4 else 'MISSED'}), peak "
            f"{used:.0f} MiB = {share:.2f} S N T doubles (bar 2.5: {'met' if share <= 2.5 else 'MISSED'})"
        )


def resident() -> float:
    """Resident memory of this process in MiB (Linux)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def long_run() -> None:
    """In a process of its own: memory a long run adds, and its processor time."""
    run(4, 1.0, 0.25, 3.0, 0.4, 3, 500)  # loads what the first call loads
    before, start = resident(), process_time()
    run(4, 1.0, 0.25, 3.0, 0.4, 200, 6_000)
    taken = process_time() - start
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before, taken)


def grid() -> None:
    """In a process of its own, on two threads: 32 settings in one call and one by one, by the clock."""
    alphas, epss = (
        torch.logspace(-1, 1, 8, 2, dtype=torch.float64)[:, None],
        torch.tensor([0.1, 0.2, 0.3, 0.4]).double(),
    )
    for samples in (300, 1_000, 4_000):
        together = partial(run, 2, alphas, epss, 2.0, 0.2, 60, samples)

        def alone(samples: int = samples) -> Tensor:
            overlap, alignment = beginning(2)
            source = torch.Generator().manual_seed(0)
            points = [(a, e) for a in alphas.flatten() for e in epss]
            rows = [dmft(overlap, alignment, a, e, 2.0, 0.2, 60, samples, source).test for a, e in points]
            return torch.stack(rows).reshape(8, 4, -1)

        both = zip((together().test, alone()), (20, 20), strict=True)  # rounding grows as the runs go on
        torch.testing.assert_close(*(x[..., :t] for x, t in both), rtol=1e-6, atol=0)
        ratios, one = [], 0.0
        for _ in range(REPEATS):
            times = []
            for call in (together, alone):
                begin = perf_counter()
                call()
                times.append(perf_counter() - begin)
            ratios.append(times[1] / times[0])
            one = times[0]
        print(
            f"   S = {samples:,}: {one * 1e3:7.1f} ms for 32 points, {short(median(ratios))} x faster than one by one "
            f"({short(min(ratios))} to {short(max(ratios))})"
        )


def many() -> None:
    print(
        "\n2. dmft at 32 points (alpha, eps), N = 2, 60 steps, psi 2: one call against 32 calls, two threads, the clock"
    )
    subprocess.run([sys.executable, __file__, "--grid"], check=True)


def numpy_step(W: Array, X: Array, y: Array) -> Array:
    """`gd_step` at alpha 1, eps 0.1, lr 0.3, with few temporary arrays."""
    P, D = X.shape
    h = X @ W.T
    delta = y - (h.mean(1) + 0.05 * np.einsum("ij,ij->i", h, h) / len(W))
    h *= 0.1
    h += 1
    h *= delta[:, None]
    return W + 0.3 * D / P * (h.T @ X)


def closure() -> None:
    print("\n3. moment_step (infinite width) against gd_step and numpy at width N; P = 550, D = 100")
    rng = np.random.default_rng(0)
    P, D = 550, 100
    X = torch.from_numpy(rng.normal(size=(P, D)) / math.sqrt(D))
    y = X[:, 0].square() * D / 2
    wide = (torch.zeros(D, dtype=torch.float64), torch.eye(D, dtype=torch.float64))
    for width, bar in ((100, 0.0), (1_000, 0.0), (4_000, 20.0)):
        W = torch.from_numpy(rng.normal(size=(width, D)))
        moved = gd_step(W, X, y, 1.0, 0.1, 0.3)
        error = max(
            float((a - b).abs().max())
            for a, b in zip(moment_step(*moments(W), X, y, 1.0, 0.1, 0.3), moments(moved), strict=True)
        )
        if error > 1e-12:
            raise AssertionError(f"moments and network differ by {error:.1e}")
        ours = partial(moment_step, *wide, X, y, 1.0, 0.1, 0.3)
        race(f"N = {width:,}, gd_step", ours, partial(gd_step, W, X, y, 1.0, 0.1, 0.3), f"differ by {error:.0e}", bar)

        peer = partial(numpy_step, W.numpy(), X.numpy(), y.numpy())
        error = float(np.abs(peer() - moved.numpy()).max())
        if error > 1e-12:
            raise AssertionError(f"numpy and gd_step differ by {error:.1e}")
        race(f"N = {width:,}, numpy", ours, peer, f"differ by {error:.0e}")


def by_eigenvectors(X: Array, eps: float, lr: float, steps: int) -> Array:
    """Train loss of kernel descent at all times, from the spectrum of the kernel."""
    P, D = X.shape
    gram = X @ X.T
    y = 0.5 * D * X[:, 0] ** 2
    values, vectors = np.linalg.eigh(gram + eps**2 * gram**2)
    power = (vectors.T @ y) ** 2 / P
    return np.array([(power * (1 - lr * D / P * values) ** (2 * t)).sum() for t in range(steps + 1)])


def lazy() -> None:
    print("\n4. lazy_curve against the eigendecomposition of the kernel, psi 2, eps 0.5, lr 0.4, 150 steps")
    for dim, bar in ((300, 0.0), (600, 0.0), (1_200, 100.0)):
        X = np.random.default_rng(0).normal(size=(2 * dim, dim)) / math.sqrt(dim)
        ours, peer = partial(lazy_curve, 2.0, 0.5, 0.4, 150), partial(by_eigenvectors, X, 0.5, 0.4, 150)
        off = float(np.abs(peer()[:50] / ours().train[:50].numpy() - 1).max())
        if off > 1.5 / math.sqrt(dim) * 4.5:  # y has standard deviation 1/sqrt(2) and fourth moments beside 1/P
            raise AssertionError(f"D = {dim}: curves differ by {off:.3f}")
        race(f"D = {dim:,}, P = {2 * dim:,}", ours, peer, f"differ by {off:.1e}", bar)


def growth() -> None:
    print("\n5. cost against the number of steps; exponent of the last three (dmft and lazy_curve: 2 in the end)")
    counts = (25, 50, 100, 200, 400)
    for what, call in (
        ("dmft, N = 2, S = 4,000", lambda t: run(2, 1.0, 0.25, 2.0, 0.3, t, 4_000)),
        ("lazy_curve", lambda t: lazy_curve(2.0, 0.5, 0.4, 10 * t)),
    ):
        times = [min(seconds(partial(call, t)) for _ in range(2)) for t in counts]
        exponent = np.polyfit(np.log(counts[-3:]), np.log(times[-3:]), 1)[0]
        factor = 10 if what == "lazy_curve" else 1
        row = "   ".join(f"{factor * t:,}: {time * 1e3:.3g} ms" for t, time in zip(counts, times, strict=True))
        print(f"{what:>24}   {row}   exponent {exponent:.2f}", flush=True)


def main() -> None:
    """Agreement, times, memory."""
    print(f"torch {torch.__version__}, numpy {np.__version__}; one thread on both sides where nothing else is said")
    print(f"ratios: median of {REPEATS} runs in turn (smallest to largest)")
    for section in (mean_field, many, closure, lazy, growth):
        section()


if __name__ == "__main__":
    torch.set_num_threads(2 if "--grid" in sys.argv else 1)
    if "--long-run" in sys.argv:
        long_run()
    elif "--grid" in sys.argv:
        grid()
    else:
        main()

"""Effective ridges on a grid of 600 (n, k, ridge): ours against scipy, one thread, agreement proved first.

Run `python benchmarks/bench_rf_regression.py`. The peers solve point by point, as published code does: the pair of
equations by `scipy.optimize.root` in logarithmic variables; the pair by nested `scipy.optimize.brentq`, once with tight
brackets and once in a fixed box of thirty decades as published code has it; and our own scalar equation by `brentq`.
Where a peer would take minutes a sample of its points is timed, and the time for all is extrapolated and marked with ~.
"""

from __future__ import annotations

import math
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from timeit import Timer

import numpy as np
import torch
from scipy import optimize

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.rf_regression import powerlaw_task, rf_risk, solve_effective_ridge

Array = np.ndarray
Peer = Callable[[Array, float, float, float], float]
POINTS = 600
REPEATS = 3


def grid(points: int) -> tuple[Array, Array, Array]:
    """Samples, features and ridges of 600 points, none of them at n = k; fewer points are spread over them."""
    n, k, ridge = np.meshgrid(np.geomspace(20, 2000, 10), np.geomspace(31, 3100, 10), np.geomspace(1e-4, 10, 6))
    chosen = np.linspace(0, POINTS - 1, points).round().astype(int)
    return n.ravel()[chosen], k.ravel()[chosen], ridge.ravel()[chosen]


def ours(eigenvalues: Array, n: Array, k: Array, ridge: Array) -> Array:
    """All points at once."""
    return solve_effective_ridge(eigenvalues, n, k, ridge).gamma.numpy()


def pair_by_root(eigenvalues: Array, n: float, k: float, ridge: float) -> float:
    """The pair of equations by Powell's hybrid method in log gamma, log kappa, from a power law's scale."""

    def pair(x: Array) -> list[float]:
        gamma, kappa = np.exp(x)
        z = (eigenvalues / (eigenvalues + gamma)).sum()
        return [np.log((z + ridge / kappa) / n), np.log((z + k * kappa / gamma) / k)]

    scale = math.log(eigenvalues.sum() / min(n, k))
    found = optimize.root(pair, [scale, scale], tol=1e-13)
    return float(np.exp(found.x[0]))


def pair_by_nested_brentq(eigenvalues: Array, n: float, k: float, ridge: float) -> float:
    """For every kappa a root in gamma, and over these a root in kappa."""

    def gamma_of(kappa: float) -> float:
        def features(gamma: float) -> float:
            return float((eigenvalues / (eigenvalues + gamma)).sum() + k * kappa / gamma - k)

        return float(optimize.brentq(features, kappa, kappa + eigenvalues.sum() / k, xtol=1e-300, rtol=1e-13))

    def samples(log_kappa: float) -> float:
        kappa = math.exp(log_kappa)
        return float((eigenvalues / (eigenvalues + gamma_of(kappa))).sum() + ridge / kappa - n)

    upper = math.log((eigenvalues.sum() + ridge) / n)
    return gamma_of(math.exp(optimize.brentq(samples, math.log(ridge / n), upper, xtol=1e-14, rtol=1e-14)))


def pair_in_a_fixed_box(eigenvalues: Array, n: float, k: float, ridge: float) -> float:
    """The same nesting without knowledge of where the roots are: gamma is sought in 1e-15 to 1e15, kappa up to 1e12."""

    def gamma_of(kappa: float) -> float:
        def features(gamma: float) -> float:
            return float((eigenvalues / (eigenvalues + gamma)).sum() + k * kappa / gamma - k)

        return float(optimize.brentq(features, 1e-15, 1e15, xtol=1e-300, rtol=1e-13, maxiter=400))

    def samples(kappa: float) -> float:
        return float((eigenvalues / (eigenvalues + gamma_of(kappa))).sum() + ridge / kappa - n)

    return gamma_of(float(optimize.brentq(samples, 1e-15, 1e12, xtol=1e-300, rtol=1e-13, maxiter=400)))


def scalar_by_brentq(eigenvalues: Array, n: float, k: float, ridge: float) -> float:
    """Our scalar equation, one point at a time."""
    gap, smaller = abs(1 - n / k), min(n, k)

    def excess(u: float) -> float:
        x = ridge * math.exp(-u)
        z = (eigenvalues / (eigenvalues + math.exp(u))).sum()
        return math.log((z + 2 * x / (gap + math.sqrt(gap * gap + 4 * x / k))) / smaller)

    lower = math.log(ridge / (smaller * (smaller / k + gap)))
    upper = math.log(2 * eigenvalues.sum() / smaller + 4 * ridge / (smaller * (smaller / k + 2 * gap)))
    return math.exp(optimize.brentq(excess, lower, upper, xtol=1e-14, rtol=1e-14))


ROOT, NESTED, BOX, SCALAR = "root on the pair", "nested brentq", "nested, fixed box", "brentq, our scalar"
PEERS: dict[str, Peer] = {
    ROOT: pair_by_root,
    NESTED: pair_by_nested_brentq,
    BOX: pair_in_a_fixed_box,
    SCALAR: scalar_by_brentq,
}
# modes, points, and how many of these points each peer is timed on
CASES = [
    (100, 1, {ROOT: 1, NESTED: 1, BOX: 1, SCALAR: 1}),
    (100, POINTS, {ROOT: POINTS, NESTED: 60, BOX: 10, SCALAR: POINTS}),
    (10_000, 1, {ROOT: 1, NESTED: 1, BOX: 1, SCALAR: 1}),
    (10_000, POINTS, {ROOT: 200, NESTED: 60, BOX: 10, SCALAR: 200}),
    (1_000_000, 1, {ROOT: 1, SCALAR: 1}),
    (1_000_000, POINTS, {ROOT: 10, NESTED: 3, SCALAR: 10}),
]
BARS = {(10_000, ROOT): 5, (1_000_000, ROOT): 50, (10_000, BOX): 100}


def compare(modes: int, points: int, sampled: dict[str, int]) -> None:
    """Prove agreement on the sampled points, then time both sides in turn."""
    eigenvalues = powerlaw_task(modes, 1.5, 1.5)[0].numpy()
    n, k, ridge = grid(points)
    gammas = ours(eigenvalues, n, k, ridge)
    for name, count in sampled.items():
        peer, chosen = PEERS[name], np.linspace(0, points - 1, count).round().astype(int)

        def loop(peer: Peer = peer, chosen: Array = chosen) -> list[float]:
            return [peer(eigenvalues, n[i], k[i], ridge[i]) for i in chosen]

        error = np.abs(np.array(loop()) / gammas[chosen] - 1).max()
        if error > 1e-10:
            raise AssertionError(f"{name}, M = {modes}: the two sides differ by {error:.1e} in gamma")
        us, them = [], []
        for _ in range(REPEATS):  # in turn, so that a busy machine hits both
            us.append(Timer(lambda: ours(eigenvalues, n, k, ridge)).timeit(5) / 5)
            them.append(Timer(loop).timeit(1))
        own, other = statistics.median(us), statistics.median(them) * points / count
        mark, bar = "~" if count < points else " ", BARS.get((modes, name)) if points == POINTS else None
        verdict = "" if bar is None else f"   bar {bar} x: {'met' if other / own >= bar else 'MISSED'}"
        print(
            f"M = {modes:>9,}  {points:>3} points   ours {own:9.2e} s   {name:<18} {mark}{other:9.2e} s   "
            f"{other / own:8.1f} x   gamma differs by {error:.0e}{verdict}"
        )


def resident() -> float:
    """Resident memory of this process now, in MB (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def peak_memory() -> None:
    """In a process of its own: resident memory that a million modes at 600 points add to their input."""
    index = torch.arange(1, 1_000_001, dtype=torch.float64)
    eigenvalues = power = index.pow_(-1.5)  # made in place: a temporary here would hide memory taken below
    n, k, ridge = grid(POINTS)
    rf_risk(eigenvalues[:2000], power[:2000], n[:2], k[:2], ridge[:2])  # loads what the first call loads
    before = resident()
    rf_risk(eigenvalues, power, n, k, ridge)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before)


def main() -> None:
    """Agreement, times and memory."""
    torch.set_num_threads(1)
    print("one thread; power law with exponent 1.5; median of", REPEATS, "runs in turn; ~ extrapolated from a sample")
    for modes, points, sampled in CASES:
        compare(modes, points, sampled)
    call = [sys.executable, __file__, "--peak-memory"]
    megabytes = float(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
    print(f"test and train errors, 1,000,000 modes x {POINTS} points: {megabytes:.0f} MB above the input (bar 200 MB)")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--peak-memory" in sys.argv:
        peak_memory()
    else:
        main()

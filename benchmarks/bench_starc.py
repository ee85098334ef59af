"""Canonical rewards, distances and exact regret: ours against numpy and scipy, one thread, agreement proved first.

Run `python benchmarks/bench_starc.py`. The peers (`starc_peers.py`) take one decision process after the other, as
published code does: values by fixed-point iteration until none moves by 1e-10, regret by one HiGHS program for each
pair (the fastest of 16 ways to state and to solve it), sparse values by BiCGStab, minimal rewards by lsqr, L-BFGS and
Adam over all transitions. Times are those of the processor, which on one thread a busy machine changes little; ratios
are medians of runs in turn, with the smallest and the largest, and above 1 where ours is faster.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import scipy
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import starc_peers as peers
from lib.starc import (
    canonicalise,
    expected_reward,
    random_mdp,
    shaping_matrix,
    sparse_val_canonical,
    starc_distance,
    worst_case_regret,
)

GAMMA = 0.95
REPEATS = 5
SIZES = [(10, 3, 512), (32, 4, 64), (128, 8, 8)]  # states, actions, pairs of rewards, each on a process of its own
STATES, ACTIONS, LISTED = 10_000, 4, 8  # of the sparse process


def pairs(states: int, actions: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two rewards for each of `count` random processes, about a sixth of whose transitions are possible."""
    source = torch.Generator().manual_seed(0)
    shape = (count, states, actions, states)
    first, second = (torch.randn(shape, generator=source, dtype=torch.float64) for _ in range(2))
    return first, second, random_mdp(states, actions, batch=(count,), generator=source)


def seconds(call: Callable[[], object], at_least: float = 0.02) -> float:
    """Time of one call, from as many in a row as fill 20 ms."""
    start, count = process_time(), 0
    while count == 0 or process_time() - start < at_least:
        call()
        count += 1
    return (process_time() - start) / count


def same(ours: Tensor, peer: np.ndarray, limit: float) -> float:
    """The largest difference of the two answers relative to the largest entry, proved to be below `limit`."""
    error = float(np.abs(ours.numpy() - peer).max() / np.abs(peer).max())
    if not error <= limit:
        raise AssertionError(f"the two sides differ by {error:.1e}, more than {limit:.0e}")
    return error


def short(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def race(what: str, ours: Callable[[], object], peer: Callable[[], object], error: float, bar: float = 0.0) -> None:
    """Time both in turn, so that a busy machine hits both, and print the verdict."""
    us, them = zip(*((seconds(ours), seconds(peer)) for _ in range(REPEATS)), strict=True)
    ratios = [b / a for a, b in zip(us, them, strict=True)]
    ratio, spread = median(ratios), f"({short(min(ratios))} to {short(max(ratios))})"
    verdict = f"   bar {bar:g} x: {'met' if ratio >= bar else 'MISSED'}" if bar else ""
    print(
        f"{what:<42} ours {median(us) * 1e3:7.2f} ms   peer {median(them) * 1e3:7.2f} ms   "
        f"{short(ratio):>6} x {spread:<16} differ by {error:.0e}{verdict}",
        flush=True,
    )


def val() -> None:
    print(f"\n1. canonicalise, VAL, gamma {GAMMA}: against the loop to 1e-10, then one batched numpy.linalg.solve")
    for (states, actions, count), bar in zip([*SIZES, (2, 2, 1)], (100, 30, 10, 0), strict=True):
        reward, _, dynamics = pairs(states, actions, count)
        ours = partial(canonicalise, reward, dynamics, GAMMA)
        for way, limit, wanted in ((peers.val_by_fixed_point, 1e-9, bar), (peers.val_by_solve, 1e-12, 0)):
            peer = partial(way, GAMMA, reward.numpy(), dynamics.numpy())
            what = f"S = {states:3}, A = {actions}, {count:3} rewards, {way.__name__[7:]}"
            race(what, ours, peer, same(ours(), peer(), limit), wanted)


def certified_regret(first: Tensor, second: Tensor, dynamics: Tensor) -> Tensor:
    """Our regret, once it is proved that its occupancies are occupancies, keep the constraint and attain it."""
    found, design = worst_case_regret(first, second, dynamics, GAMMA), shaping_matrix(dynamics, GAMMA)
    both = torch.stack((found.occupancy_1, found.occupancy_2))
    lost, gained = (((both[0] - both[1]) * expected_reward(x, dynamics)).sum((-2, -1)) for x in (first, second))
    proofs = {
        "gap": found.gap.abs().max(),
        "residual": found.residual.max(),
        "flow": ((both.unsqueeze(-1) * design).sum((-3, -2)) - 1 / design.shape[-1]).abs().max(),
        "negative occupancy": -both.min(),
        "constraint": (gained / found.regret).max(),
        "loss": (lost / found.regret - 1).abs().max(),
    }
    for name, size in proofs.items():
        if not size < 1e-10:
            raise AssertionError(f"worst_case_regret: {name} {size:.1e}, want below 1e-10")
    return found.regret


def regret() -> None:
    print(
        f"\n2. worst_case_regret, gamma {GAMMA}: against one HiGHS program for each pair; our certificates below 1e-10"
    )
    bars = (1.5, 1.5, 1.5, 0, 0, 0)
    for (states, actions, count), bar in zip([*SIZES, (32, 4, 1), (10, 3, 1), (2, 2, 1)], bars, strict=True):
        first, second, dynamics = pairs(states, actions, count)
        means = np.stack([expected_reward(x, dynamics).flatten(1).numpy() for x in (first, second)])
        design, few = shaping_matrix(dynamics, GAMMA).flatten(1, 2).numpy(), max(1, 256 // states)
        tried = [partial(peers.regret_by_highs, way, means[:, :few], design[:few]) for way in peers.HIGHS]
        way = peers.HIGHS[int(np.argmin([min(seconds(call), seconds(call)) for call in tried]))]
        peer = partial(peers.regret_by_highs, way, means, design)
        print(f"   fastest: {way[0].__name__}, {', '.join(way[1:])}")
        race(
            f"S = {states:3}, A = {actions}, {count:3} pairs",
            partial(worst_case_regret, first, second, dynamics, GAMMA),
            peer,
            same(certified_regret(first, second, dynamics), peer(), 1e-7),
            bar,
        )


def successor_lists(rewards: int, reach: int = STATES) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, successors fewer than `reach` states ahead, and their probabilities."""
    source = torch.Generator().manual_seed(0)
    shape = (STATES, ACTIONS, LISTED)
    ahead = torch.randint(reach, shape, generator=source)
    probs = torch.rand(shape, generator=source, dtype=torch.float64)
    given = torch.randn(rewards, *shape, generator=source, dtype=torch.float64)
    return given, (torch.arange(STATES)[:, None, None] + ahead) % STATES, probs / probs.sum(-1, keepdim=True)


def sparse_val() -> None:
    print(
        f"\n3. sparse_val_canonical, S = {STATES:,}, A = {ACTIONS}, K = {LISTED}, gamma {GAMMA}: against BiCGStab to "
        "1e-13 for each reward, on the matrix or\n   on its product; both sides include the matrix and the advantage"
    )
    for rewards, reach, bar in ((1, STATES, 0.5), (16, STATES, 2), (4, STATES, 0), (1, 20, 0), (16, 20, 0)):
        lists = successor_lists(rewards, reach)
        ways = [
            partial(peers.val_by_bicgstab, explicit, GAMMA, *(x.numpy() for x in lists)) for explicit in (True, False)
        ]
        peer = min(ways, key=lambda way: min(seconds(way), seconds(way)))
        ours = sparse_val_canonical(*lists, GAMMA)
        error = max(same(x, y, 1e-11) for x, y in zip((ours.value, ours.advantage), peer(), strict=True))
        what = f"{rewards:2} rewards, successors {'anywhere' if reach == STATES else f'< {reach} ahead'}"
        race(what, partial(sparse_val_canonical, *lists, GAMMA), peer, error, bar)
    plain = partial(peers.sweeps, GAMMA, *(x.numpy() for x in successor_lists(1)))
    print(f"   plain value iteration of one reward to 1e-13: {plain()} sweeps, {seconds(plain) * 1e3:.0f} ms")
    for rewards in (1, 16):
        call = [sys.executable, __file__, "--peak-memory", str(rewards)]
        used = float(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
        verdict = "met" if used < 1024 else "MISSED"
        print(f"   peak memory above the input, {rewards:2} rewards: {used:.0f} MiB   bar 1024 MiB: {verdict}")


def resident(what: str) -> float:
    """Resident memory of this process in MiB, VmRSS now or VmHWM at its peak (Linux)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(what))
    return int(line.split()[1]) / 1024


def peak_memory(rewards: int) -> None:
    """In a process of its own: memory that the call adds to its input."""
    lists = successor_lists(rewards)
    few = [x[..., :50, :, :] for x in lists]
    sparse_val_canonical(few[0], few[1] % 50, few[2], GAMMA)  # loads what the first call loads
    with suppress(OSError):  # where it is forbidden, the peak of making the input counts too
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = resident("VmRSS")
    sparse_val_canonical(*lists, GAMMA)
    print(resident("VmHWM") - before)


def minimal() -> None:
    print(
        f"\n4. minimal reward of one process, gamma {GAMMA}: against least squares over all transitions\n"
        "   (L-BFGS and Adam stop short of the minimum: by how much is the difference)"
    )
    for states, actions in ((2, 2), (10, 3), (32, 4)):
        first, second, dynamics = (x[0] for x in pairs(states, actions, 1))
        ours, size = partial(canonicalise, first, dynamics, GAMMA, "minimal"), f"S = {states:3}, A = {actions}"
        ways = {peers.minimal_by_lsqr: 1e-9, peers.minimal_by_lbfgs: 1e-4, peers.minimal_by_adam: math.inf}
        for way, limit in ways.items():
            peer = partial(way, GAMMA, first.numpy(), dynamics.numpy())
            race(f"{size}, reward, {way.__name__[8:]}", ours, peer, same(ours(), peer(), limit))
        apart = partial(starc_distance, first, second, dynamics, GAMMA, "minimal")
        lsqr = partial(peers.distance_by_lsqr, GAMMA, first.numpy(), second.numpy(), dynamics.numpy())
        race(f"{size}, starc_distance, by_lsqr", apart, lsqr, same(apart(), lsqr(), 1e-9))


def table(what: str, sizes: Sequence[tuple[int, int, int]], axis: int, expected: str) -> None:
    """Times against one of the sizes, and the exponent between the last three."""
    print(f"   against {what}; expected exponent {expected}")
    grown = [size[axis] for size in sizes]
    for name in ("val", "regret"):
        times = []
        for size in sizes:
            first, second, dynamics = pairs(*size)
            call = partial(worst_case_regret, first, second) if name == "regret" else partial(canonicalise, first)
            times.append(min(seconds(partial(call, dynamics, GAMMA)) for _ in range(3)))
        exponent = np.polyfit(np.log(grown[-3:]), np.log(times[-3:]), 1)[0]
        row = "   ".join(f"{x:,}: {time * 1e3:.3g} ms" for x, time in zip(grown, times, strict=True))
        print(f"{name:>9}   {row}   exponent {exponent:.2f}")
        if axis == 2:
            print(
                f"{'each':>9}   {'   '.join(f'{x:,}: {t / x * 1e6:.3g} us' for x, t in zip(grown, times, strict=True))}"
            )


def growth() -> None:
    print("\n5. cost against S, A and the batch; exponents of the last three sizes")
    table("S, at A = 4, 4 pairs", [(s, 4, 4) for s in (32, 64, 128, 256, 512)], 0, "2 (reading P) to 3 (solving)")
    table("A, at S = 64, 4 pairs", [(64, a, 4) for a in (2, 4, 8, 16, 32)], 1, "0 (solving) to 1 (reading P)")
    table("the batch, at S = 10, A = 3", [(10, 3, n) for n in (1, 10, 100, 1_000, 10_000)], 2, "1")


def main() -> None:
    """Agreement, times, memory."""
    print(f"torch {torch.__version__}, scipy {scipy.__version__}, numpy {np.__version__}; one thread on both sides")
    print(f"ratios: median of {REPEATS} runs in turn (smallest to largest)")
    for section in (val, regret, sparse_val, minimal, growth):
        section()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--peak-memory" in sys.argv:
        peak_memory(int(sys.argv[-1]))
    else:
        main()

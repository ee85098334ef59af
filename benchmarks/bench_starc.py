"""Canonical rewards, distances and exact regret: ours against numpy and scipy, one thread, agreement proved first.

Run `make bench CHAPTERS=starc`. The peers (`starc_peers.py`) take one decision process after the other, as published
code does: values by fixed-point iteration until none moves by 1e-10, regret by one HiGHS program for each pair (the
fastest of 16 ways to state and to solve it), sparse values by BiCGStab, minimal rewards by lsqr, L-BFGS and Adam over
all transitions.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks import starc_peers as peers
from benchmarks.harness import Call, Growth, Race, apart, run
from benchmarks.machine import seconds
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
SIZES = [(10, 3, 512), (32, 4, 64), (128, 8, 8)]  # states, actions, pairs of rewards, each on a process of its own
STATES, ACTIONS, LISTED = 10_000, 4, 8  # of the sparse process


def pairs(states: int, actions: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two rewards for each of `count` random processes, about a sixth of whose transitions are possible."""
    source = torch.Generator().manual_seed(0)
    shape = (count, states, actions, states)
    first, second = (torch.randn(shape, generator=source, dtype=torch.float64) for _ in range(2))
    return first, second, random_mdp(states, actions, batch=(count,), generator=source)


def described(states: int, actions: int, count: int, what: str) -> str:
    return f"S = {states}, A = {actions}, {count} {what if count > 1 else what.removesuffix('s')}"


def val() -> Iterator[Race]:
    """VAL: against the loop to 1e-10, then against one batched `numpy.linalg.solve` that checks nothing."""
    for (states, actions, count), bar in zip([*SIZES, (2, 2, 1)], (100.0, 30.0, 10.0, None), strict=True):
        reward, _, dynamics = pairs(states, actions, count)
        for peer, way, limit, wanted in (
            ("fixed-point loop", peers.val_by_fixed_point, 1e-9, bar),
            ("batched numpy solve", peers.val_by_solve, 1e-12, None),
        ):
            yield Race(
                "canonicalise",
                described(states, actions, count, "rewards"),
                partial(canonicalise, reward, dynamics, GAMMA),
                peer,
                partial(way, GAMMA, reward.numpy(), dynamics.numpy()),
                limit=limit,
                at_least=wanted,
            )


def certified_regret(first: Tensor, second: Tensor, dynamics: Tensor) -> None:
    """Prove that the occupancies of our regret are occupancies, keep the constraint and attain it."""
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


def regret() -> Iterator[Race]:
    """Exact regret: against one HiGHS program for each pair, our certificates below 1e-10."""
    bars = (1.5, 1.5, 1.5, None, None, None)
    for (states, actions, count), bar in zip([*SIZES, (32, 4, 1), (10, 3, 1), (2, 2, 1)], bars, strict=True):
        first, second, dynamics = pairs(states, actions, count)
        certified_regret(first, second, dynamics)
        means = np.stack([expected_reward(x, dynamics).flatten(1).numpy() for x in (first, second)])
        design, few = shaping_matrix(dynamics, GAMMA).flatten(1, 2).numpy(), max(1, 256 // states)
        tried = [partial(peers.regret_by_highs, way, means[:, :few], design[:few]) for way in peers.HIGHS]
        way = peers.HIGHS[int(np.argmin([seconds(call) for call in tried]))]
        yield Race(
            "worst_case_regret",
            described(states, actions, count, "pairs"),
            partial(worst_case_regret, first, second, dynamics, GAMMA),
            f"HiGHS ({way[0].__name__}, {', '.join(way[1:])})",
            partial(peers.regret_by_highs, way, means, design),
            agree=lambda ours, peer: apart(ours.regret, peer),
            limit=1e-7,
            at_least=bar,
        )


def successor_lists(rewards: int, reach: int = STATES) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, successors fewer than `reach` states ahead, and their probabilities."""
    source = torch.Generator().manual_seed(0)
    shape = (STATES, ACTIONS, LISTED)
    ahead = torch.randint(reach, shape, generator=source)
    probs = torch.rand(shape, generator=source, dtype=torch.float64)
    given = torch.randn(rewards, *shape, generator=source, dtype=torch.float64)
    return given, (torch.arange(STATES)[:, None, None] + ahead) % STATES, probs / probs.sum(-1, keepdim=True)


def sparse_val() -> Iterator[Race]:
    """Against BiCGStab to 1e-13 for each reward, on the matrix or its product; both sides include the advantage."""
    for rewards, reach, bar in ((1, STATES, 0.5), (16, STATES, 2.0), (4, STATES, None), (1, 20, None), (16, 20, None)):
        lists = successor_lists(rewards, reach)
        given = [x.numpy() for x in lists]
        ways = [partial(peers.val_by_bicgstab, explicit, GAMMA, *given) for explicit in (True, False)]
        where = "anywhere" if reach == STATES else f"fewer than {reach} ahead"
        yield Race(
            "sparse_val_canonical",
            f"{STATES:,} states, {rewards} reward{'s' * (rewards > 1)}, successors {where}",
            partial(sparse_val_canonical, *lists, GAMMA),
            "BiCGStab",
            min(ways, key=lambda way: min(seconds(way), seconds(way))),
            agree=lambda ours, peer: apart((ours.value, ours.advantage), peer),
            limit=1e-11,
            at_least=bar,
            memory=1024 if reach == STATES and rewards != 4 else None,
        )


def minimal() -> Iterator[Race]:
    """One process; L-BFGS and Adam stop short of the minimum: by how much is the difference."""
    for states, actions in ((2, 2), (10, 3), (32, 4)):
        first, second, dynamics = (x[0] for x in pairs(states, actions, 1))
        size = f"S = {states}, A = {actions}"
        for name, way, limit in (
            ("lsqr", peers.minimal_by_lsqr, 1e-9),
            ("L-BFGS", peers.minimal_by_lbfgs, 1e-4),
            ("Adam", peers.minimal_by_adam, math.inf),
        ):
            yield Race(
                'canonicalise, "minimal"',
                size,
                partial(canonicalise, first, dynamics, GAMMA, "minimal"),
                name,
                partial(way, GAMMA, first.numpy(), dynamics.numpy()),
                limit=limit,
                repeats=3,
            )
        yield Race(
            'starc_distance, "minimal"',
            size,
            partial(starc_distance, first, second, dynamics, GAMMA, "minimal"),
            "lsqr",
            partial(peers.distance_by_lsqr, GAMMA, first.numpy(), second.numpy(), dynamics.numpy()),
        )


def races() -> Iterator[Race]:
    for section in (val, regret, sparse_val, minimal):
        yield from section()


def growths() -> Iterator[Growth]:
    """Against S and A, where reading the dynamics and solving share the cost, and against the batch."""

    def canonical(states: int, actions: int, count: int) -> partial[Tensor]:
        first, _, dynamics = pairs(states, actions, count)
        return partial(canonicalise, first, dynamics, GAMMA)

    def worst(states: int, actions: int, count: int) -> Call:
        return partial(worst_case_regret, *pairs(states, actions, count), GAMMA)

    for name, make in (("canonicalise", canonical), ("worst_case_regret", worst)):
        yield Growth(
            name,
            "states, 4 actions, 4 pairs",
            (32, 64, 128, 256, 512),
            lambda s, make=make: make(s, 4, 4),  # type: ignore[misc]
            (2, 3),
            "2 where reading the dynamics binds, 3 where solving does",
        )
        yield Growth(
            name,
            "actions, 64 states, 4 pairs",
            (2, 4, 8, 16, 32),
            lambda a, make=make: make(64, a, 4),  # type: ignore[misc]
            (0, 1),
            "0 where solving binds, 1 where reading the dynamics does",
        )
        yield Growth(
            name,
            "pairs, 10 states, 3 actions",
            (10, 100, 1_000, 10_000),
            lambda n, make=make: make(10, 3, n),  # type: ignore[misc]
            (1, 1),
            "1 for each pair its own process",
            batch=True,
        )


if __name__ == "__main__":
    run(__file__, races, growths)

"""Weighted modes: order, shares, heads and tails."""

from __future__ import annotations

import math

import torch

from lib.rf_regression.modes import learned_share, sorted_modes

SPECTRUM = torch.tensor([0.5, 0.0, 4.0, 1.0], dtype=torch.float64)
POWER = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)


def test_modes_are_sorted_and_those_with_eigenvalue_zero_set_apart() -> None:
    modes = sorted_modes(SPECTRUM, POWER)
    assert (modes.weight * modes.eigenvalues).tolist() == [4.0, 1.0, 0.5, 0.0]
    assert modes.power.tolist() == [3.0, 4.0, 1.0, 0.0]
    assert modes.unseen_power == 2
    assert modes.rank == 3
    assert modes.log_trace.item() == math.log(5.5)


def test_the_head_holds_the_largest_modes_and_a_part_of_the_next() -> None:
    head = sorted_modes(SPECTRUM, POWER).head_fraction(torch.tensor([0.0, 1.5, 3.0], dtype=torch.float64))
    assert head[:, :3].tolist() == [[0, 0, 0], [1, 0.5, 0], [1, 1, 1]]


def test_both_shares_are_exact_at_the_ends() -> None:
    spectrum = torch.tensor([1e-300, 1.0, 1e200], dtype=torch.float64)
    learned, missed = learned_share(spectrum, torch.tensor([[0.0], [1e-18], [math.inf]], dtype=torch.float64))
    assert learned[0].tolist() == [1, 1, 1]
    assert missed[0].tolist() == [0, 0, 0]
    assert missed[1, 1].item() == 1e-18
    assert missed[2].tolist() == [1, 1, 1]
    assert (learned[2] < 1e-7).all()


def test_a_tail_without_trace_only_hides_power() -> None:
    zero, half = torch.zeros((), dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    modes = sorted_modes(SPECTRUM, POWER).with_tail(zero, half)
    assert modes.rank == 3
    assert modes.unseen_power == 2.5
    assert modes.power.sum() == 8
    tail = sorted_modes(SPECTRUM, POWER).with_tail(half, half)
    assert (tail.weight * tail.eigenvalues).sum().item() == 6.0
    assert tail.unseen_power == 2
    assert tail.power.sum() == 8.5

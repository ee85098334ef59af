"""The iterative solver on chains given as matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.starc.krylov import discounted_solution


def chain(seed: int, states: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(states) / 4, size=states)


@pytest.mark.parametrize("states", [1, 2, 50])
def test_every_column_has_its_own_discount_and_solution(states: int) -> None:
    P, right = chain(0, states), np.random.default_rng(1).normal(size=(states, 4))
    gamma = np.array([0.0, 0.5, 0.9, 0.999])
    dynamics = torch.tensor(P)
    x, residual = discounted_solution(lambda v: dynamics @ v, torch.tensor(right), torch.tensor(gamma), 512)
    for i in range(4):
        want = np.linalg.solve(np.eye(states) - gamma[i] * P, right[:, i])
        np.testing.assert_allclose(x[:, i], want, rtol=0, atol=1e-12 / (1 - gamma[i]))
        left = right[:, i] - x[:, i].numpy() + gamma[i] * P @ x[:, i].numpy()
        assert residual[i].item() == pytest.approx(np.abs(left).max(), rel=0, abs=1e-14 / (1 - gamma[i]))


def test_it_stops_when_rounding_is_reached_and_never_makes_more_steps_than_allowed() -> None:
    P, right = (
        torch.tensor(chain(2, 60)),
        torch.randn(60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    )
    gamma = torch.full((3,), 0.9, dtype=torch.float64)
    products: list[int] = []

    def counted(v: torch.Tensor) -> torch.Tensor:
        products.append(1)
        return P @ v

    discounted_solution(counted, right, gamma, 10_000)
    assert len(products) < 200
    for steps in (1, 3, 40):
        products.clear()
        discounted_solution(counted, right, 0 * gamma + 0.9999, steps)
        assert len(products) <= 2 * steps + 3 * (1 + steps // 8)  # two a step, and a few at each restart


def test_a_right_side_of_zero_is_solved_by_zero() -> None:
    P = torch.tensor(chain(3, 5))
    right = torch.zeros(5, 2, dtype=torch.float64)
    right[0, 1] = 1
    x, residual = discounted_solution(lambda v: P @ v, right, torch.tensor([0.9, 0.9], dtype=torch.float64), 100)
    assert x[:, 0].tolist() == [0.0] * 5
    assert residual[0] == 0
    assert x[:, 1].abs().min() > 0


@pytest.mark.parametrize("kind", ["float32", "wrong", "nan"])
def test_a_rough_product_is_given_up_where_it_does_not_help(kind: str) -> None:
    P = torch.tensor(0.999 * np.eye(40) + 0.001 * chain(4, 40))  # so slow that value iteration alone would not do
    right = torch.tensor(np.random.default_rng(5).normal(size=(40, 3)))
    gamma = torch.tensor([0.5, 0.9, 0.999], dtype=torch.float64)
    rough = {
        "float32": lambda v: P.float() @ v,
        "wrong": lambda v: -3 * v.roll(1, 0),
        "nan": lambda v: v * torch.nan,
    }[kind]
    x, residual = discounted_solution(lambda v: P @ v, right, gamma, 512, rough)
    want, _ = discounted_solution(lambda v: P @ v, right, gamma, 512)
    torch.testing.assert_close(x, want, rtol=0, atol=1e-8)  # values of 1e3, and 1 / (1 - gamma) times their rounding
    assert residual.max() < 1e-11


@pytest.mark.parametrize("states", [33, 200])
def test_a_cycle_on_which_the_method_makes_no_progress_still_contracts(states: int) -> None:
    right = torch.zeros(states, 1, dtype=torch.float64)
    right[0] = 1
    gamma = torch.tensor([0.9], dtype=torch.float64)
    x, residual = discounted_solution(lambda v: v.roll(-1, 0), right, gamma, 4096)
    want = 0.9 ** np.r_[0, np.arange(states - 1, 0, -1)] / (1 - 0.9**states)
    np.testing.assert_allclose(x[:, 0], want, rtol=0, atol=1e-9)
    assert residual < 1e-10

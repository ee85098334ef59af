"""Worst-case regret as a function of tensors: gradients, batches, dtypes, devices, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.starc import WorstCaseRegret, random_mdp, worst_case_regret

from . import oracle
from .corridor import corridor

PARTS = ("regret", "normalised", "multiplier", "gap", "residual")
OCCUPANCIES = ("occupancy_1", "occupancy_2")


def assert_same(got: WorstCaseRegret, index: tuple[int, ...], alone: WorstCaseRegret) -> None:
    for part in PARTS:
        torch.testing.assert_close(getattr(got, part)[index], getattr(alone, part), rtol=1e-9, atol=1e-10)
    for part in OCCUPANCIES:
        torch.testing.assert_close(getattr(got, part)[index], getattr(alone, part), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])  # the first entry by entry, the others along random directions
def test_gradients_are_those_of_finite_differences(seed: int) -> None:
    case = oracle.case(seed, 3, 2, zeros=False)
    R1, R2, P, start, gamma = (
        torch.tensor(x, requires_grad=True)
        for x in (case.R1, 2 * case.R1 + case.R2, np.log(case.P), np.log(case.initial), np.array(case.gamma))
    )

    def losses(R1: torch.Tensor, R2: torch.Tensor, P: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gamma, start = others
        got = worst_case_regret(R1, R2, P.softmax(-1), gamma, start.softmax(-1))
        return got.regret, got.normalised

    assert 0.01 < losses(R1, R2, P, gamma, start)[1] < 0.99  # else it would be flat
    assert torch.autograd.gradcheck(losses, (R1, R2, P, gamma, start), fast_mode=seed > 0)


def test_gradients_of_a_batch_are_those_of_its_members() -> None:
    rng = np.random.default_rng(0)
    R1, R2 = torch.tensor(rng.normal(size=(2, 4, 5, 3, 5)))
    P = random_mdp(5, 3, generator=torch.Generator().manual_seed(0))
    batch = R1.clone().requires_grad_()
    worst_case_regret(batch, R2, P, 0.9).normalised.sum().backward()
    assert batch.grad is not None
    for i in range(4):
        alone = R1[i].clone().requires_grad_()
        worst_case_regret(alone, R2[i], P, 0.9).normalised.backward()
        assert alone.grad is not None
        torch.testing.assert_close(batch.grad[i], alone.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("trivial_first", [True, False])
def test_gradients_of_what_is_constant_are_zero(trivial_first: bool) -> None:
    case = oracle.case(3)
    R, zero = torch.tensor(case.R1, requires_grad=True), torch.zeros(4, 3, 4, dtype=torch.float64, requires_grad=True)
    got = worst_case_regret(*((zero, R) if trivial_first else (R, zero)), case.P, 0.9).normalised
    gradients = torch.autograd.grad(got, (R, zero), allow_unused=True, materialize_grads=True)
    assert [x.abs().max().item() for x in gradients] == [0, 0]


@pytest.mark.parametrize(
    "shapes",
    [  # of the batch axes of R1, R2, P, gamma, initial
        ((3,), (), (), (), ()),
        ((), (3,), (), (), ()),
        ((), (), (3,), (), ()),
        ((), (), (), (3,), ()),
        ((), (), (), (), (3,)),
        ((1, 2), (2,), (3, 1), (), ()),
        ((1, 2), (1,), (2, 1, 1), (3, 1), (2,)),
        ((), (1,), (), (1, 1), ()),
        ((), (), (1,), (), ()),
        ((0,), (), (), (), ()),
    ],
)
def test_leading_axes_of_all_arguments_broadcast(shapes: tuple[tuple[int, ...], ...]) -> None:
    rng = np.random.default_rng(0)
    R1, R2 = (rng.normal(size=(*shapes[i], 4, 2, 4)) for i in (0, 1))
    P, gamma = rng.dirichlet(np.ones(4), size=(*shapes[2], 4, 2)), rng.uniform(0, 0.9, shapes[3])
    start, batch = rng.dirichlet(np.ones(4), size=shapes[4]), np.broadcast_shapes(*shapes)
    got = worst_case_regret(R1, R2, P, gamma, start)
    assert {getattr(got, part).shape for part in PARTS} == {batch}
    assert {getattr(got, part).shape for part in OCCUPANCIES} == {(*batch, 4, 2)}
    R1, R2, P = (np.broadcast_to(x, (*batch, 4, 2, 4)) for x in (R1, R2, P))
    gamma, start = np.broadcast_to(gamma, batch), np.broadcast_to(start, (*batch, 4))
    for i in np.ndindex(batch):
        assert_same(got, i, worst_case_regret(R1[i], R2[i], P[i], float(gamma[i]), start[i]))


def test_easy_hard_and_trivial_problems_of_a_batch_do_not_disturb_each_other() -> None:
    hard, P = corridor(60, 1e-6)
    rng = np.random.default_rng(0)
    easy, other = rng.normal(size=(2, *hard.shape))
    zero = np.zeros_like(hard)
    R1, R2 = np.stack([hard, easy, zero, easy, hard, hard]), np.stack([easy, hard, easy, zero, -hard, 5 * hard])
    anywhere = rng.dirichlet(np.ones(60), size=(60, 2))
    for dynamics in (P, np.stack([P, anywhere, P, P, anywhere, P])):
        got = worst_case_regret(R1, R2, dynamics, 0.9)
        for i in range(6):
            alone = worst_case_regret(R1[i], R2[i], dynamics if dynamics.ndim == 3 else dynamics[i], 0.9)
            for part in PARTS:
                torch.testing.assert_close(getattr(got, part)[i], getattr(alone, part), rtol=1e-8, atol=1e-9)
    assert not np.array_equal(easy, other)


def test_vmap_over_pairs_is_the_batch() -> None:
    rng = np.random.default_rng(0)
    R1, R2 = torch.tensor(rng.normal(size=(2, 5, 4, 3, 4)))
    P = torch.tensor(rng.dirichlet(np.ones(4), size=(5, 4, 3)))

    def regret(R1: torch.Tensor, R2: torch.Tensor, P: torch.Tensor) -> torch.Tensor:
        return worst_case_regret(R1, R2, P, 0.9).normalised

    for axes, arguments in (((0, 0, 0), (R1, R2, P)), ((0, None, None), (R1, R2[0], P[0]))):
        mapped = torch.func.vmap(regret, in_dims=axes)(*arguments)
        torch.testing.assert_close(mapped, regret(*arguments), rtol=1e-9, atol=1e-11)


def test_gradients_pass_under_vmap_and_occupancies_carry_none() -> None:
    rng = np.random.default_rng(1)
    R1, R2 = torch.tensor(rng.normal(size=(2, 4, 4, 3, 4)))
    P = torch.tensor(rng.dirichlet(np.ones(4), size=(4, 3)), requires_grad=True)

    def regret(R1: torch.Tensor, R2: torch.Tensor) -> torch.Tensor:
        return worst_case_regret(R1, R2, P.detach(), 0.9).normalised

    mapped = torch.func.vmap(torch.func.grad(regret))(R1, R2)
    alone = torch.stack([torch.func.grad(regret)(one, two) for one, two in zip(R1, R2, strict=True)])
    torch.testing.assert_close(mapped, alone, rtol=1e-8, atol=1e-10)
    got = worst_case_regret(R1, R2, P, 0.9)
    assert {name for name, value in vars(got).items() if value.requires_grad} == {"regret", "normalised"}


def test_float32_is_kept_and_agrees_with_float64() -> None:
    for seed in range(5):
        case = oracle.case(seed, 8, 3, 0.95)
        R1, R2, P = (torch.tensor(x, dtype=torch.float32) for x in (case.R1, case.R2, case.P))
        single, double = worst_case_regret(R1, R2, P, 0.95), worst_case_regret(case.R1, case.R2, case.P, 0.95)
        assert {x.dtype for x in vars(single).values()} == {torch.float32}
        # rounding of 6e-8, 20 steps ahead, in values of some 20 widths
        torch.testing.assert_close(single.normalised.double(), double.normalised, rtol=0, atol=1e-4)
        torch.testing.assert_close(single.regret.double(), double.regret, rtol=1e-3, atol=0)
        assert abs(single.gap) < 1e-3
        assert single.residual < 1e-4


def test_lists_and_whole_numbers_become_float64() -> None:
    anywhere = [[[0.5, 0.5]] * 2] * 2
    got = worst_case_regret([[[1, 1], [0, 0]]] * 2, [[[1, 1], [0, 0]], [[0, 0], [1, 1]]], anywhere, 0)
    assert {x.dtype for x in vars(got).values()} == {torch.float64}
    assert got.normalised == 1


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    R1, P = torch.rand(5, 4, 3, 4, device=fake_gpu), torch.rand(2, 1, 4, 3, 4, device=fake_gpu)
    gamma, start = torch.rand(5, device=fake_gpu), torch.rand(2, 1, 4, device=fake_gpu)
    for dynamics, initial in ((P, None), (P[0, 0], start)):
        got = worst_case_regret(R1, R1[0], dynamics, gamma, initial, steps=13, iterations=9)  # the last with sweeps
        assert {str(x.device) for x in vars(got).values()} == {fake_gpu}
        assert {x.dtype for x in vars(got).values()} == {torch.float32}
        assert (got.normalised.shape, got.occupancy_1.shape) == ((2, 5), (2, 5, 4, 3))


HALF, PAIR = [[[0.5, 0.5], [1.0, 0.0]]] * 2, [[[0.0, 1.0], [0.0, 0.0]]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"R1": [[[0.0]]]}, r"R1: got shape \(1, 1, 1\), want \(\*batch, 2, 2, 2\) as P has it"),
        ({"R2": [[[0.0]]]}, r"R2: got shape \(1, 1, 1\), want \(\*batch, 2, 2, 2\) as P has it"),
        ({"R1": [[[0.0, math.nan], [0.0, 0.0]]] * 2}, "R1: got nan, want finite numbers"),
        ({"R2": [[[0.0, math.inf], [0.0, 0.0]]] * 2}, "R2: got inf, want finite numbers"),
        ({"initial": [1.0]}, r"initial: got shape \(1,\), want \(\*batch, 2\)"),
        ({"initial": [0.5, 0.4]}, "initial: got 0.9, want rows that sum to one"),
        ({"steps": 0}, r"steps: got 0, want a whole number >= 1"),
        ({"iterations": -1}, r"iterations: got -1, want a whole number >= 1"),
        ({"R1": [PAIR] * 2, "R2": [PAIR] * 3}, r"R1 \(2,\), R2 \(3,\), P \(\).*: got shapes that do not broadcast"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"R1": PAIR, "R2": PAIR, "P": HALF, "gamma": 0.5} | change
    with pytest.raises(ValueError, match=message):
        worst_case_regret(**arguments)  # type: ignore[arg-type]

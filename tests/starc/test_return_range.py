"""Ranges of returns against all deterministic policies and a corridor solved by hand; certificates, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.starc import optimal_policy_regret, potential_shaping, redistribute, return_range, worst_case_regret

from . import oracle
from .corridor import corridor, extreme_values

SIZES = [(1, 1), (1, 4), (5, 1), (2, 2), (5, 3), (7, 2)]


@pytest.mark.parametrize(("states", "actions"), SIZES)
@pytest.mark.parametrize("gamma", [0.0, 0.7, 0.999])
def test_extremes_are_those_of_all_deterministic_policies(states: int, actions: int, gamma: float, device: str) -> None:
    for seed in range(3):
        case = oracle.case(seed, states, actions, gamma)
        R, P = (torch.tensor(x, device=device) for x in (case.R1, case.P))
        got = return_range(R, P, gamma, case.initial)
        returns = oracle.all_returns(case.R1, case.P, gamma, case.initial)
        tolerance = 1e-13 / (1 - gamma)
        assert got.highest.item() == pytest.approx(returns.max(), rel=1e-11, abs=tolerance)
        assert got.lowest.item() == pytest.approx(returns.min(), rel=1e-11, abs=tolerance)
        assert got.width.item() == pytest.approx(np.ptp(returns), rel=1e-11, abs=tolerance)
        assert got.residual.item() < 1e-11 / (1 - gamma)
        for policy, want in ((got.best_policy, returns.max()), (got.worst_policy, returns.min())):
            assert sorted(set(policy.flatten().tolist())) in ([0.0, 1.0], [1.0])
            assert (policy.sum(-1) == 1).all()
            went = oracle.visits(case.P, gamma, policy.cpu().numpy(), case.initial)
            assert (went * oracle.mean_reward(case.R1, case.P)).sum() == pytest.approx(want, rel=1e-11, abs=tolerance)


def test_the_first_state_is_uniform_unless_said_otherwise() -> None:
    case = oracle.case(0)
    for initial in (np.full(4, 0.25), np.eye(4)[2]):
        want = oracle.all_returns(case.R1, case.P, 0.9, initial)
        got = return_range(case.R1, case.P, 0.9, *([] if initial[0] else [initial]))
        assert (got.lowest.item(), got.highest.item()) == pytest.approx((want.min(), want.max()), rel=1e-12)


seeds = st.integers(0, 10**6)


@settings(max_examples=25)
@given(seeds, st.floats(0, 0.99), st.floats(0.01, 100), st.floats(0.01, 100))
def test_the_width_is_a_norm_that_shaping_and_redistribution_do_not_change(
    seed: int, gamma: float, scale: float, size: float
) -> None:
    case = oracle.case(seed, 5, 3, gamma)
    phi, factor = size * np.random.default_rng(seed).normal(size=5), [-scale, scale][seed % 2]
    moved = factor * redistribute(potential_shaping(case.R1, phi, gamma), case.P, case.R2)
    plain, changed, other, both = (
        return_range(R, case.P, gamma, case.initial) for R in (case.R1, moved, case.R2, case.R1 + scale * case.R2)
    )
    slack = 1e-12 * (1 + size + scale) / (1 - gamma)
    assert changed.width.item() == pytest.approx(scale * plain.width.item(), rel=1e-10, abs=slack * scale)
    assert both.width <= plain.width + scale * other.width + slack
    ends = (plain.highest, plain.lowest) if factor > 0 else (plain.lowest, plain.highest)
    for end, was in zip((changed.highest, changed.lowest), ends, strict=True):
        assert end.item() == pytest.approx(factor * (was.item() - case.initial @ phi), rel=1e-10, abs=slack * scale)


@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.999])
def test_a_trivial_reward_has_no_width(gamma: float) -> None:
    case = oracle.case(5, 4, 3, gamma)
    nothing = return_range(np.zeros((4, 3, 4)), case.P, gamma)
    assert [x.item() for x in (nothing.lowest, nothing.highest, nothing.width, nothing.residual)] == [0, 0, 0, 0]
    trivial = redistribute(potential_shaping(np.full((4, 3, 4), 3.0), [1.0, -2.0, 5.0, 0.0], gamma), case.P, case.R2)
    assert abs(return_range(trivial, case.P, gamma).width) < 1e-12 / (1 - gamma)
    alone = return_range(case.R1[:, :1], case.P[:, :1], gamma)
    assert alone.width == 0
    assert alone.highest != 0


@pytest.mark.parametrize("states", [2, 40, 180])
@pytest.mark.parametrize("actions", [2, 6])
def test_a_corridor_is_solved_from_its_far_end(states: int, actions: int) -> None:
    R, P = corridor(states, 1e-8, actions)
    high, low = extreme_values(states, 1e-8, 0.9)
    for initial in (np.full(states, 1 / states), np.eye(states)[max(0, states - 130)]):
        got = return_range(R, P, 0.9, initial)
        assert got.highest.item() == pytest.approx(initial @ high, rel=1e-7, abs=1e-12)  # from afar it is about 1e-5
        assert got.lowest.item() == pytest.approx(initial @ low, rel=1e-4, abs=1e-12)
        assert got.residual < 1e-12


@pytest.mark.parametrize("iterations", [1, 3, 8])
def test_too_few_iterations_show_in_the_residual(iterations: int) -> None:
    R, P = corridor(130, 1e-8)
    high, low = extreme_values(130, 1e-8, 0.9)
    got = return_range(R, P, 0.9, np.eye(130)[0], iterations=iterations)
    missing = (high[0] - low[0]) - got.width.item()
    assert missing > 1e-6
    assert missing <= 2 * got.residual.item() / (1 - 0.9)
    violations = []
    for sign, policy in ((1, got.best_policy.numpy()), (-1, got.worst_policy.numpy())):
        value = oracle.state_values(sign * R, P, 0.9, policy)
        violations.append((oracle.action_values(sign * R, P, 0.9, policy).max(1) - value).max())
    assert got.residual.item() == pytest.approx(max(violations), rel=1e-6)


@settings(max_examples=40)
@given(seeds, st.integers(1, 3), st.floats(0, 0.99))
def test_the_residual_bounds_the_error_of_the_width(seed: int, iterations: int, gamma: float) -> None:
    case = oracle.case(seed, 4, 3, gamma)
    got = return_range(case.R1, case.P, gamma, case.initial, iterations=iterations)
    missing = oracle.width(case.R1, case.P, gamma, case.initial) - got.width.item()
    assert -1e-11 / (1 - gamma) <= missing <= (2 * got.residual.item() + 1e-11) / (1 - gamma)


@pytest.mark.parametrize("difference", [1e-6, 1e-10, 1e-13, 1e-15, 0.0])
def test_actions_that_are_nearly_equal_do_not_alternate(difference: float) -> None:
    case = oracle.case(6, 5, 2, 0.95)
    tied, R = case.P.copy(), case.R1.copy()
    tied[:, 1], R[:, 1] = tied[:, 0], R[:, 0] + difference * np.random.default_rng(0).normal(size=(5, 1))
    returns = oracle.all_returns(R, tied, 0.95, case.initial)
    got = return_range(R, tied, 0.95, case.initial)
    assert got.width.item() == pytest.approx(np.ptp(returns), rel=1e-6, abs=1e-12)
    assert got.residual <= 1e-11


def test_problems_of_a_batch_do_not_disturb_each_other() -> None:
    R, P = corridor(130, 1e-8)
    rng = np.random.default_rng(0)
    rewards = np.stack([np.zeros_like(R), R, rng.normal(size=R.shape), -R, 1e3 * R])
    other = rng.dirichlet(np.ones(130), size=(130, 2))
    for dynamics in (P, np.stack([P, other, other, P, P])):
        got = return_range(rewards, dynamics, 0.9)
        for i in range(5):
            alone = return_range(rewards[i], dynamics if dynamics.ndim == 3 else dynamics[i], 0.9)
            for name, value in vars(alone).items():
                torch.testing.assert_close(getattr(got, name)[i], value, rtol=1e-9, atol=1e-10)


Shapes = tuple[tuple[int, ...], ...]
BROADCASTS = [
    (((3,), (), (), ()), (3,)),
    (((), (3,), (), ()), (3,)),
    (((), (), (3,), ()), (3,)),
    (((), (), (), (3,)), (3,)),
    (((1, 2), (3, 1), (), ()), (3, 2)),
    (((2,), (3, 1), (2, 1, 1), (1,)), (2, 3, 2)),
    (((2, 1, 1), (1,), (2,), (3, 1)), (2, 3, 2)),
    (((), (1,), (), (1, 1)), (1, 1)),
    (((0,), (), (), ()), (0,)),
]


@pytest.mark.parametrize(("shapes", "batch"), BROADCASTS)
def test_leading_axes_of_all_arguments_broadcast(shapes: Shapes, batch: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    R1, R2 = rng.normal(size=(2, *shapes[0], 3, 2, 3))
    P, gamma = rng.dirichlet(np.ones(3), size=(*shapes[1], 3, 2)), rng.uniform(0, 0.9, shapes[2])
    start = rng.dirichlet(np.ones(3), size=shapes[3])
    got, lost = return_range(R1, P, gamma, start), optimal_policy_regret(R1, R2, P, gamma, start)
    for name, value in vars(got).items():
        assert value.shape == (*batch, *((3, 2) if "policy" in name else ())), name
    assert lost.shape == batch
    R1, R2, P = (np.broadcast_to(x, (*batch, *x.shape[-3:])) for x in (R1, R2, P))
    gamma, start = np.broadcast_to(gamma, batch), np.broadcast_to(start, (*batch, 3))
    for i in np.ndindex(batch):
        alone = return_range(R1[i], P[i], float(gamma[i]), start[i])
        for name, value in vars(alone).items():
            torch.testing.assert_close(getattr(got, name)[i], value, rtol=1e-11, atol=1e-12)
        want = optimal_policy_regret(R1[i], R2[i], P[i], float(gamma[i]), start[i])
        torch.testing.assert_close(lost[i], want, rtol=1e-11, atol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    case = oracle.case(2, 4, 3, zeros=False)
    R, P, start, gamma = (
        torch.tensor(x, requires_grad=True)
        for x in (case.R1, np.log(case.P), np.log(case.initial), np.array(case.gamma))
    )

    def ends(R: torch.Tensor, P: torch.Tensor, gamma: torch.Tensor, start: torch.Tensor) -> tuple[torch.Tensor, ...]:
        got = return_range(R, P.softmax(-1), gamma, start.softmax(-1))
        return got.lowest, got.highest, got.width

    assert torch.autograd.gradcheck(ends, (R, P, gamma, start), fast_mode=True)


def test_vmap_over_rewards_and_processes_is_the_batch() -> None:
    rng = np.random.default_rng(0)
    R, P = torch.tensor(rng.normal(size=(5, 4, 3, 4))), torch.tensor(rng.dirichlet(np.ones(4), size=(5, 4, 3)))

    def width(R: torch.Tensor, P: torch.Tensor) -> torch.Tensor:
        return return_range(R, P, 0.9).width

    for axes, processes in (((0, 0), P), ((0, None), P[0])):
        mapped = torch.func.vmap(width, in_dims=axes)(R, processes)
        torch.testing.assert_close(mapped, width(R, processes))


def test_float32_is_kept_and_agrees_with_float64() -> None:
    for seed in range(5):
        case = oracle.case(seed, 6, 3, 0.95)
        R, P = (torch.tensor(x, dtype=torch.float32) for x in (case.R1, case.P))
        single, double = return_range(R, P, 0.95), return_range(case.R1, case.P, 0.95)
        assert {x.dtype for x in vars(single).values()} == {torch.float32}
        for part in ("lowest", "highest", "width"):  # 20 steps ahead, each rounded to 6e-8 of values of size 20
            torch.testing.assert_close(getattr(single, part).double(), getattr(double, part), rtol=0, atol=1e-4)
        assert single.residual < 1e-4
    assert optimal_policy_regret(R, -R, P, 0.95).dtype == torch.float32


def test_lists_and_whole_numbers_become_float64() -> None:
    either = [[[1, 0], [0, 1]], [[1, 0], [0, 1]]]
    got = return_range([[[0, 1], [0, 1]], [[0, 1], [0, 1]]], either, 0.5)
    assert {x.dtype for x in vars(got).values()} == {torch.float64}
    assert (got.lowest.item(), got.highest.item()) == pytest.approx((0.0, 2.0), rel=1e-14)


def test_ranges_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    R, P = torch.rand(5, 4, 3, 4, device=fake_gpu), torch.rand(2, 1, 4, 3, 4, device=fake_gpu)
    gamma, start = torch.rand(5, device=fake_gpu), torch.rand(4, device=fake_gpu)
    for initial in (None, start):
        got = return_range(R, P, gamma, initial, iterations=9)  # the last with sweeps
        assert {str(x.device) for x in vars(got).values()} == {fake_gpu}
        assert got.width.shape == (2, 5)
    lost = optimal_policy_regret(R, R, P, 0.9, start, iterations=1)
    assert (str(lost.device), lost.shape) == (fake_gpu, (2, 5))


@settings(max_examples=25)
@given(seeds, st.floats(0, 0.98))
def test_the_regret_of_the_optimal_policy_is_what_the_best_of_all_policies_for_the_other_loses(
    seed: int, gamma: float
) -> None:
    case = oracle.case(seed, 4, 3, gamma)
    one, two = (oracle.all_returns(R, case.P, gamma, case.initial) for R in (case.R1, case.R2))
    got = optimal_policy_regret(case.R1, case.R2, case.P, gamma, case.initial)
    best = one[two >= two.max() - 1e-11]  # several, if a state cannot be reached
    assert got.item() == pytest.approx((one.max() - best.mean()) / np.ptp(one), abs=1e-9)
    assert 0 <= got <= worst_case_regret(case.R1, case.R2, case.P, gamma, case.initial).normalised + 1e-10


def test_optimal_policy_regret_of_equal_opposite_and_trivial_rewards() -> None:
    case = oracle.case(1)
    phi = [1.0, -2.0, 5.0, 0.5]
    trivial = potential_shaping(np.ones((4, 3, 4)), phi, 0.9)
    same = 3 * potential_shaping(case.R1, phi, 0.9)
    assert optimal_policy_regret(case.R1, same, case.P, 0.9) == pytest.approx(0, abs=1e-12)
    assert optimal_policy_regret(case.R1, -case.R1, case.P, 0.9) == pytest.approx(1, abs=1e-12)
    for size in range(10):  # whatever rounding makes of them
        moved = redistribute((1 + size) * trivial, case.P, case.R2)
        assert optimal_policy_regret(moved, case.R1, case.P, 0.9) == 0
    assert optimal_policy_regret(np.zeros((4, 3, 4)), case.R1, case.P, 0.9) == 0
    assert 0 <= optimal_policy_regret(case.R1, trivial, case.P, 0.9) <= 1


HALF, PAIR = [[[0.5, 0.5], [1.0, 0.0]]] * 2, [[[0.0, 1.0], [0.0, 0.0]]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"R": [[[0.0]]]}, r"R: got shape \(1, 1, 1\), want \(\*batch, 2, 2, 2\) as P has it"),
        ({"R": [[[0.0, math.nan], [0.0, 0.0]]] * 2}, "R: got nan, want finite numbers"),
        ({"initial": [1.0]}, r"initial: got shape \(1,\), want \(\*batch, 2\)"),
        ({"initial": [0.5, 0.4]}, "initial: got 0.9, want rows that sum to one"),
        ({"initial": [-0.5, 1.5]}, "initial: got -0.5, want no negative entry"),
        ({"iterations": 0}, r"iterations: got 0, want a whole number >= 1"),
        ({"initial": [[0.5, 0.5]] * 2, "gamma": [0.1] * 3}, r"gamma \(3,\), initial \(2,\): got shapes that do not"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"R": PAIR, "P": HALF, "gamma": 0.5} | change
    with pytest.raises(ValueError, match=message):
        return_range(**arguments)  # type: ignore[arg-type]
    first = arguments.pop("R")
    with pytest.raises(ValueError, match=message.replace("R:", "R1:")):
        optimal_policy_regret(R1=first, R2=PAIR, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message.replace("R:", "R2:")):
        optimal_policy_regret(R1=PAIR, R2=first, **arguments)  # type: ignore[arg-type]

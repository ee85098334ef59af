"""Stacks of decision processes, and when a policy is improved, kept or left out of further steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.starc.policy_iteration import extremes, own_values, signed_rewards
from lib.starc.problems import Problems, improvable, improve, rounding, still_open

from . import oracle

GAMMA = 0.9


def stack(count: int, shared: bool) -> tuple[Problems, list[oracle.Case]]:
    cases = [oracle.case(seed, 4, 3, GAMMA) for seed in range(count)]
    P = torch.tensor(np.stack([cases[0 if shared else i].P for i in range(count)]))
    rewards = torch.tensor(
        np.array([[oracle.mean_reward(R, P[i].numpy()) for R in (x.R1, x.R2)] for i, x in enumerate(cases)])
    )
    gamma = torch.tensor(GAMMA, dtype=torch.float64)
    return Problems.stack(P[0] if shared else P, gamma, rewards, torch.Size([count])), cases


@pytest.mark.parametrize("shared", [False, True])
def test_values_and_visits_are_those_of_each_process_alone(shared: bool) -> None:
    problems, cases = stack(5, shared)
    assert problems.rows.shape[0] == (1 if shared else 5)
    actions = torch.tensor(np.random.default_rng(0).integers(0, 3, size=(5, 7, 4)))
    start = torch.tensor(np.stack([case.initial for case in cases]))
    values, visits = problems.evaluate(actions), problems.visits(actions, start)
    assert (values.shape, visits.shape) == ((5, 7, 2, 4), (5, 7, 4))
    ahead = problems.ahead(values[:, :, 0])
    index = torch.tensor([3, 1])
    part = problems.some(index).evaluate(actions[index])
    torch.testing.assert_close(part, values[index], rtol=1e-12, atol=1e-13)
    for i, k in np.ndindex(5, 7):
        P = cases[0 if shared else i].P
        policy = np.eye(3)[actions[i, k].numpy()]
        for f, R in enumerate((cases[i].R1, cases[i].R2)):
            want = oracle.state_values(R, P, GAMMA, policy)
            np.testing.assert_allclose(values[i, k, f], want, rtol=0, atol=1e-12)
        went = oracle.visits(P, GAMMA, policy, cases[i].initial).sum(1)
        np.testing.assert_allclose(visits[i, k], went, rtol=0, atol=1e-12)
        np.testing.assert_allclose(ahead[i, k], GAMMA * P @ values[i, k, 0].numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shared", [False, True])
def test_each_reward_has_a_best_and_a_worst_policy_and_their_values_under_all(shared: bool) -> None:
    problems, cases = stack(6, shared)
    found = extremes(problems, 96)
    assert found.actions.shape == (6, 4, 4)
    assert found.residual.shape == (6, 2)
    assert found.residual.max() < 1e-12
    for i, case in enumerate(cases):
        P = cases[0 if shared else i].P
        for f, R in enumerate((case.R1, case.R2)):
            returns = oracle.all_returns(R, P, GAMMA, case.initial)
            best, worst = (case.initial @ found.values[i, 2 * f + k, f].numpy() for k in (0, 1))
            assert (best, worst) == pytest.approx((returns.max(), returns.min()), rel=1e-11)
        other = oracle.state_values(case.R2, P, GAMMA, np.eye(3)[found.actions[i, 0].numpy()])
        np.testing.assert_allclose(found.values[i, 0, 1], other, rtol=0, atol=1e-12)


def test_signs_alternate_and_own_values_are_those_of_the_signed_reward() -> None:
    rewards = torch.arange(12.0).view(1, 2, 3, 2)
    signed = signed_rewards(Problems(torch.ones(1, 6, 3) / 3, torch.ones(1), rewards))
    assert torch.equal(signed, torch.stack((rewards[:, 0], -rewards[:, 0], rewards[:, 1], -rewards[:, 1]), 1))
    values = torch.arange(24.0).view(1, 4, 2, 3)
    want = torch.stack((values[0, 0, 0], -values[0, 1, 0], values[0, 2, 1], -values[0, 3, 1])).unsqueeze(0)
    assert torch.equal(own_values(values), want)


def test_an_action_stays_unless_another_is_better_by_more_than_rounding() -> None:
    eps = torch.finfo(torch.float64).eps
    q_value = torch.tensor([[[1.0, 1.0 + 8 * eps], [1.0, 1.0 + 1e-9], [3.0, -1.0], [2.0, 2.0]]], dtype=torch.float64)
    actions = torch.tensor([[0, 0, 1, 1]])
    assert improve(q_value.unsqueeze(0), actions.unsqueeze(0)).tolist() == [[[0, 1, 0, 1]]]
    values = q_value.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    assert improvable(q_value.unsqueeze(0), values.unsqueeze(0)).tolist() == [True]
    tied = torch.tensor([1.0, 1.0 + 1e-9, 3.0, 2.0], dtype=torch.float64)
    assert improvable(q_value.unsqueeze(0), tied.view(1, 1, 4)).tolist() == [False]


def test_what_counts_as_rounding_grows_with_the_values() -> None:
    small, large = rounding(torch.tensor([0.0, 0.0])), rounding(torch.tensor([-1e6, 3.0]))
    assert small.shape == large.shape == (1,)
    assert 0 < small < 1e-4
    assert large.item() == pytest.approx(small.item() * (1 + 1e6), rel=1e-6)


@pytest.mark.parametrize(
    ("closed", "want"),
    [
        ([False, False, False, False], None),
        ([True, False, False, False, False], None),
        ([True, False, True, False], [1, 3]),
        ([True, True, True], []),
    ],
)
def test_work_goes_on_without_the_closed_once_they_are_many(closed: list[bool], want: list[int] | None) -> None:
    got = still_open(torch.tensor(closed))
    assert (got is None) if want is None else (got is not None and got.tolist() == want)


def test_on_an_accelerator_all_go_on_because_nobody_waits_for_an_answer(fake_gpu: str) -> None:
    assert still_open(torch.ones(4, dtype=torch.bool, device=fake_gpu)) is None

"""Gymnasium's tables against walks through the environments, optimal returns known by hand, and a table of our own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from lib.starc import TabularProcess, gymnasium_process, return_range

NAMES = ["FrozenLake-v1", "CliffWalking-v1", "Taxi-v4"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reachable_only", [True, False])
def test_walks_through_the_environment_are_walks_through_the_process(name: str, reachable_only: bool) -> None:
    got = gymnasium_process(name, reachable_only=reachable_only)
    assert {x.dtype for x in (got.P, got.R, got.initial)} == {torch.float64}
    torch.testing.assert_close(got.P.sum(-1), torch.ones(got.P.shape[:2], dtype=torch.float64))
    assert (got.P >= 0).all()
    assert got.initial.sum().item() == pytest.approx(1, rel=1e-14)
    place = {number: i for i, number in enumerate(got.states.tolist())}
    assert len(place) == len(got.P)
    environment = gymnasium.make(name)
    rng = np.random.default_rng(0)
    for seed in range(20):
        state, _ = environment.reset(seed=seed)
        assert got.initial[place[int(state)]] > 0
        for _ in range(30):
            action = int(rng.integers(got.P.shape[1]))
            following, reward, ends, _, _ = environment.step(action)
            target = -1 if ends else int(following)
            here, there = place[int(state)], place[target]
            assert got.P[here, action, there] > 0
            assert got.R[here, action, there].item() == pytest.approx(float(reward), rel=1e-14)
            if ends:
                break
            state = following
    environment.close()


def test_the_end_is_the_last_state_and_nothing_leaves_it_or_is_earned_there() -> None:
    for name in NAMES:
        got = gymnasium_process(name)
        assert got.states[-1] == -1
        assert got.P[-1, :, -1].tolist() == [1.0] * got.P.shape[1]
        assert (got.R[-1] == 0).all()
        assert got.initial[-1] == 0


def test_all_states_that_are_kept_can_be_reached() -> None:
    full, kept = (gymnasium_process("FrozenLake-v1", reachable_only=only) for only in (False, True))
    assert full.states.tolist() == [*range(16), -1]
    assert kept.states.tolist() == [0, 1, 2, 3, 4, 6, 8, 9, 10, 13, 14, -1]  # holes and goal end an episode: no visit
    index = [full.states.tolist().index(x) for x in kept.states.tolist()]
    assert torch.equal(kept.P, full.P[index][:, :, index])
    assert torch.equal(kept.R, full.R[index][:, :, index])


@pytest.mark.parametrize("gamma", [0.5, 0.99])
def test_optimal_returns_are_those_of_the_shortest_paths(gamma: float) -> None:
    lake = gymnasium_process("FrozenLake-v1", is_slippery=False)  # six moves from corner to corner, and 1 for the last
    found = return_range(lake.R, lake.P, gamma, lake.initial)
    assert found.highest.item() == pytest.approx(gamma**5, rel=1e-12)
    assert found.lowest == 0
    cliff = gymnasium_process("CliffWalking-v1")  # up, eleven to the right, down; every move costs 1
    found = return_range(cliff.R, cliff.P, gamma, cliff.initial)
    assert found.highest.item() == pytest.approx(-(1 - gamma**13) / (1 - gamma), rel=1e-12)
    assert found.lowest.item() == pytest.approx(-100 / (1 - gamma), rel=1e-12)  # back and forth off the cliff


class Table(gymnasium.Env[Any, Any]):
    """Two states; one transition is listed twice with different rewards, one state is out of reach."""

    P = {  # noqa: RUF012
        0: {0: [(0.25, 0, 4.0, False), (0.25, 0, 8.0, False), (0.5, 1, 1.0, True)], 1: [(1.0, 0, -1.0, False)]},
        1: {0: [(1.0, 1, 5.0, False)], 1: [(1.0, 0, 5.0, True)]},
    }
    initial_state_distrib = np.array([1.0, 0.0])
    observation_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.Discrete(2)


@pytest.fixture
def table() -> Iterator[str]:
    """The name under which the table is registered."""
    gymnasium.register("starc-table-v0", entry_point=lambda **_: Table(), disable_env_checker=True)
    yield "starc-table-v0"
    del gymnasium.registry["starc-table-v0"]


def test_a_transition_listed_twice_has_the_sum_of_chances_and_the_mean_reward(table: str) -> None:
    got = gymnasium_process(table)
    assert isinstance(got, TabularProcess)
    assert got.states.tolist() == [0, -1]
    assert got.P.tolist() == [[[0.5, 0.5], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]
    assert got.R.tolist() == [[[6.0, 1.0], [-1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
    assert got.initial.tolist() == [1.0, 0.0]
    assert gymnasium_process(table, reachable_only=False).R[1, :, 1:].tolist() == [[5.0, 0.0], [0.0, 5.0]]


def test_an_environment_without_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="name: got 'CartPole-v1', want an environment with a transition table"):
        gymnasium_process("CartPole-v1")


def test_without_gymnasium_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match="gymnasium is not installed; get it with pip install"):
        gymnasium_process("FrozenLake-v1")

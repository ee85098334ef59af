"""EPIC and DARD against sums over all transitions and numpy's correlations, and what is wrong with both."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.starc import dard_distance, epic_distance, potential_shaping, redistribute, starc_distance

from . import oracle

seeds = st.integers(0, 10**6)


def laws(case: oracle.Case, d_s: np.ndarray, d_a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of EPIC and of DARD on transitions."""
    pairs = d_s[:, None, None] * d_a[:, None]
    return pairs * d_s, pairs * case.P


@pytest.mark.parametrize(("states", "actions"), [(1, 3), (3, 1), (3, 2), (4, 2)])
@pytest.mark.parametrize("gamma", [0.0, 0.9])
def test_both_are_pearson_distances_of_the_rewards_summed_term_by_term(
    states: int, actions: int, gamma: float, device: str
) -> None:
    case = oracle.case(0, states, actions, gamma)
    R1, R2, P = (torch.tensor(x, device=device) for x in (case.R1, case.R2, case.P))
    for d_s, d_a, extra in (
        (np.full(states, 1 / states), np.full(actions, 1 / actions), ()),
        (case.initial, case.policy[0], (case.initial, case.policy[0])),
    ):
        epic_law, dard_law = laws(case, d_s, d_a)
        epic, dard = (
            [oracle.epic_reward(R, gamma, d_s, d_a) for R in (case.R1, case.R2)],
            [oracle.dard_reward(R, case.P, gamma, d_a) for R in (case.R1, case.R2)],
        )
        got = epic_distance(R1, R2, gamma, *extra).item()
        assert got == pytest.approx(oracle.pearson_distance(epic[0], epic[1], epic_law), rel=1e-10)
        got = dard_distance(R1, R2, P, gamma, *extra).item()
        assert got == pytest.approx(oracle.pearson_distance(dard[0], dard[1], dard_law), rel=1e-10)
        if not extra:
            correlation = np.corrcoef(epic[0].ravel(), epic[1].ravel())[0, 1]
            assert epic_distance(R1, R2, gamma).item() == pytest.approx(math.sqrt((1 - correlation) / 2), rel=1e-10)


@settings(max_examples=30)
@given(seeds, st.floats(0, 0.99))
def test_epic_is_half_the_standardised_distance_under_its_law(seed: int, gamma: float) -> None:
    case = oracle.case(seed, 4, 3, gamma)
    d_s, d_a = case.initial, case.policy[0]
    standardised = starc_distance(
        case.R1, case.R2, case.P, gamma, "epic", weights=laws(case, d_s, d_a)[0], policy=d_a, state_weights=d_s
    )
    torch.testing.assert_close(epic_distance(case.R1, case.R2, gamma, d_s, d_a), standardised / 2, rtol=1e-10, atol=0)
    unweighted = starc_distance(case.R1, case.R2, case.P, gamma, "epic", policy=d_a, state_weights=d_s)
    assert abs(epic_distance(case.R1, case.R2, gamma, d_s, d_a) - unweighted / 2) > 1e-6


@settings(max_examples=40)
@given(seeds, st.floats(0, 0.99), st.floats(1e-3, 1e3), st.booleans())
def test_both_are_pseudometrics_in_zero_to_one_that_shaping_and_scale_do_not_change(
    seed: int, gamma: float, scale: float, epic: bool
) -> None:
    case = oracle.case(seed, 4, 3, gamma)
    third = np.random.default_rng(seed).normal(size=case.P.shape)

    def distance(x: np.ndarray, y: np.ndarray) -> float:
        return (epic_distance(x, y, gamma) if epic else dard_distance(x, y, case.P, gamma)).item()

    same = scale * potential_shaping(case.R1, 3 * case.initial, gamma).numpy() + 7
    assert distance(case.R1, same) < 1e-10
    assert distance(case.R1, case.R1) == 0
    assert distance(same, case.R2) == pytest.approx(distance(case.R1, case.R2), abs=1e-10)
    assert distance(case.R1, -same) == pytest.approx(1, rel=1e-10)
    assert 0 < distance(case.R1, case.R2) == pytest.approx(distance(case.R2, case.R1), rel=1e-12)
    assert distance(case.R1, case.R2) <= 1 + 1e-12
    assert distance(case.R1, third) <= distance(case.R1, case.R2) + distance(case.R2, third) + 1e-12


@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.999])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_constants_are_at_zero_from_each_other_and_at_one_half_from_the_rest(gamma: float, dtype: torch.dtype) -> None:
    case = oracle.case(2, 4, 3, gamma)
    R, P = torch.tensor(case.R1, dtype=dtype), torch.tensor(case.P, dtype=dtype)
    constant = torch.full_like(R, 3.0)
    shaped = potential_shaping(constant, torch.tensor([1.0, -2.0, 5.0, 0.0], dtype=dtype), gamma)
    for one in (constant, shaped, 0 * R, 1e5 * shaped):
        for distance in (partial(epic_distance, gamma=gamma), partial(dard_distance, P=P, gamma=gamma)):
            assert distance(one, constant) == 0
            assert distance(shaped, one) == 0
            assert distance(R, one).item() == distance(one, R).item() == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize(("dtype", "share"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_a_reward_is_constant_up_to_the_stated_share_of_its_own_size(dtype: torch.dtype, share: float) -> None:
    case = oracle.case(3)
    seen = oracle.epic_reward(case.R1, 0.9, np.full(4, 0.25), np.full(3, 1 / 3))
    unseen = oracle.shaped(np.zeros(case.P.shape), case.R2[0, 0], 0.9)
    unit = np.linalg.norm(unseen) / np.linalg.norm(seen) * seen
    for part, want in ((0.5, 0.5), (2.0, 0.0)):
        near = torch.tensor(unseen + part * share * unit, dtype=dtype)
        got = epic_distance(near, torch.tensor(seen, dtype=dtype), 0.9)
        assert got.item() == pytest.approx(want, abs=0.05 if part == 2 and dtype == torch.float32 else 1e-6)


def test_neither_is_complete_a_redistribution_is_far_away() -> None:
    case = oracle.case(4, 6, 3, zeros=False)
    moved = redistribute(case.R1, case.P, 3 * case.R2)
    assert epic_distance(case.R1, moved, 0.9) > 0.3
    assert dard_distance(case.R1, moved, case.P, 0.9) > 0.3


def test_neither_is_sound_a_common_reward_where_nothing_happens_hides_opposites() -> None:
    ring, rng = np.zeros((6, 3, 6)), np.random.default_rng(0)
    for s, a in np.ndindex(6, 3):
        ring[s, a, (s + a) % 6] = ring[s, a, (s + a + 1) % 6] = 0.5
    R, noise = rng.normal(size=(2, 6, 3, 6))
    impossible = np.where(ring == 0, noise, 0.0)
    for factor in (1e2, 1e4):
        one, two = R + factor * impossible, -R + factor * impossible
        for distance in (partial(epic_distance, gamma=0.9), partial(dard_distance, P=ring, gamma=0.9)):
            assert distance(one, two) < 10 / factor
            assert distance(R, -R).item() == pytest.approx(1, rel=1e-10)


def test_gradients_are_those_of_finite_differences() -> None:
    case = oracle.case(5, 2, 2, zeros=False)
    R1, R2, P, gamma, d_s, d_a = (
        torch.tensor(x, requires_grad=True)
        for x in (
            case.R1,
            case.R2,
            np.log(case.P),
            np.array(case.gamma),
            np.log(case.initial),
            np.log(case.policy[0]),
        )
    )

    def epic(R1: torch.Tensor, R2: torch.Tensor, g: torch.Tensor, s: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return epic_distance(R1, R2, g, s.softmax(-1), a.softmax(-1))

    def dard(P: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        R1, R2, g, s, a = others
        return dard_distance(R1, R2, P.softmax(-1), g, s.softmax(-1), a.softmax(-1))

    assert torch.autograd.gradcheck(epic, (R1, R2, gamma, d_s, d_a))
    assert torch.autograd.gradcheck(dard, (P, R1, R2, gamma, d_s, d_a))


@pytest.mark.parametrize(
    "shapes",
    [  # of the batch axes of R1, R2, P, gamma, state_weights, action_weights
        ((7,), (), (), (), (), ()),
        ((), (7,), (), (), (), ()),
        ((), (), (7,), (), (), ()),
        ((), (), (), (7,), (), ()),
        ((), (), (), (), (7,), ()),
        ((), (), (), (), (), (7,)),
        ((1, 4), (4,), (3, 1), (), (), ()),
        ((1, 4), (1,), (2, 1, 1), (3, 1), (4,), (2, 3, 1)),
        ((), (1,), (), (1, 1), (), ()),
        ((0,), (), (), (), (), ()),
    ],
)
def test_leading_axes_of_all_arguments_broadcast(shapes: tuple[tuple[int, ...], ...]) -> None:
    rng = np.random.default_rng(0)
    R1, R2 = (rng.normal(size=(*shapes[i], 3, 2, 3)) for i in (0, 1))
    P, gamma = rng.dirichlet(np.ones(3), size=(*shapes[2], 3, 2)), rng.uniform(0, 0.9, shapes[3])
    d_s, d_a = rng.dirichlet(np.ones(3), size=shapes[4]), rng.dirichlet(np.ones(2), size=shapes[5])
    batch, without_P = np.broadcast_shapes(*shapes), np.broadcast_shapes(*shapes[:2], *shapes[3:])
    epic, dard = epic_distance(R1, R2, gamma, d_s, d_a), dard_distance(R1, R2, P, gamma, d_s, d_a)
    assert (epic.shape, dard.shape) == (without_P, batch)
    R1, R2, P = (np.broadcast_to(x, (*batch, 3, 2, 3)) for x in (R1, R2, P))
    gamma, epic = np.broadcast_to(gamma, batch), epic.broadcast_to(batch)
    d_s, d_a = (np.broadcast_to(x, (*batch, x.shape[-1])) for x in (d_s, d_a))
    for i in np.ndindex(batch):
        alone = epic_distance(R1[i], R2[i], float(gamma[i]), d_s[i], d_a[i])
        torch.testing.assert_close(epic[i], alone, rtol=1e-11, atol=0)
        alone = dard_distance(R1[i], R2[i], P[i], float(gamma[i]), d_s[i], d_a[i])
        torch.testing.assert_close(dard[i], alone, rtol=1e-11, atol=0)


def test_vmap_over_pairs_is_the_batch() -> None:
    rng = np.random.default_rng(0)
    R1, R2 = torch.tensor(rng.normal(size=(2, 5, 3, 2, 3)))
    P = torch.tensor(rng.dirichlet(np.ones(3), size=(5, 3, 2)))

    def epic(R1: torch.Tensor, R2: torch.Tensor) -> torch.Tensor:
        return epic_distance(R1, R2, 0.9)

    def dard(R1: torch.Tensor, R2: torch.Tensor, P: torch.Tensor) -> torch.Tensor:
        return dard_distance(R1, R2, P, 0.9)

    torch.testing.assert_close(torch.func.vmap(epic)(R1, R2), epic(R1, R2))
    torch.testing.assert_close(torch.func.vmap(dard)(R1, R2, P), dard(R1, R2, P))


def test_float32_is_kept_and_agrees_with_float64() -> None:
    case = oracle.case(6, 5, 3, 0.95)
    R1, R2, P = (torch.tensor(x, dtype=torch.float32) for x in (case.R1, case.R2, case.P))
    single = epic_distance(R1, R2, 0.95), dard_distance(R1, R2, P, 0.95)
    double = epic_distance(case.R1, case.R2, 0.95), dard_distance(case.R1, case.R2, case.P, 0.95)
    for one, two in zip(single, double, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), two, rtol=0, atol=1e-6)
    assert epic_distance(R1.tolist(), R2.tolist(), 0.95).dtype == torch.float64
    assert dard_distance(R1.long() + 1, R2.long(), P.double(), 0).dtype == torch.float64


def test_both_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    R1, P = torch.rand(5, 4, 3, 4, device=fake_gpu), torch.rand(4, 3, 4, device=fake_gpu)
    gamma, d_s, d_a = (torch.rand(shape, device=fake_gpu) for shape in ((2, 1), (4,), (3,)))
    for extra in ((), (d_s, d_a), (None, [0.2, 0.3, 0.5])):
        for got in (epic_distance(R1, R1[0], gamma, *extra), dard_distance(R1, R1[0], P, gamma, *extra)):
            assert (str(got.device), got.dtype, got.shape) == (fake_gpu, torch.float32, (2, 5))


HALF, PAIR = [[[0.5, 0.5], [1.0, 0.0]]] * 2, [[[0.0, 1.0], [0.0, 0.0]]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"R1": [[[0.0, math.nan], [0.0, 0.0]]] * 2}, "R1: got nan, want finite numbers"),
        ({"R2": [[[0.0, math.inf], [0.0, 0.0]]] * 2}, "R2: got inf, want finite numbers"),
        ({"R2": [[[0.0]]]}, r"R2: got shape \(1, 1, 1\), want \(\*batch, 2, 2, 2\)"),
        ({"gamma": 1.0}, "gamma: got 1, want 0 <= gamma < 1"),
        ({"state_weights": [0.5, 0.6]}, "state_weights: got 1.1, want rows that sum to one"),
        ({"state_weights": [1.0]}, r"state_weights: got shape \(1,\), want \(\*batch, 2\)"),
        ({"action_weights": [1.5, -0.5]}, "action_weights: got -0.5, want no negative entry"),
        ({"action_weights": [0.5, 0.25, 0.25]}, r"action_weights: got shape \(3,\), want \(\*batch, 2\)"),
        ({"action_weights": [math.nan, 0.5]}, "action_weights: got nan"),
        (
            {"R1": [PAIR] * 2, "gamma": [0.1] * 3},
            r"R1 \(2,\), R2 \(\).*gamma \(3,\).*: got shapes that do not broadcast",
        ),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"R1": PAIR, "R2": PAIR, "gamma": 0.5} | change
    with pytest.raises(ValueError, match=message):
        epic_distance(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        dard_distance(P=HALF, **arguments)  # type: ignore[arg-type]


def test_epic_names_the_reward_that_sets_the_shape_because_it_is_given_no_dynamics() -> None:
    with pytest.raises(ValueError, match=r"R1: got shape \(1, 1, 2\), want \(\*batch, S, A, S\)"):
        epic_distance([[[0.0, 1.0]]], PAIR, 0.5)
    with pytest.raises(ValueError, match=r"R2: got shape \(1, 1, 1\), want \(\*batch, 2, 2, 2\) as R1 has it"):
        epic_distance(PAIR, [[[0.0]]], 0.5)
    with pytest.raises(ValueError, match=r"R1: got shape \(1, 1, 1\), want \(\*batch, 2, 2, 2\) as P has it"):
        dard_distance([[[0.0]]], PAIR, HALF, 0.5)

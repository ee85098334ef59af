"""Random decision processes by their recipe, and the matrix of shaping by loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.starc import expected_reward, occupancy, potential_shaping, random_mdp, shaping_matrix

from . import oracle


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("threshold", "sharpness"), [(1.0, 1.0), (0.0, 3.0), (2.5, 0.5), (-math.inf, 1.0)])
def test_successors_above_the_threshold_share_a_softmax_and_others_have_exactly_nothing(
    threshold: float, sharpness: float
) -> None:
    got = random_mdp(9, 4, batch=(2, 3), threshold=threshold, sharpness=sharpness, generator=draws(0)).numpy()
    scores = torch.randn(2, 3, 9, 4, 9, generator=draws(0), dtype=torch.float64).numpy()
    for row, z in zip(got.reshape(-1, 9), scores.reshape(-1, 9), strict=True):
        chosen = [i for i in range(9) if z[i] > threshold or i == z.argmax()]
        total = sum(math.exp(sharpness * z[i]) for i in chosen)
        want = [math.exp(sharpness * z[i]) / total if i in chosen else 0.0 for i in range(9)]
        np.testing.assert_allclose(row, want, rtol=1e-14, atol=0)  # atol 0: impossible is exactly 0


def test_a_sixth_of_the_successors_exceed_a_score_of_one() -> None:
    share = (random_mdp(100, 10, generator=draws(1)) > 0).double().mean().item()
    assert share == pytest.approx(1 - 0.8413447, abs=5 * math.sqrt(0.16 * 0.84 / 1e5))


def test_extreme_settings_leave_one_successor_or_make_all_equal() -> None:
    one = random_mdp(6, 3, threshold=math.inf, generator=draws(2))
    assert one.sort().values.tolist() == [[[0, 0, 0, 0, 0, 1]] * 3] * 6
    flat = random_mdp(4, 3, threshold=-math.inf, sharpness=0.0, generator=draws(2))
    assert torch.equal(flat, torch.full((4, 3, 4), 0.25, dtype=torch.float64))
    assert random_mdp(1, 1, generator=draws(2)).tolist() == [[[1.0]]]


def test_the_generator_decides_and_dtype_and_device_are_those_asked_for(device: str) -> None:
    assert torch.equal(random_mdp(4, 2, generator=draws(3)), random_mdp(4, 2, generator=draws(3)))
    assert not torch.equal(random_mdp(4, 2, generator=draws(3)), random_mdp(4, 2, generator=draws(4)))
    on_device = torch.Generator(device).manual_seed(0)
    for got in (random_mdp(4, 2, generator=on_device), random_mdp(4, 2, device=device)):
        assert got.device.type == device
        assert got.dtype == torch.float64
        torch.testing.assert_close(got.sum(-1).cpu(), torch.ones(4, 2, dtype=torch.float64))
    single = random_mdp(40, 2, batch=[3], dtype=torch.float32, generator=draws(3))
    assert (single.dtype, single.shape) == (torch.float32, (3, 40, 2, 40))
    assert occupancy(single, 0.9).shape == (3, 40, 2)  # rows sum to one within what the checks of float32 allow


@pytest.mark.parametrize(("states", "actions"), [(1, 1), (1, 2), (4, 1), (5, 3)])
def test_the_shaping_matrix_is_that_of_loops_and_has_independent_columns(
    states: int, actions: int, device: str
) -> None:
    case = oracle.case(0, states, actions, 0.9)
    got = shaping_matrix(torch.tensor(case.P, device=device), 0.9).cpu().numpy()
    assert got.shape == (states, actions, states)
    want = oracle.flow_matrix(case.P, 0.9)
    np.testing.assert_allclose(got.reshape(want.shape), want, rtol=1e-14, atol=0)
    assert np.linalg.matrix_rank(want) == states
    assert shaping_matrix(case.P, 0.0).numpy().sum() == states * actions


def test_shaping_takes_it_from_the_expected_reward() -> None:
    case = oracle.case(1)
    E = shaping_matrix(case.P, case.gamma)
    lost = expected_reward(case.R1, case.P) - expected_reward(potential_shaping(case.R1, case.initial, 0.9), case.P)
    torch.testing.assert_close(E @ torch.tensor(case.initial), lost, rtol=0, atol=1e-14)


def test_processes_and_discounts_broadcast() -> None:
    P, gamma = random_mdp(3, 2, batch=(4,), generator=draws(5)), torch.tensor([[0.1], [0.9]], dtype=torch.float64)
    got = shaping_matrix(P, gamma)
    assert got.shape == (2, 4, 3, 2, 3)
    for i, j in np.ndindex(2, 4):
        torch.testing.assert_close(got[i, j], shaping_matrix(P[j], gamma[i, 0].item()))
    assert shaping_matrix(P[0].float(), 0.5).dtype == torch.float32


def test_gradients_are_those_of_finite_differences() -> None:
    logits = torch.randn(3, 2, 3, dtype=torch.float64, generator=draws(6)).requires_grad_()
    gamma = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, g: shaping_matrix(z.softmax(-1), g), (logits, gamma))


def test_both_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    P = random_mdp(4, 3, batch=(5,), dtype=torch.float32, device=fake_gpu)
    E = shaping_matrix(P, torch.rand(5, device=fake_gpu))
    assert {str(P.device), str(E.device)} == {fake_gpu}
    assert P.dtype == E.dtype == torch.float32


def test_a_process_needs_a_state_and_a_batch_a_size() -> None:
    with pytest.raises(ValueError, match="states: got 0, want a whole number >= 1"):
        random_mdp(0, 1)
    with pytest.raises(ValueError, match="batch: got -1, want a whole number >= 0"):
        random_mdp(1, 1, batch=(-1,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": math.nan}, "threshold: got nan, want a number or an infinity"),
        ({"sharpness": math.inf}, "sharpness: got inf, want a finite number"),
        ({"sharpness": math.nan}, "sharpness: got nan, want a finite number"),
        ({"dtype": torch.int64}, "dtype: got torch.int64, want a floating one"),
    ],
)
def test_scores_are_numbers(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_mdp(2, 2, **change)  # type: ignore[arg-type]


def test_a_process_needs_an_action() -> None:
    with pytest.raises(ValueError, match="actions: got -2, want a whole number >= 1"):
        random_mdp(1, -2)


@pytest.mark.parametrize(
    ("P", "gamma", "message"),
    [
        ([[[1.0, 0.0]]], 0.5, r"P: got shape \(1, 1, 2\), want \(\*batch, S, A, S\)"),
        ([[[]]], 0.5, r"P: got shape \(1, 1, 0\), want"),
        ([[[0.9]]], 0.5, "P: got 0.9, want rows that sum to one"),
        ([[[math.nan]]], 0.5, "P: got nan"),
        ([[[1.0]]], -0.1, "gamma: got -0.1, want 0 <= gamma < 1"),
        ([[[[1.0]]]] * 2, [0.1] * 3, r"P \(2,\), gamma \(3,\): got shapes that do not broadcast"),
    ],
)
def test_bad_dynamics_and_discounts_are_named(P: list[float], gamma: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shaping_matrix(P, gamma)

"""The front door of all functions: dtypes and devices, and the mistakes that every one of them names."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lib import starc
from lib.checks import shared_kind
from lib.starc.setting import read_policy, read_weights, trivial_share

Call = Callable[[Any, Any], object]

HALF: list[Any] = [[[0.5, 0.5], [1.0, 0.0]]] * 2
R: list[Any] = [[[0.0, 1.0], [0.0, 0.0]]] * 2
OF_P: dict[str, Callable[[Any], object]] = {
    "expected_reward": lambda P: starc.expected_reward(R, P),
    "redistribute": lambda P: starc.redistribute(R, P, R),
}
OF_P_AND_GAMMA: dict[str, Call] = {
    "shaping_matrix": lambda P, g: starc.shaping_matrix(P, g),
    "occupancy": lambda P, g: starc.occupancy(P, g),
    "certified_constants": lambda P, g: starc.certified_constants(P, g),
    "policy_value": lambda P, g: starc.policy_value(R, P, g),
    "return_range": lambda P, g: starc.return_range(R, P, g),
    "optimal_policy_regret": lambda P, g: starc.optimal_policy_regret(R, R, P, g),
    "worst_case_regret": lambda P, g: starc.worst_case_regret(R, R, P, g),
    "dard_distance": lambda P, g: starc.dard_distance(R, R, P, g),
    "starc_distance": lambda P, g: starc.starc_distance(R, R, P, g),
} | {f"canonicalise {x}": lambda P, g, x=x: starc.canonicalise(R, P, g, x) for x in ("none", "val", "minimal", "epic")}
OF_GAMMA: dict[str, Callable[[Any], object]] = {
    "potential_shaping": lambda g: starc.potential_shaping(R, [0.0, 1.0], g),
    "epic_distance": lambda g: starc.epic_distance(R, R, g),
    "sparse_val_canonical": lambda g: starc.sparse_val_canonical(R, [[[0, 1]] * 2] * 2, HALF, g),
}
WITH_P = OF_P | {name: lambda P, call=call: call(P, 0.5) for name, call in OF_P_AND_GAMMA.items()}
WITH_GAMMA = OF_GAMMA | {name: lambda g, call=call: call(HALF, g) for name, call in OF_P_AND_GAMMA.items()}


GAMMAS: list[tuple[Any, str]] = [
    (1, "gamma: got 1, want 0 <= gamma < 1"),
    (1.0, "gamma: got 1, want 0 <= gamma < 1"),
    (-0.1, "gamma: got -0.1, want 0 <= gamma < 1"),
    (1.5, "gamma: got 1.5, want 0 <= gamma < 1"),
    (math.nan, "gamma: got nan, want 0 <= gamma < 1"),
    (math.inf, "gamma: got inf, want 0 <= gamma < 1"),
    (np.float64(1.0), "gamma: got 1, want 0 <= gamma < 1"),
    (np.array(-2.0), "gamma: got -2, want 0 <= gamma < 1"),
    (torch.tensor(math.nan), "gamma: got nan, want 0 <= gamma < 1"),
    (torch.tensor(1), "gamma: got 1, want 0 <= gamma < 1"),
    ("high", "gamma: got str 'high', want real numbers"),
]


@pytest.mark.parametrize("name", WITH_GAMMA)
def test_a_discount_outside_zero_to_one_is_named_by_all(name: str) -> None:
    for gamma, message in GAMMAS:
        with pytest.raises(ValueError, match=message):
            WITH_GAMMA[name](gamma)


@pytest.mark.parametrize("name", sorted(set(WITH_GAMMA) - {"certified_constants"}))
def test_one_bad_discount_of_a_batch_is_enough(name: str) -> None:
    for gamma in ([0.5, 1.0], [[0.5], [math.nan]]):
        with pytest.raises(ValueError, match=r"gamma: got (1|nan), want 0 <= gamma < 1"):
            WITH_GAMMA[name](gamma)


DYNAMICS: list[tuple[Any, str]] = [
    ([[0.5, 0.5], [1.0, 0.0]], r"P: got shape \(2, 2\), want \(\*batch, S, A, S\)"),
    (0.5, r"P: got shape \(\), want \(\*batch, S, A, S\)"),
    ([[[0.5, 0.5], [1.0, 0.0]]] * 3, r"P: got shape \(3, 2, 2\), want \(\*batch, S, A, S\)"),
    (np.zeros((0, 2, 0)), r"P: got shape \(0, 2, 0\), want \(\*batch, S, A, S\)"),
    (np.zeros((2, 0, 2)), r"P: got shape \(2, 0, 2\), want \(\*batch, S, A, S\)"),
    ([[[0.5, 0.5], [1.0, 0.01]]] * 2, "P: got 1.01, want rows that sum to one"),
    ([[[0.5, 0.5], [0.0, 0.0]]] * 2, "P: got 0, want rows that sum to one"),
    ([[[0.5, 0.5], [1.5, -0.5]]] * 2, "P: got -0.5, want no negative entry"),
    ([[[0.5, 0.5], [math.nan, 1.0]]] * 2, "P: got nan, want rows that sum to one"),
    ([[[0.5, 0.5], [math.inf, 0.0]]] * 2, "P: got inf, want rows that sum to one"),
    ("chain", "P: got str 'chain', want real numbers"),
]


@pytest.mark.parametrize("name", WITH_P)
def test_bad_dynamics_are_named_by_all(name: str) -> None:
    for P, message in DYNAMICS:
        with pytest.raises(ValueError, match=message):
            WITH_P[name](P)


@pytest.mark.parametrize(
    ("slack", "dtype", "fine"),
    [(5e-7, np.float64, True), (2e-6, np.float64, False), (5e-6, np.float32, True), (2e-3, np.float32, False)],
)
def test_rows_may_miss_one_by_what_rounding_explains(slack: float, dtype: type, fine: bool) -> None:
    P = torch.tensor(np.array([[[0.5, 0.5 + slack]]] * 2, dtype=dtype))
    if fine:
        assert starc.occupancy(P, 0.5).shape == (2, 1)
        return
    with pytest.raises(ValueError, match="want rows that sum to one"):
        starc.occupancy(P, 0.5)


def test_the_widest_dtype_of_the_tensors_and_the_first_device_decide() -> None:
    single, double, whole = torch.zeros(1), torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    assert shared_kind(single, 0.5, [1.0], None).dtype == torch.float32
    assert shared_kind(single, double).dtype == torch.float64
    assert shared_kind(whole, single).dtype == torch.float32
    assert shared_kind(whole).dtype == shared_kind([1.0], 2, np.zeros(1, dtype=np.float32)).dtype == torch.float64
    assert shared_kind(torch.zeros(1, device="meta"), 1.0).device.type == "meta"


def test_the_share_that_counts_as_nothing_depends_on_the_dtype() -> None:
    shares = [trivial_share(torch.zeros((), dtype=x)) for x in (torch.float64, torch.float32, torch.bfloat16)]
    assert shares == [1e-9, 1e-4, 1e-2]


def test_defaults_of_policies_and_weights() -> None:
    P = torch.full((3, 2, 3), 1 / 3)
    assert torch.equal(read_policy(None, P), torch.full((3, 2), 0.5))
    assert read_weights(None, P) is None
    weights = read_weights([[[1.0] * 3] * 2] * 3, P)
    assert weights is not None
    assert weights.dtype == torch.float32
    with pytest.raises(ValueError, match="weights: got 0, want at least one positive weight"):
        read_weights(torch.zeros(3, 2, 3), P)


def test_rewards_whose_sums_overflow_are_finite_all_the_same() -> None:
    large = [[[1e308, 1e308], [0.0, 0.0]]] * 2
    assert starc.expected_reward(large, HALF)[0, 0] == 1e308


LIGHT = sorted(
    set(OF_P_AND_GAMMA) - {"certified_constants", "return_range", "optimal_policy_regret", "worst_case_regret"}
)


@pytest.mark.parametrize("name", LIGHT)
def test_values_are_not_read_on_an_accelerator(name: str, fake_gpu: str) -> None:
    got = OF_P_AND_GAMMA[name](torch.rand(2, 2, 2, device=fake_gpu) - 3, torch.rand((), device=fake_gpu) + 3)
    tensors = [got] if isinstance(got, torch.Tensor) else list(vars(got).values())
    assert {str(x.device) for x in tensors} == {fake_gpu}


@pytest.mark.parametrize("gamma", [3, -0.5, 1.0, math.nan])
def test_a_number_is_read_for_an_accelerator_too(gamma: float, fake_gpu: str) -> None:
    with pytest.raises(ValueError, match=r"gamma: got .*, want 0 <= gamma < 1"):
        starc.occupancy(torch.rand(2, 2, 2, device=fake_gpu), gamma)

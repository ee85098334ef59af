"""Exact risks of the overlap model against the table of labels and predictions, and the bound against searches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.temperature_scaling import overlap_risks, temperature_lower_bound

from . import oracle

MODELS = [(0.4, 10, 2), (0.6, 12, 3), (0.5, 100, 2), (0.05, 4, 4), (1.0, 6, 2), (0.9, 2, 2), (1.0, 9, 3)]
PARTS = ("error", "bayes_nll", "uniform_nll", "scaled_nll", "recalibrated_nll", "calibration_gap", "grouping_gap")


def binary_entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


@pytest.mark.parametrize(("overlap", "k", "m"), MODELS)
def test_risks_are_those_of_the_table_of_labels_and_predictions(overlap: float, k: int, m: int, device: str) -> None:
    want = oracle.risks(overlap, k, m)
    got = overlap_risks(torch.tensor(overlap, dtype=torch.float64, device=device), k, group_size=m)
    for name in ("error", "bayes_nll", "uniform_nll", "scaled_nll", "recalibrated_nll"):
        assert getattr(got, name).item() == pytest.approx(getattr(want, name), rel=1e-11, abs=1e-13), name
    assert got.calibration_gap.item() == pytest.approx(want.scaled_nll - want.recalibrated_nll, abs=1e-12)
    assert got.grouping_gap.item() == pytest.approx(want.recalibrated_nll - want.bayes_nll, abs=1e-12)
    assert got.scaled_logit_gap.item() == pytest.approx(want.scaled_logit_gap, rel=1e-6)


def test_risks_agree_with_a_nearest_neighbour_simulation() -> None:
    rng = np.random.default_rng(0)
    k, overlap, n = 10, 0.4, 200_000
    label, common = rng.integers(k, size=n), rng.random(n) < overlap
    guess = np.where(common, label - label % 2 + rng.integers(2, size=n), label)  # the label of a near training point
    error = (guess != label).mean()
    got = overlap_risks(overlap, k)
    spread = math.sqrt(0.2 * 0.8 / n)
    assert abs(error - got.error.item()) < 5 * spread
    gap = got.scaled_logit_gap.item()
    z = gap * np.eye(k)[guess]
    assert oracle.nll_at(1.0, z, label) == pytest.approx(got.scaled_nll.item(), abs=5 * spread * gap)
    assert 1 / oracle.temperature(z, label) == pytest.approx(1.0, abs=0.02)


@settings(max_examples=40)
@given(st.floats(0, 1), st.integers(1, 40), st.integers(2, 6))
def test_risks_are_ordered_and_their_gaps_add_up(overlap: float, groups: int, m: int) -> None:
    got = overlap_risks(overlap, groups * m, group_size=m)
    slack = 1e-12
    assert 0 <= got.bayes_nll <= got.recalibrated_nll + slack
    assert got.recalibrated_nll <= got.scaled_nll + slack
    assert got.scaled_nll <= got.uniform_nll + slack
    assert got.calibration_gap >= -slack
    assert got.grouping_gap >= -slack
    whole = got.bayes_nll + got.grouping_gap + got.calibration_gap
    assert whole.item() == pytest.approx(got.scaled_nll.item(), abs=1e-11)


def test_without_overlap_nothing_is_lost_and_the_best_temperature_is_zero() -> None:
    got = overlap_risks(0.0, 6, group_size=3)
    assert [getattr(got, name).item() for name in PARTS] == [0, 0, math.log(6), 0, 0, 0, 0]
    assert got.scaled_logit_gap.item() == math.inf


def test_where_all_classes_share_all_the_best_temperature_is_infinite() -> None:
    got = overlap_risks(1.0, 5, group_size=5)
    assert got.scaled_logit_gap.item() == pytest.approx(0, abs=1e-12)
    for name in ("bayes_nll", "scaled_nll", "recalibrated_nll"):
        assert getattr(got, name).item() == pytest.approx(math.log(5), rel=1e-14)


def test_grouping_of_two_classes_is_largest_at_two_fifths() -> None:
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64)
    gap = overlap_risks(grid, 2).grouping_gap
    assert grid[gap.argmax()].item() == pytest.approx(0.4, abs=1e-3)
    assert gap.max().item() == pytest.approx(math.log(5 / 4), abs=1e-7)


def test_arguments_broadcast_and_the_batch_is_the_loop() -> None:
    overlap, k, m = np.array([[0.1], [0.7], [1.0]]), np.array([6, 12]), np.array([2, 3])
    got = overlap_risks(overlap, k, group_size=m)
    for i in range(3):
        for j in range(2):
            alone = overlap_risks(float(overlap[i, 0]), int(k[j]), group_size=int(m[j]))
            for name in (*PARTS, "scaled_logit_gap"):
                assert getattr(got, name).shape == (3, 2)
                assert getattr(got, name)[i, j].item() == pytest.approx(getattr(alone, name).item(), abs=1e-14)


def test_numbers_become_float64_and_float32_stays() -> None:
    assert overlap_risks(0.4, 10).scaled_nll.dtype == torch.float64
    assert overlap_risks([0.4, 0.5], [10, 20]).scaled_nll.dtype == torch.float64
    single = overlap_risks(torch.tensor([0.01, 0.4, 0.99]), 100)
    double = overlap_risks([0.01, 0.4, 0.99], 100)
    for name in (*PARTS, "scaled_logit_gap"):
        assert getattr(single, name).dtype == torch.float32
        torch.testing.assert_close(getattr(single, name).double(), getattr(double, name), rtol=3e-6, atol=1e-6)


def test_gradients_in_the_overlap_are_those_of_finite_differences() -> None:
    overlap = torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64, requires_grad=True)

    def parts(overlap: torch.Tensor) -> tuple[torch.Tensor, ...]:
        got = overlap_risks(overlap, 12, group_size=3)
        return tuple(getattr(got, name) for name in ("error", "bayes_nll", "scaled_nll", "grouping_gap"))

    assert torch.autograd.gradcheck(parts, (overlap,))


def test_risks_and_bound_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    overlap = torch.empty(4, device=fake_gpu)
    for got in (overlap_risks(overlap, 10).scaled_nll, temperature_lower_bound(overlap, 10, 2.0)):
        assert str(got.device) == fake_gpu
        assert got.dtype == torch.float32
        assert got.shape == (4,)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"overlap": 1.1}, "overlap"),
        ({"overlap": -0.1}, "overlap"),
        ({"overlap": math.nan}, "overlap"),
        ({"overlap": "much"}, "overlap"),
        ({"n_classes": 1}, "n_classes"),
        ({"n_classes": 2.5}, "n_classes"),
        ({"group_size": 1}, "group_size"),
        ({"group_size": 3}, "group_size"),
        ({"group_size": 20}, "group_size"),
    ],
)
def test_what_is_wrong_with_a_model_is_named(arguments: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
        overlap_risks(**{"overlap": 0.4, "n_classes": 10} | arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [2, 3, 10, 1000])
@pytest.mark.parametrize("error", [0.0, 1e-4, 0.2, 0.45, 0.7, 0.95])
@pytest.mark.parametrize("rho", [1.0, 1.5, 8.0])
def test_the_bound_is_the_minimum_over_temperatures(k: int, error: float, rho: float, device: str) -> None:
    got = temperature_lower_bound(torch.tensor(error, dtype=torch.float64, device=device), k, rho)
    assert got.item() == pytest.approx(oracle.lower_bound(error, k, rho), rel=1e-9, abs=1e-11)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 8))
def test_the_bound_is_never_violated_by_logits(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    n, smallest = 60, rng.uniform(0.1, 3)
    largest = smallest * rng.uniform(1, 5)
    labels, top = rng.integers(k, size=n), rng.integers(k, size=n)
    top = np.where(rng.random(n) < rng.random(), labels, top)
    z = -rng.uniform(smallest, largest, size=(n, k))
    z[np.arange(n), top] = 0
    gaps = -z[z < 0]
    bound = temperature_lower_bound((top != labels).mean(), k, gaps.max() / gaps.min()).item()
    reached = min(oracle.nll_at(1 / T, z, labels) for T in np.geomspace(1e-2, 1e3, 200))
    assert reached >= bound - 1e-12


def test_the_bound_is_attained_where_all_gaps_are_equal() -> None:
    for overlap, k, m in MODELS:
        risks = overlap_risks(overlap, k, group_size=m)
        assert temperature_lower_bound(risks.error, k).item() == pytest.approx(risks.scaled_nll.item(), rel=1e-13)


def test_the_bound_broadcasts_and_keeps_its_kind() -> None:
    error, k, rho = torch.tensor([[0.1], [0.3]]), torch.tensor([2, 10, 100]), 2.0
    got = temperature_lower_bound(error, k, rho)
    assert got.shape == (2, 3)
    assert got.dtype == torch.float32
    for i in range(2):
        for j in range(3):
            alone = oracle.lower_bound(error[i, 0].item(), int(k[j]), rho)
            assert got[i, j].item() == pytest.approx(alone, rel=1e-5)
    assert temperature_lower_bound(0.1, 10, [1.0, 2.0]).dtype == torch.float64


def test_the_bound_falls_with_the_ratio_and_grows_with_the_classes_like_their_logarithm() -> None:
    rho = torch.linspace(1, 30, 100, dtype=torch.float64)
    assert bool((temperature_lower_bound(0.3, 10, rho).diff() < 0).all())
    far, near = temperature_lower_bound(0.3, [10**9 + 1, 10**6 + 1], 2.0)
    assert (far - near).item() == pytest.approx(0.15 * math.log(1e3), rel=1e-12)
    assert binary_entropy(0.15) + 0.15 * math.log(1e6) == pytest.approx(near.item(), rel=1e-12)


def test_the_bound_has_the_gradient_of_finite_differences() -> None:
    error, rho = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in ([0.1, 0.4], [1.5, 4.0]))
    assert torch.autograd.gradcheck(lambda e, r: temperature_lower_bound(e, 10, r), (error, rho))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"error": 1.2}, "error"),
        ({"error": -1e-9}, "error"),
        ({"error": math.nan}, "error"),
        ({"n_classes": 1}, "n_classes"),
        ({"gap_ratio": 0.99}, "gap_ratio"),
        ({"gap_ratio": math.nan}, "gap_ratio"),
        ({"gap_ratio": "large"}, "gap_ratio"),
    ],
)
def test_what_is_wrong_with_a_bound_is_named(arguments: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
        temperature_lower_bound(**{"error": 0.2, "n_classes": 10} | arguments)  # type: ignore[arg-type]

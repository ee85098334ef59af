"""Binned calibration errors against the loop over bins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.temperature_scaling import (
    binned_calibration_error,
    classwise_calibration_error,
    kl_decomposition,
    overlap_risks,
    smooth_calibration_error,
)

from . import oracle
from .cases import predictions

NORMS: tuple[int | str, ...] = (1, 2, "max", "mean")
BINS = ("width", "mass")


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bins", BINS)
@pytest.mark.parametrize("n_bins", [1, 2, 15, 100])
@pytest.mark.parametrize("n", [1, 7, 500])
def test_binned_errors_are_the_loop_over_bins(norm: int | str, bins: str, n_bins: int, n: int, device: str) -> None:
    confidence, outcome = predictions(n, n)
    got = binned_calibration_error(
        *(torch.tensor(x, device=device) for x in (confidence, outcome)),
        n_bins=n_bins,
        bins=bins,
        norm=norm,
    )
    assert got.item() == pytest.approx(oracle.binned_error(confidence, outcome, n_bins, bins, norm), abs=1e-13)


@pytest.mark.parametrize("bins", BINS)
@pytest.mark.parametrize("n", [1, 3, 20, 400])
def test_debiasing_takes_the_variance_of_each_bin_off(bins: str, n: int) -> None:
    for seed in range(5):
        confidence, outcome = predictions(seed, n, 0.0)
        got = binned_calibration_error(confidence, outcome, bins=bins, norm=2, debias=True)
        want = oracle.binned_error(confidence, outcome, 15, bins, 2, True)
        assert got.item() == pytest.approx(want, abs=1e-7 if want == 0 else 1e-10)


def test_debiased_squares_are_right_on_average_and_plain_ones_too_large() -> None:
    rng, n, runs, truth = np.random.default_rng(0), 300, 4000, 0.08
    confidence = np.full((runs, n), 0.7)
    outcome = rng.random((runs, n)) < 0.7 + truth
    plain = binned_calibration_error(confidence, outcome, norm=2) ** 2
    debiased = binned_calibration_error(confidence, outcome, norm=2, debias=True) ** 2
    spread = plain.std().item() / math.sqrt(runs)
    assert abs(debiased.mean().item() - truth**2) < 5 * spread
    assert plain.mean().item() - truth**2 == pytest.approx(0.78 * 0.22 / n, abs=5 * spread)


def test_edges_belong_to_the_bin_below_and_zero_to_the_first() -> None:
    confidence = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    outcome = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    for norm in NORMS:
        got = binned_calibration_error(confidence, outcome, n_bins=5, norm=norm)
        assert got.item() == pytest.approx(oracle.binned_error(confidence, outcome, 5, "width", norm), abs=1e-14)
    apart = binned_calibration_error([0.2, 0.2 + 1e-12], [1, 0], n_bins=5, norm="mean")
    assert apart.item() == pytest.approx((0.8 + 0.2) / 2)


@pytest.mark.parametrize("n_bins", [3, 7, 10, 15, 20, 100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_edge_is_the_number_nearest_to_its_fraction(n_bins: int, dtype: torch.dtype) -> None:
    edges = torch.tensor([i / n_bins for i in range(1, n_bins)], dtype=dtype)
    above = torch.nextafter(edges, torch.ones_like(edges))
    for i in range(n_bins - 1):  # the edge shares a bin with its left neighbour's interior, the next number does not
        middle = torch.tensor((i + 0.5) / n_bins, dtype=dtype)
        together = binned_calibration_error(torch.stack((middle, edges[i])), [0, 0], n_bins=n_bins, norm="mean")
        apart = binned_calibration_error(torch.stack((middle, above[i])), [0, 1], n_bins=n_bins, norm="mean")
        torch.testing.assert_close(together, (middle + edges[i]) / 2)
        torch.testing.assert_close(apart, (middle + 1 - above[i]) / 2)


def test_equal_mass_keeps_the_order_of_ties() -> None:
    confidence, outcome = np.full(8, 0.5), np.array([1.0, 1, 1, 1, 0, 0, 0, 0])
    assert binned_calibration_error(confidence, outcome, n_bins=2, bins="mass").item() == 0.5
    assert binned_calibration_error(confidence, outcome, n_bins=2).item() == 0
    split = np.array([0.1] * 5 + [0.9] * 2), np.array([0.0, 1, 0, 1, 1, 1, 0])
    got = binned_calibration_error(*split, n_bins=3, bins="mass").item()
    assert got == pytest.approx(oracle.binned_error(*split, 3, "mass"), abs=1e-15)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 20), st.sampled_from(BINS))
def test_norms_are_ordered_and_rows_may_be_shuffled(seed: int, n: int, n_bins: int, bins: str) -> None:
    confidence, outcome = predictions(seed, n)
    one, two, largest = (
        binned_calibration_error(confidence, outcome, n_bins=n_bins, bins=bins, norm=norm).item()
        for norm in (1, 2, "max")
    )
    assert 0 <= one <= two + 1e-12
    assert two <= largest + 1e-12
    assert largest <= 1
    assert abs(confidence.mean() - outcome.mean()) <= one + 1e-12
    order = np.random.default_rng(seed).permutation(n)
    again = binned_calibration_error(confidence[order], outcome[order], n_bins=n_bins, bins=bins)
    assert again.item() == pytest.approx(one, abs=1e-12)


@pytest.mark.parametrize("bins", BINS)
@pytest.mark.parametrize("norm", NORMS)
def test_the_error_of_a_batch_is_the_loop(bins: str, norm: int | str) -> None:
    rng = np.random.default_rng(0)
    confidence, outcome = rng.random((2, 3, 50)), rng.integers(2, size=(2, 3, 50))
    got = binned_calibration_error(confidence, outcome, bins=bins, norm=norm)
    assert got.shape == (2, 3)
    for i in np.ndindex(2, 3):
        want = oracle.binned_error(confidence[i], outcome[i], 15, bins, norm)
        assert got[i].item() == pytest.approx(want, abs=1e-13)
    shared = binned_calibration_error(confidence[0, 0], outcome, bins=bins, norm=norm)
    assert shared.shape == (2, 3)
    want = oracle.binned_error(confidence[0, 0], outcome[1, 2], 15, bins, norm)
    assert shared[1, 2].item() == pytest.approx(want, abs=1e-13)


@pytest.mark.parametrize("bins", BINS)
def test_large_float32_samples_are_summed_without_loss(bins: str) -> None:
    confidence = torch.full((1_000_000,), 0.7)
    outcome = (torch.arange(1_000_000) % 10 < 7).float()
    got = binned_calibration_error(confidence, outcome, bins=bins)
    assert got.dtype == torch.float32
    want = oracle.binned_error(confidence.double().numpy(), outcome.double().numpy(), 15, bins)
    assert got.item() == pytest.approx(want, abs=1e-7)


def test_outcomes_may_be_bool_whole_or_probabilities() -> None:
    confidence, outcome = predictions(0, 40)
    want = binned_calibration_error(confidence, outcome)
    for kind in (bool, int):
        torch.testing.assert_close(binned_calibration_error(confidence, outcome.astype(kind)), want)
        tensor = torch.tensor(outcome.astype(kind))
        torch.testing.assert_close(binned_calibration_error(torch.tensor(confidence), tensor), want)
    assert binned_calibration_error([0.3, 0.6], [0, 1]).dtype == torch.float64


@pytest.mark.parametrize("bins", BINS)
def test_classwise_errors_are_the_mean_over_classes(bins: str, device: str) -> None:
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.ones(4), size=(2, 80)), rng.integers(4, size=(2, 80))
    got = classwise_calibration_error(
        torch.tensor(p, device=device),
        torch.tensor(labels, device=device),
        n_bins=7,
        bins=bins,
    )
    assert got.shape == (2,)
    for i in range(2):
        each = [oracle.binned_error(p[i, :, c], labels[i] == c, 7, bins) for c in range(4)]
        assert got[i].item() == pytest.approx(np.mean(each), abs=1e-13)
    assert classwise_calibration_error(p[0], labels[0]).item() == pytest.approx(
        np.mean([oracle.binned_error(p[0, :, c], labels[0] == c) for c in range(4)]), abs=1e-13
    )


def test_what_overlap_does_is_invisible_to_both_errors() -> None:
    k, overlap = 10, 0.4
    risks = overlap_risks(overlap, k)
    confidence = 1 - risks.error.item()
    counts = np.round(oracle.interpolator_table(overlap, k, 2) * 1000).astype(int)
    labels, guesses = (np.repeat(x.ravel(), counts.ravel()) for x in np.indices((k, k)))
    p = np.full((len(labels), k), (1 - confidence) / (k - 1))
    p[np.arange(len(labels)), guesses] = confidence
    assert binned_calibration_error(p.max(-1), guesses == labels).item() < 1e-12
    assert classwise_calibration_error(p, labels).item() < 1e-12
    assert risks.calibration_gap.item() == pytest.approx(0.2 * math.log(9), rel=1e-12)


def test_float32_is_kept_and_agrees_with_float64() -> None:
    confidence, outcome = (torch.tensor(x) for x in predictions(3, 1000))
    rng = np.random.default_rng(0)
    p, labels = torch.tensor(rng.dirichlet(np.ones(4), size=1000)), torch.tensor(rng.integers(4, size=1000))
    posterior = torch.tensor(rng.dirichlet(np.ones(4), size=1000))
    group = torch.arange(1000)
    pairs = [
        (
            binned_calibration_error(c, outcome.to(c.dtype), bins="mass"),
            classwise_calibration_error(q, labels),
            smooth_calibration_error(c, outcome.to(c.dtype)),
            kl_decomposition(q, posterior.to(q.dtype), group, 1000).total,
        )
        for c, q in ((confidence.float(), p.float()), (confidence, p))
    ]
    for single, double in zip(*pairs, strict=True):
        assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
        torch.testing.assert_close(single.double(), double, rtol=2e-5, atol=2e-6)


def test_gradients_are_those_of_finite_differences() -> None:
    confidence, outcome = (torch.tensor(x) for x in predictions(4, 12))
    confidence.requires_grad_()
    for bins in BINS:
        for norm in NORMS:

            def error(c: torch.Tensor, bins: str = bins, norm: int | str = norm) -> torch.Tensor:
                return binned_calibration_error(c, outcome, n_bins=3, bins=bins, norm=norm)

            assert torch.autograd.gradcheck(error, (confidence,)), (bins, norm)
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    posterior = torch.randn(6, 3, dtype=torch.float64).softmax(-1)

    def parts(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        got = kl_decomposition(logits.softmax(-1), posterior, torch.arange(6), 6)
        return got.total, got.calibration

    assert torch.autograd.gradcheck(parts, (logits,))


@pytest.mark.parametrize("debias", [False, True])
def test_the_gradient_of_norm_two_vanishes_where_the_error_does(debias: bool) -> None:
    confidence = torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    error = binned_calibration_error(confidence, [1, 0, 1], n_bins=2, norm=2, debias=debias)
    error.backward()
    assert error.item() == 0
    assert confidence.grad is not None
    assert confidence.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("bins", BINS)
def test_an_empty_batch_has_no_errors(bins: str) -> None:
    none, p = torch.zeros(2, 0, 5), torch.full((0, 5, 3), 1 / 3)
    for outcome in (none, none.bool(), none.long()):
        for norm in NORMS:
            assert binned_calibration_error(none, outcome, bins=bins, norm=norm).shape == (2, 0)
        assert smooth_calibration_error(none, outcome).shape == (2, 0)
        assert smooth_calibration_error(none, outcome, bandwidth=0.1).dtype == torch.float32
    assert classwise_calibration_error(p, torch.zeros(0, 5, dtype=torch.int64), bins=bins).shape == (0,)


@pytest.mark.parametrize("bins", BINS)
def test_errors_run_on_an_accelerator_without_a_host_sync(bins: str, fake_gpu: str) -> None:
    confidence = torch.empty(2, 30, device=fake_gpu)
    p = torch.empty(2, 30, 4, device=fake_gpu)
    whole = torch.empty(2, 30, dtype=torch.int64, device=fake_gpu)
    for got in (
        *(binned_calibration_error(confidence, confidence, bins=bins, norm=norm) for norm in NORMS),
        binned_calibration_error(confidence, whole, bins=bins, norm=2, debias=True),
        classwise_calibration_error(p, whole, bins=bins),
        smooth_calibration_error(confidence, confidence),
        kl_decomposition(p, p, whole, 5).grouping,
        kl_decomposition(p, p, whole, 5, confidence).total,
    ):
        assert (str(got.device), got.dtype, got.shape) == (fake_gpu, torch.float32, (2,))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"n_bins": 0}, "n_bins"),
        ({"n_bins": True}, "n_bins"),
        ({"bins": "equal"}, "bins"),
        ({"norm": 3}, "norm"),
        ({"norm": "l1"}, "norm"),
        ({"debias": True}, "debias"),
        ({"debias": True, "norm": "max"}, "debias"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
        binned_calibration_error([0.5, 0.7], [0, 1], **options)  # type: ignore[arg-type]
    if name in ("n_bins", "bins"):
        with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
            classwise_calibration_error([[0.5, 0.5]], [0], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"probs": [[0.5, 0.6], [0.5, 0.5]]}, "probs"),
        ({"probs": [[1.5, -0.5], [0.5, 0.5]]}, "probs"),
        ({"probs": [[math.nan, 0.5], [0.5, 0.5]]}, "probs"),
        ({"probs": 0.5}, "probs"),
        ({"labels": [0, 2]}, "labels"),
        ({"labels": [0.0, 1.0]}, "labels"),
        ({"labels": [0]}, "labels"),
    ],
)
def test_what_is_wrong_with_classwise_predictions_is_named(change: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
        classwise_calibration_error(**{"probs": [[0.5, 0.5]] * 2, "labels": [0, 1]} | change)  # type: ignore[arg-type]


def test_rows_may_miss_one_by_the_stated_slack() -> None:
    assert classwise_calibration_error([[0.5, 0.50009]], [0]).isfinite()
    with pytest.raises(ValueError, match=r"^probs: got .*want "):
        classwise_calibration_error([[0.5, 0.5002]], [0])

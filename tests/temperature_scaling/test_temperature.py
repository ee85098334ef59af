"""The temperature against the root of the slope by Brent's method, at its ends, and in batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.temperature_scaling import (
    fit_temperature,
    overlap_risks,
)

from . import oracle
from .cases import problem


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 30.0])
@pytest.mark.parametrize(("n", "k"), [(3, 2), (200, 5), (5_000, 40)])
def test_the_temperature_is_the_root_of_the_slope(scale: float, n: int, k: int, device: str) -> None:
    z, labels = problem(0, n, k, scale)
    got = fit_temperature(torch.tensor(z, device=device), torch.tensor(labels, device=device))
    want = oracle.temperature(z, labels)
    assert got.temperature.item() == pytest.approx(want, rel=1e-8)
    assert got.nll.item() == pytest.approx(oracle.nll_at(1 / want, z, labels), rel=1e-12)
    if 1e-3 < want < 1e3:
        assert abs(got.gradient.item()) < 1e-10 * max(scale, 1)


def test_large_problems_use_all_their_rows() -> None:
    z, labels = problem(1, 70_001, 6, 5.0)
    z[-2_000:] *= -1  # the last rows are unlike the first: a fit of a subset would miss them
    got = fit_temperature(z, labels)
    assert got.temperature.item() == pytest.approx(oracle.temperature(z, labels), rel=1e-9)
    assert abs(got.gradient.item()) < 1e-10


def test_constant_gaps_have_the_closed_form() -> None:
    k, wrong, n, gap = 10, 60, 300, 12.0
    labels = np.arange(n) % k
    guess = np.where(np.arange(n) < wrong, (labels + 1) % k, labels)
    got = fit_temperature(gap * np.eye(k)[guess], labels)
    assert gap / got.temperature.item() == pytest.approx(math.log(0.8 * 9 / 0.2), rel=1e-10)
    assert got.nll.item() == pytest.approx(overlap_risks(0.4, k).scaled_nll.item(), rel=1e-12)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.floats(0.02, 50), st.floats(-100, 100))
def test_shift_changes_nothing_and_scale_multiplies_the_temperature(seed: int, scale: float, shift: float) -> None:
    z, labels = problem(seed, 60, 4, 1.0)
    plain, moved = fit_temperature(z, labels), fit_temperature(scale * z + shift, labels)
    if 0.1 < plain.temperature < 10:
        assert (moved.temperature / plain.temperature).item() == pytest.approx(scale, rel=1e-7)
        assert moved.nll.item() == pytest.approx(plain.nll.item(), rel=1e-10)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.05, 20))
def test_no_other_temperature_does_better(seed: int, factor: float) -> None:
    z, labels = problem(seed, 30, 3, 2.0)
    got = fit_temperature(z, labels)
    assert got.nll.item() <= oracle.nll_at(factor / got.temperature.item(), z, labels) + 1e-12


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6, 1e30])
def test_separable_data_end_at_the_lower_bound_and_worse_than_chance_at_the_upper(scale: float) -> None:
    z, right, wrong = scale * np.eye(3), np.arange(3), (np.arange(3) + 1) % 3
    for labels, end, sign in ((right, 1e-3, -1), (wrong, 1e3, 1)):
        got = fit_temperature(z, labels)
        assert got.temperature.item() == pytest.approx(end, rel=1e-12)
        assert got.nll.item() == pytest.approx(oracle.nll_at(1 / end, z, labels), rel=1e-12, abs=1e-300)
        assert got.gradient.item() * sign >= 0
        assert math.isfinite(got.gradient.item())
        assert fit_temperature(z, labels, bounds=(0.1, 10.0)).temperature.item() == pytest.approx(
            {-1: 0.1, 1: 10}[sign]
        )


def test_flat_logits_and_single_rows_give_numbers() -> None:
    flat = fit_temperature(np.ones((4, 3)), [0, 1, 2, 0])
    assert flat.nll.item() == pytest.approx(math.log(3), rel=1e-14)
    assert flat.gradient.item() == 0
    assert flat.temperature.item() == pytest.approx(1e-3)
    assert fit_temperature([[2.0, 1.0]], [0]).temperature.item() == pytest.approx(1e-3)
    assert fit_temperature([[2.0, 1.0]], [1]).temperature.item() == pytest.approx(1e3)


def test_badly_scaled_rows_do_not_throw_the_search_off() -> None:
    rng = np.random.default_rng(2)
    for seed in range(20):
        z, labels = problem(seed, 50, 4, 1.0)
        z *= np.exp(rng.normal(0, 3, size=(50, 1)))
        got = fit_temperature(z, labels)
        assert got.temperature.item() == pytest.approx(oracle.temperature(z, labels), rel=1e-7)


def test_the_fit_of_a_batch_is_the_loop() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 3, 40, 4)) * np.exp(rng.normal(size=(2, 3, 1, 1)))
    labels = rng.integers(4, size=(2, 3, 40))
    labels[:, 0] = z[:, 0].argmax(-1)  # separable
    got = fit_temperature(z, labels)
    for i in np.ndindex(2, 3):
        alone = fit_temperature(z[i], labels[i])
        for name in ("temperature", "nll", "gradient"):
            assert getattr(got, name).shape == (2, 3)
            assert getattr(got, name)[i].item() == pytest.approx(getattr(alone, name).item(), rel=1e-9, abs=1e-12)


def test_batch_axes_of_logits_and_labels_broadcast() -> None:
    z, labels = problem(0, 40, 4)
    many = np.stack([labels, np.roll(labels, 1)])
    got = fit_temperature(z, many)
    assert got.temperature.shape == (2,)
    for i in range(2):
        assert got.temperature[i].item() == pytest.approx(oracle.temperature(z, many[i]), rel=1e-8)
    assert fit_temperature(np.stack([z, 2 * z]), labels).temperature.shape == (2,)


@pytest.mark.parametrize("size", [100, 40_000])
def test_float32_is_kept_and_agrees_with_float64(size: int) -> None:
    z, labels = problem(3, size, 10, 4.0)
    single = torch.tensor(z, dtype=torch.float32)
    got, want = fit_temperature(single, torch.tensor(labels)), fit_temperature(single.double(), torch.tensor(labels))
    assert {x.dtype for x in (got.temperature, got.nll, got.gradient)} == {torch.float32}
    torch.testing.assert_close(got.temperature.double(), want.temperature, rtol=2e-6, atol=0)
    torch.testing.assert_close(got.nll.double(), want.nll, rtol=2e-6, atol=0)
    assert fit_temperature(z.tolist()[:50], labels.tolist()[:50]).temperature.dtype == torch.float64


@pytest.mark.parametrize("size", [9, 40_000])
def test_the_fit_runs_on_an_accelerator_without_a_host_sync(size: int, fake_gpu: str) -> None:
    z = torch.empty(2, size, 3, device=fake_gpu)
    fit = fit_temperature(z, torch.empty(2, size, dtype=torch.int64, device=fake_gpu), steps=5)
    for got in (fit.temperature, fit.nll, fit.gradient):
        assert (str(got.device), got.dtype, got.shape) == (fake_gpu, torch.float32, (2,))


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (0.1, math.inf), (math.nan, 1.0)])
def test_wrong_bounds_are_named(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"^bounds: got .*want "):
        fit_temperature([[1.0, 2.0]], [0], bounds=bounds)
    with pytest.raises(ValueError, match=r"^steps: got 0, want "):
        fit_temperature([[1.0, 2.0]], [0], steps=0)


def test_vmap_is_a_batch_and_an_empty_batch_has_empty_fits() -> None:
    z, labels = (torch.tensor(np.stack(part)) for part in zip(*(problem(s, 40, 4) for s in range(3)), strict=True))
    got, want = torch.func.vmap(lambda a, b: vars(fit_temperature(a, b)))(z, labels), fit_temperature(z, labels)
    torch.testing.assert_close(got["temperature"], want.temperature, rtol=1e-10, atol=0)
    torch.testing.assert_close(got["nll"], want.nll, rtol=1e-12, atol=0)
    assert fit_temperature(z[:0], labels[:0]).temperature.shape == (0,)

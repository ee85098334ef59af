"""Compressed spectra against the modes they stand for."""

from __future__ import annotations

import math

import pytest
import torch

from lib.rf_regression import compression, optimal_ridge, powerlaw_task, rf_risk, solve_effective_ridge
from lib.rf_regression.compression import CELL, NODES, compressed_modes, weighted_modes
from lib.rf_regression.modes import Modes, learned_share, sorted_modes


def spectra() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(1, 100_001, dtype=torch.float64)
    uniform = torch.rand(100_000, dtype=torch.float64, generator=generator)
    return {
        "power law": index**-1.2,
        "random": 1e-8 + uniform,
        "stretched exponential": torch.exp(-(index**0.3)),
        "with zeros": torch.where(index % 3 == 0, 0.0, index**-2.0),
        "equal": torch.full_like(index, 7.0),
    }


@pytest.mark.parametrize("name", spectra())
def test_all_sums_over_modes_survive_compression(name: str) -> None:
    spectrum = spectra()[name]
    power = torch.rand(100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    short = weighted_modes(spectrum, power)
    assert short.eigenvalues.shape[-1] < 1000
    gamma = torch.logspace(-16, 3, 58, dtype=torch.float64).unsqueeze(-1)
    full_share, full_rest = learned_share(spectrum, gamma)
    share, rest = learned_share(short.eigenvalues, gamma)
    for got, want in (
        ((short.weight * share).sum(-1), full_share.sum(-1)),
        ((short.weight * share * share).sum(-1), full_share.square().sum(-1)),
        ((short.weight * share * rest).sum(-1), (full_share * full_rest).sum(-1)),
        ((short.power * share * rest).sum(-1), (power * full_share * full_rest).sum(-1)),
        (short.unseen_power + (short.power * rest * rest).sum(-1), (power * full_rest.square()).sum(-1)),
    ):
        torch.testing.assert_close(got, want, rtol=5e-13, atol=0)
    assert short.rank == (spectrum > 0).sum()
    torch.testing.assert_close(short.log_trace, spectrum.sum().log(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", spectra())
def test_solutions_and_risks_are_those_of_all_modes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spectrum = spectra()[name]
    power = spectrum.flip(0) + 1e-6
    n = torch.tensor([[3.0], [100.0], [40_000.0], [99_990.0], [200_000.0]])
    k, ridge = torch.tensor([10.0, 300.0, 66_000.0, 99_999.0, math.inf]), 1e-4
    short = rf_risk(spectrum, power, n, k, ridge, 0.1)
    monkeypatch.setattr(compression, "FEWEST", 1 << 62)
    full = rf_risk(spectrum, power, n, k, ridge, 0.1)
    for part in ("gamma", "kappa", "test", "train", "feature_sufficiency"):
        torch.testing.assert_close(getattr(short, part), getattr(full, part), rtol=1e-11, atol=0)


def test_near_full_rank_nothing_is_lost_to_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    spectrum, power = powerlaw_task(20_000, 1.5, 1.5)
    n = torch.tensor([19_999.0, 20_000.0, 20_001.0])
    ridge = torch.tensor([[1e-20], [1e-12], [1e-6]], dtype=torch.float64)
    short = rf_risk(spectrum, power, n, 50_000, ridge, 0.1)
    monkeypatch.setattr(compression, "FEWEST", 1 << 62)
    full = rf_risk(spectrum, power, n, 50_000, ridge, 0.1)
    torch.testing.assert_close(short.gamma, full.gamma, rtol=1e-11, atol=0)
    torch.testing.assert_close(short.test, full.test, rtol=1e-11, atol=0)


def test_the_optimum_is_that_of_all_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    spectrum, power = powerlaw_task(3000, 1.5, 1.5)
    short = optimal_ridge(spectrum, power, [50, 200], [400, 100], 0.2)
    monkeypatch.setattr(compression, "FEWEST", 1 << 62)
    full = optimal_ridge(spectrum, power, [50, 200], [400, 100], 0.2)
    torch.testing.assert_close(short.test, full.test, rtol=1e-12, atol=0)
    torch.testing.assert_close(short.ridge, full.ridge, rtol=1e-9, atol=0)


def test_rows_of_a_batch_have_their_own_cells_and_powers() -> None:
    spectrum, power = powerlaw_task(2000, 1.5, 1.5)
    rows = torch.stack([spectrum, 1e6 * spectrum.flip(0), spectrum.clamp_min(1e-2)])
    powers = torch.stack([power, power.flip(0)]).unsqueeze(1)
    together = rf_risk(rows, powers, 50, 200, 1e-2, 0.1)
    assert together.test.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            alone = rf_risk(rows[j], powers[i, 0], 50, 200, 1e-2, 0.1)
            torch.testing.assert_close(together.test[i, j], alone.test, rtol=1e-12, atol=0)
            torch.testing.assert_close(together.gamma[i, j], alone.gamma, rtol=1e-12, atol=0)


def test_short_or_wide_spectra_and_gradients_keep_every_mode() -> None:
    spectrum, power = powerlaw_task(2000, 1.5, 1.5)
    assert weighted_modes(spectrum, power).eigenvalues.shape[-1] < 300
    assert weighted_modes(spectrum[:999], power[:999]).eigenvalues.shape[-1] == 999
    wide = torch.exp(-torch.arange(2000, dtype=torch.float64) / 4)
    assert weighted_modes(wide, power).eigenvalues.shape[-1] == 2000
    assert weighted_modes(spectrum.clone().requires_grad_(), power).eigenvalues.shape[-1] == 2000


def test_a_polynomial_of_low_degree_is_summed_exactly_over_one_cell() -> None:
    generator = torch.Generator().manual_seed(2)
    level = -CELL * torch.rand(500, dtype=torch.float64, generator=generator)
    level[0] = 0.0
    short = compressed_modes(level.exp(), torch.ones(500, dtype=torch.float64), 1)
    assert short.eigenvalues.shape == (NODES,)
    for degree in range(NODES):
        got = (short.weight * (short.log_eigenvalues + CELL / 2) ** degree).sum()
        torch.testing.assert_close(got, ((level + CELL / 2) ** degree).sum(), rtol=1e-12, atol=1e-11)


def test_a_long_spectrum_is_cut_into_pieces_of_bounded_size() -> None:
    spectrum, power = powerlaw_task(20_000, 1.5, 1.5)
    modes = sorted_modes(spectrum, power)
    pieces = modes.slices(torch.Size([100]))
    assert isinstance(pieces[0], Modes)
    assert max(piece.weight.shape[-1] for piece in pieces) * 100 <= 1 << 20
    torch.testing.assert_close(torch.cat([piece.power for piece in pieces]), power)
    n = torch.full((100,), 100.0, dtype=torch.float64)
    with_gradient = spectrum.clone().requires_grad_()  # keeps all modes, and therefore works piece by piece
    pieced = solve_effective_ridge(with_gradient, n, 200, 0.1, num_iterations=9).gamma.detach()
    torch.testing.assert_close(pieced, solve_effective_ridge(spectrum, n, 200, 0.1).gamma, rtol=1e-12, atol=0)

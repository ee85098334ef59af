"""Partial memory of the overlap against a search over gaps, and its two ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from lib.temperature_scaling import overlap_risks, partial_interpolation


def nll(u: float, overlap: float, memorised: float, k: int, m: int) -> float:
    """Over regions and labels: outside the overlap, in its memorised part and in the rest of it."""
    single, tied = 1 + (k - 1) * math.exp(-u), m + (k - m) * math.exp(-u)
    private = (1 - overlap) * math.log(single)
    repeated = sum(math.log(single) + (u if y != 0 else 0) for y in range(m)) / m
    return private + overlap * (memorised * repeated + (1 - memorised) * math.log(tied))


@pytest.mark.parametrize(("k", "m"), [(2, 2), (10, 2), (12, 3), (4, 4)])
@pytest.mark.parametrize("overlap", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("memorised", [0.05, 0.5, 0.95])
def test_the_gap_is_the_best_of_a_search(overlap: float, memorised: float, k: int, m: int, device: str) -> None:
    share, memory = (torch.tensor(x, dtype=torch.float64, device=device) for x in (overlap, memorised))
    got = partial_interpolation(share, memory, k, group_size=m)
    found = optimize.minimize_scalar(
        nll, bounds=(0, 60), args=(overlap, memorised, k, m), method="bounded", options={"xatol": 1e-10}
    )
    assert got.nll.item() == pytest.approx(found.fun, rel=1e-11)
    assert got.kl.item() == pytest.approx(found.fun - overlap * math.log(m), abs=1e-11)
    assert got.scaled_logit_gap.item() == pytest.approx(found.x, abs=1e-5)


@given(st.floats(0, 1), st.integers(1, 30), st.integers(2, 5))
def test_full_memory_is_the_overlap_model_and_none_is_the_truth(overlap: float, groups: int, m: int) -> None:
    k = m * groups
    risks = overlap_risks(overlap, k, group_size=m)
    full, none = (partial_interpolation(overlap, share, k, group_size=m) for share in (1.0, 0.0))
    assert full.nll.item() == pytest.approx(risks.scaled_nll.item(), abs=1e-10)
    assert none.nll.item() == pytest.approx(risks.bayes_nll.item(), abs=1e-10)
    assert none.scaled_logit_gap.item() == math.inf
    assert none.kl.item() == pytest.approx(0, abs=1e-10)


def test_more_memory_and_more_classes_cost_more() -> None:
    memorised, k = torch.linspace(0, 1, 21, dtype=torch.float64), torch.tensor([[4.0], [40.0], [400.0]]).double()
    got = partial_interpolation(0.4, memorised, k)
    assert got.kl.shape == (3, 21)
    assert bool((got.kl.diff(dim=-1) > 0).all())
    assert bool((got.kl[:, 1:].diff(dim=0) > 0).all())
    for i, j in np.ndindex(3, 21):
        alone = partial_interpolation(0.4, memorised[j].item(), int(k[i, 0]))
        assert got.kl[i, j].item() == pytest.approx(alone.kl.item(), abs=1e-13)


def test_kinds_are_kept() -> None:
    single = partial_interpolation(torch.tensor([0.3, 0.7]), 0.5, 10)
    assert single.nll.dtype == torch.float32
    torch.testing.assert_close(single.nll.double(), partial_interpolation([0.3, 0.7], 0.5, 10).nll, rtol=2e-6, atol=0)
    assert partial_interpolation(0, 1, 4).nll.dtype == torch.float64


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    got = partial_interpolation(torch.empty(4, device=fake_gpu), torch.empty(4, device=fake_gpu), 10)
    for x in (got.scaled_logit_gap, got.nll, got.kl):
        assert (str(x.device), x.dtype, x.shape) == (fake_gpu, torch.float32, (4,))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"overlap": 1.1}, "overlap"),
        ({"memorised": -0.1}, "memorised"),
        ({"memorised": math.nan}, "memorised"),
        ({"n_classes": 1}, "n_classes"),
        ({"n_classes": 9}, "group_size"),
        ({"group_size": 20}, "group_size"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
        partial_interpolation(**{"overlap": 0.4, "memorised": 0.5, "n_classes": 10} | change)  # type: ignore[arg-type]

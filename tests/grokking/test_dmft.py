"""Mean-field runs against networks that are really trained, in law: at a size so small that every correction shows."""

from __future__ import annotations

import importlib
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from lib.grokking import dmft, lazy_curve, online_step
from lib.grokking.dmft import PROPOSALS, _bartlett

from . import oracle

dmft_module = importlib.import_module("lib.grokking.dmft")  # the package has a function of that name

NAMES = ("train", "test", "overlap", "alignment")
ALIGNMENT = np.array([0.3, -0.2, 0.25])
OVERLAP = 0.9 * np.eye(3) + 0.1 + 0.2 * np.outer(ALIGNMENT, ALIGNMENT)


def start(neurons: int) -> tuple[np.ndarray, np.ndarray]:
    return OVERLAP[:neurons, :neurons], ALIGNMENT[:neurons]


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("neurons", "psi", "steps", "alpha", "eps", "lr", "centered"),
    [
        (2, 2.0, 4, 1.0, 0.5, 0.3, True),
        (2, 2.0, 4, 1.0, 0.5, 0.3, False),
        (1, 3.0, 6, 1.0, 0.3, 0.3, True),
        (3, 1.5, 3, 2.0, 0.3, 0.2, True),
        (2, 2.0, 5, 1.0, 0.0, 0.3, True),  # linear units: all of them learn one function
        (1, 0.8, 3, 0.5, 0.4, 0.15, False),  # fewer samples than dimensions
    ],
)
def test_runs_have_the_law_of_trained_networks(
    neurons: int, psi: float, steps: int, alpha: float, eps: float, lr: float, centered: bool
) -> None:
    """Dimension 30 or so: the mean-field limit itself is 10 % and more away, and so is each of its corrections."""
    runs, samples = 3000, 60 if psi >= 1 else 24
    c, m = start(neurons)
    setting: dict[str, Any] = {"steps": steps, "centered": centered}
    got = dmft(np.tile(c, (runs, 1, 1)), m, alpha, eps, psi, lr, samples=samples, generator=draws(1), **setting)
    dim = int(samples / psi)
    W, beta = oracle.planted(c, m, dim)
    X = np.random.default_rng(0).normal(size=(runs, samples, dim)) / math.sqrt(dim)
    want = oracle.simulate(np.tile(W, (runs, 1, 1)), X, beta, alpha, eps, lr, **setting)
    for name, curve in zip(NAMES, want, strict=True):
        for power in (1, 2):  # means and mean squares
            ours, theirs = getattr(got, name).numpy() ** power, curve**power
            noise = np.sqrt((ours.var(0) + theirs.var(0)) / runs)
            assert (np.abs(ours.mean(0) - theirs.mean(0)) <= 4.5 * noise + 1e-12).all(), (name, power)


def test_samples_remember_what_they_taught() -> None:
    """Covariances of different times: the memory of the past, which single times hardly show."""
    runs, samples, psi, steps = 3000, 60, 2.0, 4
    c, m = start(2)
    got = dmft(np.tile(c, (runs, 1, 1)), m, 1.0, 0.5, psi, 0.3, steps, samples, generator=draws(3))
    W, beta = oracle.planted(c, m, 30)
    X = np.random.default_rng(1).normal(size=(runs, samples, 30)) / math.sqrt(30)
    want = oracle.simulate(np.tile(W, (runs, 1, 1)), X, beta, 1.0, 0.5, 0.3, steps)
    ours, theirs = got.train.numpy(), want[0]
    first, second = (x[:, :, None] * x[:, None, :] for x in (ours, theirs))
    noise = np.sqrt((first.var(0) + second.var(0)) / runs)
    assert (np.abs(first.mean(0) - second.mean(0)) < 4.5 * noise).all()
    assert np.corrcoef(theirs.T)[1, 2] > 0.8  # so that there is something to remember


def test_a_large_run_follows_a_network_of_its_size() -> None:
    c, m = 0.9375 * np.eye(4) + 0.0625, np.full(4, 0.25)
    dim, psi, steps, runs = 200, 3.0, 30, 6
    got = dmft(np.tile(c, (runs, 1, 1)), m, 1.0, 0.25, psi, 0.4, steps, 600, generator=draws(0))
    W, beta = oracle.planted(c, m, dim)
    X = np.random.default_rng(2).normal(size=(runs, 600, dim)) / math.sqrt(dim)
    want = oracle.simulate(np.tile(W, (runs, 1, 1)), X, beta, 1.0, 0.25, 0.4, steps)
    for name, curve in zip(NAMES[:2], want, strict=False):
        ours, theirs = getattr(got, name)[:, -1].numpy(), curve[:, -1]
        assert abs(ours.mean() - theirs.mean()) < 4 * math.sqrt((ours.var() + theirs.var()) / (runs - 1))


def test_with_many_samples_for_each_dimension_it_is_the_online_flow() -> None:
    c, m = start(2)
    got = dmft(c, m, 1.0, 0.5, 400.0, 0.2, 8, 400 * 500, generator=draws(0), centered=False)
    overlap, alignment = torch.tensor(c), torch.tensor(m)
    for t in range(9):
        torch.testing.assert_close(got.overlap[t], overlap, rtol=0, atol=0.02)
        torch.testing.assert_close(got.alignment[t], alignment, rtol=0, atol=0.02)
        overlap, alignment = online_step(overlap, alignment, 1.0, 0.5, 0.2)
    assert (got.overlap[8] - got.overlap[0]).abs().max() > 0.3  # it has moved


def test_wide_and_lazy_it_is_the_lazy_curve() -> None:
    neurons = 40
    c, m = np.eye(neurons), np.zeros(neurons)
    got = dmft(c, m, 1e4, 0.5, 2.0, 0.4, 4, 4000, generator=draws(0))
    want = lazy_curve(2.0, 0.5, 0.4, 4)
    torch.testing.assert_close(got.train, want.train, rtol=0.08, atol=0)
    torch.testing.assert_close(got.test, want.test, rtol=0.08, atol=0)


def test_the_start_is_given_and_its_losses_are_known() -> None:
    c, m = start(3)
    got = dmft(c, m, 0.7, 0.4, 2.0, 0.3, 0, 40_000)
    assert (got.train.shape, got.overlap.shape, got.alignment.shape) == ((1,), (1, 3, 3), (1, 3))
    np.testing.assert_allclose(got.overlap[0], c, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(got.alignment[0], m, rtol=1e-12, atol=1e-14)
    assert got.test[0].item() == pytest.approx(0.75, rel=1e-12)  # centred: the network is zero
    assert got.train[0].item() == pytest.approx(0.75, abs=4.5 * math.sqrt(105 / 16 - 9 / 16) / 200)
    w, beta = oracle.planted(c, m, 7)
    plain = dmft(c, m, 0.7, 0.4, 2.0, 0.3, 0, 40, centered=False)
    assert plain.test[0].item() == pytest.approx(oracle.exact_loss(w[None], beta, 0.7, 0.4)[0], rel=1e-12)


def test_a_generator_decides_the_run_and_none_is_no_surprise() -> None:
    def run(generator: torch.Generator | None) -> torch.Tensor:
        return dmft(*start(2), 1.0, 0.5, 2.0, 0.3, 3, 60, generator=generator).train

    assert torch.equal(run(draws(1)), run(draws(1)))
    assert not torch.equal(run(draws(1)), run(draws(2)))
    state = torch.get_rng_state()
    assert torch.equal(run(None), run(None))
    assert torch.equal(state, torch.get_rng_state())  # the global generator is left alone
    source = draws(1)
    first = run(source)
    assert not torch.equal(first, run(source))


def test_a_grid_in_one_call_is_its_points_one_after_the_other() -> None:
    c, m = start(2)
    alphas, epss = np.array([0.5, 1.0, 4.0])[:, None], np.array([0.1, 0.5])
    got = dmft(c, m, alphas, epss, 2.0, [0.2, 0.3], 5, 80, generator=draws(5))
    assert (got.train.shape, got.test.shape) == ((3, 2, 6), (3, 2, 6))
    assert (got.overlap.shape, got.alignment.shape) == ((3, 2, 6, 2, 2), (3, 2, 6, 2))
    source = draws(5)
    for i in range(3):
        for j in range(2):
            one = dmft(c, m, float(alphas[i, 0]), float(epss[j]), 2.0, [0.2, 0.3][j], 5, 80, generator=source)
            for name in NAMES:
                torch.testing.assert_close(getattr(got, name)[i, j], getattr(one, name), rtol=1e-9, atol=1e-11)


def test_sample_ratios_may_differ_and_starts_too() -> None:
    starts, source = np.stack([OVERLAP, OVERLAP + 0.5 * np.eye(3)]), draws(7)
    got = dmft(starts, ALIGNMENT, 1.0, 0.3, [1.5, 3.0], 0.2, 4, 120, generator=draws(7))
    for i in range(2):
        one = dmft(starts[i], ALIGNMENT, 1.0, 0.3, [1.5, 3.0][i], 0.2, 4, 120, generator=source)
        for name in NAMES:
            torch.testing.assert_close(getattr(got, name)[i], getattr(one, name), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("eps", [0.0, 1e-14, 1e-9, 1e-4])
def test_units_that_agree_stay_stable(eps: float) -> None:
    """Nearly linear units learn one function; what the others add is rounding, and must not grow."""
    runs, c, m = 8, *start(3)
    got = dmft(np.tile(c, (runs, 1, 1)), m, 1.0, eps, 2.0, 0.4, 60, 800, generator=draws(2))
    W, beta = oracle.planted(c, m, 400)
    X = np.random.default_rng(0).normal(size=(runs, 800, 400)) / 20
    want = oracle.simulate(np.tile(W, (runs, 1, 1)), X, beta, 1.0, eps, 0.4, 60)
    for name, curve in zip(NAMES[:2], want, strict=False):
        ours, theirs = getattr(got, name)[:, -1].numpy(), curve[:, -1]
        assert abs(ours.mean() - theirs.mean()) < 4.5 * math.sqrt((ours.var() + theirs.var()) / (runs - 1))


def test_single_precision_stays() -> None:
    c, m = (torch.tensor(x, dtype=torch.float32) for x in start(2))
    low = dmft(c, m, 1.0, 0.5, 2.0, 0.3, 20, 4000)
    high = dmft(*start(2), 1.0, 0.5, 2.0, 0.3, 20, 4000)
    for name in NAMES:
        assert getattr(low, name).dtype == torch.float32
        assert getattr(high, name).dtype == torch.float64
        assert getattr(low, name).isfinite().all()
    torch.testing.assert_close(low.test.double(), high.test, rtol=0.15, atol=0)  # other draws of the same law


def test_numbers_that_ask_for_gradients_are_welcome_and_get_none() -> None:
    alpha = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    got = dmft(*start(2), alpha, 0.5, 2.0, 0.3, 3, 60)
    assert not got.train.requires_grad
    torch.testing.assert_close(got.train, dmft(*start(2), 1.0, 0.5, 2.0, 0.3, 3, 60).train)


def test_the_device_of_the_overlaps_decides(device: str) -> None:
    overlap, alignment = (torch.tensor(x, device=device) for x in start(2))
    got = dmft(overlap, alignment, 1.0, 0.5, 2.0, 0.3, 3, 60)
    assert {getattr(got, name).device.type for name in NAMES} == {device}


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    overlap, scale = torch.empty(4, 3, 3, device=fake_gpu), torch.empty(4, device=fake_gpu)
    got = dmft(overlap, scale[:3], scale, scale, scale, scale, 3, 200, generator=torch.Generator())
    for name in NAMES:
        assert str(getattr(got, name).device) == fake_gpu
        assert getattr(got, name).dtype == torch.float32
    assert got.train.shape == (4, 4)


def test_a_step_beyond_the_threshold_warns_and_returns_what_was_computed() -> None:
    with pytest.warns(RuntimeWarning) as caught:
        got = dmft(*start(2), 1.0, 0.5, 2.0, 5.0, 40, 400)
    said = " ".join(str(w.message) for w in caught)
    kept = int(got.finite_steps)
    assert 1 < kept < 41
    assert "lr: got" in said
    assert f"not finite from step {kept}" in said
    assert got.train[:kept].isfinite().all()
    assert not (got.train[kept].isfinite() & got.test[kept].isfinite())


def test_a_run_that_converges_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = dmft(*start(2), 1.0, 0.5, 2.0, 0.3, 10, 100)
    assert int(got.finite_steps) == 11


def test_the_least_number_of_samples_is_enough() -> None:
    directions = 1 + 2 + 2 * 6
    got = dmft(*start(2), 1.0, 0.3, 1.9, 0.1, 5, 2 * directions)
    assert got.train.isfinite().all()
    with pytest.raises(ValueError, match=f"samples: got {2 * directions - 1}, want at least {2 * directions}"):
        dmft(*start(2), 1.0, 0.3, 1.9, 0.1, 5, 2 * directions - 1)
    with pytest.raises(ValueError, match=rf"samples: got {directions}, want samples / psi > {directions}"):
        dmft(*start(2), 1.0, 0.3, 2.0, 0.1, 5, 2 * directions)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"overlap": np.ones((2, 3))}, r"overlap: got shape \(2, 3\), want"),
        ({"overlap": [1.0, 2.0]}, r"overlap: got shape \(2,\), want"),
        ({"alignment": [0.1] * 3}, r"(overlap|alignment): got shape"),
        ({"alignment": 0.1}, r"alignment: got shape \(\), want"),
        ({"overlap": [[1.0, 2.0], [2.0, 1.0]]}, "overlap: got .*, want .*positive definite"),
        ({"overlap": [[1.0, 0.5], [0.0, 1.0]]}, "overlap: got .*, want a symmetric matrix"),
        ({"overlap": np.zeros((2, 2))}, "overlap: got .*, want .*positive definite"),
        ({"alignment": [1.0, 0.0]}, "overlap: got .*, want .*positive definite"),
        ({"overlap": math.nan * np.eye(2)}, "overlap: got nan, want finite"),
        ({"alignment": [math.inf, 0.0]}, "alignment: got inf, want finite"),
        ({"alpha": 0.0}, "alpha: got 0, want"),
        ({"alpha": -2.0}, "alpha: got -2, want"),
        ({"eps": -0.1}, "eps: got -0.1, want"),
        ({"psi": 0.0}, "psi: got 0, want"),
        ({"psi": -1.0}, "psi: got -1, want"),
        ({"psi": math.inf}, "psi: got inf, want"),
        ({"lr": 0.0}, "lr: got 0, want"),
        ({"lr": math.nan}, "lr: got nan, want"),
        ({"steps": -1}, "steps: got -1, want"),
        ({"samples": 10}, "samples: got 10, want at least 26"),
        ({"samples": 0}, "samples: got 0, want"),
        ({"psi": 10.0}, "samples: got .*, want samples / psi > 13"),
        ({"alpha": [1.0, 2.0], "eps": [0.1] * 3}, "do not broadcast"),
        ({"overlap": "eye"}, "overlap: got str"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    fine: dict[str, Any] = {"overlap": np.eye(2), "alignment": [0.1, 0.1], "alpha": 1.0, "eps": 0.3, "psi": 2.0}
    fine |= {"lr": 0.2, "steps": 4, "samples": 100}
    with pytest.raises(ValueError, match=message):
        dmft(**(fine | change))


def test_the_law_holds_in_ten_dimensions() -> None:
    """Where one dimension more or less, and each entry of the small triangular factor, shows."""
    runs, (c, m) = 40_000, start(2)
    got = dmft(np.tile(c, (runs, 1, 1)), m, 1.0, 0.5, 2.0, 0.5, 2, 20, generator=draws(4))
    W, beta = oracle.planted(c, m, 10)
    X = np.random.default_rng(6).normal(size=(runs, 20, 10)) / math.sqrt(10)
    want = oracle.simulate(np.tile(W, (runs, 1, 1)), X, beta, 1.0, 0.5, 0.5, 2)
    for name, curve in zip(NAMES, want, strict=True):
        ours, theirs = np.arctan(getattr(got, name).numpy()), np.arctan(curve)  # bounded: heavy tails weigh nothing
        noise = np.sqrt((ours.var(0) + theirs.var(0)) / runs)
        assert (np.abs(ours.mean(0) - theirs.mean(0)) <= 4.5 * noise + 1e-12).all(), name


@pytest.mark.parametrize("known", [3, 5])
def test_the_triangular_factor_has_the_law_of_new_directions(known: int) -> None:
    """Its Gram matrix is Wishart's with D - n degrees of freedom: moments of all entries, in twelve dimensions."""
    runs, units, dim = 200_000, 3, 12
    chance = torch.randn(runs, units, units + 2 * PROPOSALS, generator=draws(8), dtype=torch.float64)
    factor = _bartlett(chance, torch.tensor([[[float(dim)]]], dtype=torch.float64), known)
    assert (factor.triu(1) == 0).all()
    gram, free = dim * factor @ factor.mT, dim - known
    exact_variance = free * (1 + torch.eye(units, dtype=torch.float64))
    assert (gram.mean(0) - free * torch.eye(units)).abs().amax() < 5 * (2 * free / runs) ** 0.5
    torch.testing.assert_close(gram.var(0), exact_variance, rtol=0.03, atol=0)


def test_samples_see_a_new_direction_as_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Along the direction q_k of the samples, new direction j is F_kj / sqrt(psi), with the factor not transposed."""
    seen: dict[str, list[torch.Tensor]] = {"_draw": [], "_fresh_directions": [], "_bartlett": []}

    def spy(name: str) -> None:
        plain = getattr(dmft_module, name)

        def watched(*args: Any) -> Any:
            result = plain(*args)
            if name == "_draw":
                seen[name].append(result[0])
            else:  # the directions are written to the last argument, which is used again
                seen[name].append((args[-1] if name == "_fresh_directions" else result).clone())
            return result

        monkeypatch.setattr(dmft_module, name, watched)

    for name in seen:
        spy(name)
    c, m = start(2)
    dmft(c, m, 1.0, 0.5, 2.0, 0.3, 3, 60)
    samples = seen["_draw"][0]
    for t, (q, factor) in enumerate(zip(seen["_fresh_directions"], seen["_bartlett"], strict=True)):
        new = samples[:, 3 + 2 * t : 5 + 2 * t]
        torch.testing.assert_close(q @ new.mT / 60, factor / math.sqrt(2))
        assert (factor[:, 1, 0].abs() > 1e-3).all()

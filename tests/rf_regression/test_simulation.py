"""The simulator against scikit-learn on the same draws, exact results for Gaussian least squares, and the theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge

from lib.rf_regression import krr_risk, powerlaw_task, rf_risk, simulate_rf_ridge, simulation


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(generator: torch.Generator, *shape: int) -> np.ndarray:
    return torch.randn(1, *shape, generator=generator, dtype=torch.float64).squeeze(0).numpy()


@pytest.mark.parametrize(("n", "k"), [(12, 30), (30, 12), (15, 15)])
@pytest.mark.parametrize("blocks", [False, True])
def test_one_trial_is_the_fit_scikit_learn_makes_of_the_same_draws(
    n: int, k: int, blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lam, power = (x.numpy() for x in powerlaw_task(40, 1.2, 1.5))
    size = 7 if blocks else 40
    if blocks:
        monkeypatch.setattr(simulation, "BUDGET", size * (n + k + 3))
    generator = draws(5)
    got = simulate_rf_ridge(lam, power, n, k, [0.0, 0.01, 1.0], 0.3, num_trials=1, generator=generator)

    again = draws(5)
    labels = math.sqrt(0.3) * normal(again, n, 1)[:, 0]
    data, weights = [], []
    for start in range(0, 40, size):
        width = min(size, 40 - start)
        data.append(normal(again, n, width))
        weights.append(normal(again, width, k))
    x, f = np.hstack(data), np.sqrt(lam / k)[:, None] * np.vstack(weights)
    labels = labels + x @ np.sqrt(power)
    for i, ridge in enumerate((0.0, 0.01, 1.0)):
        z = x @ f
        fit = (
            np.linalg.pinv(z) @ labels
            if ridge == 0
            else Ridge(alpha=ridge, fit_intercept=False, solver="svd").fit(z, labels).coef_
        )
        assert got.test[i].item() == pytest.approx(((f @ fit - np.sqrt(power)) ** 2).sum() + 0.3, rel=1e-8)
        assert got.train[i].item() == pytest.approx(((labels - z @ fit) ** 2).mean(), rel=1e-8, abs=1e-20)
    assert got.test_stderr.isnan().all()
    assert torch.equal(torch.randn(3, generator=generator), torch.randn(3, generator=again))


def test_infinitely_many_features_are_the_kernel_scikit_learn_fits() -> None:
    lam, power = (x.numpy() for x in powerlaw_task(40, 1.2, 1.5))
    got = simulate_rf_ridge(lam, power, 12, math.inf, [0.01, 1.0], 0.3, num_trials=1, generator=draws(6))
    again = draws(6)
    labels, x = math.sqrt(0.3) * normal(again, 12, 1)[:, 0], normal(again, 12, 40)
    labels = labels + x @ np.sqrt(power)
    kernel = (x * lam) @ x.T
    fresh = np.random.default_rng(0).normal(size=(200_000, 40))
    for i, ridge in enumerate((0.01, 1.0)):
        dual = KernelRidge(alpha=ridge, kernel="precomputed").fit(kernel, labels).dual_coef_
        wrong = fresh @ (lam * (x.T @ dual) - np.sqrt(power))  # here a test sample is drawn
        assert got.test[i].item() == pytest.approx((wrong**2).mean() + 0.3, rel=0.02)
        assert got.train[i].item() == pytest.approx(((labels - kernel @ dual) ** 2).mean(), rel=1e-8)


def test_gaussian_least_squares_has_its_exact_mean_error(device: str) -> None:
    generator = torch.Generator(device=device).manual_seed(1)
    lam, power = [2.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.3, 0.2]
    got = simulate_rf_ridge(lam, power, 10, 20, 0.0, 0.1, num_trials=20_000, generator=generator)
    want = 0.6 * (1 + 2 / (10 - 2 - 1))  # power that no feature sees is noise; two coefficients are fitted
    assert str(got.test.device).startswith(device)
    assert abs(got.test.item() - want) < 4.5 * got.test_stderr.item()
    assert abs(got.train.item() - 0.6 * 0.8) < 4.5 * got.train_stderr.item()
    assert got.test_stderr.item() < 0.01 * want


@pytest.mark.parametrize(("n", "k"), [(60, 240), (120, 60), (60, math.inf)])
def test_theory_and_simulation_meet(n: int, k: float) -> None:
    lam, power = powerlaw_task(300, 1.2, 1.5)
    ridge = torch.tensor([0.1, 1.0], dtype=torch.float64)
    got = simulate_rf_ridge(lam, power, n, k, ridge, 0.2, num_trials=60, generator=draws(2))
    want = rf_risk(lam, power, n, k, ridge, 0.2)
    assert ((got.test - want.test).abs() < 3 * got.test_stderr + 0.02 * want.test).all()
    assert ((got.train - want.train).abs() < 3 * got.train_stderr + 0.05 * want.train).all()
    if k < 2 * n:
        rival = krr_risk(lam, power, n, ridge, 0.2)
        assert ((got.test - rival.test).abs() > 3 * got.test_stderr + 0.02 * want.test).all()


def test_an_infinite_ridge_predicts_zero_and_shapes_follow_the_ridge() -> None:
    got = simulate_rf_ridge([1.0, 0.5], [1.0, 2.0], 3, 4, [[math.inf], [1.0]], 0.5, num_trials=7, generator=draws(0))
    assert {x.shape for x in vars(got).values()} == {(2, 1)}
    assert got.test[0, 0].item() == pytest.approx(3.5, rel=1e-14)
    scalar = simulate_rf_ridge([1.0, 0.5], [1.0, 2.0], 3, 4, 1.0, 0.5, num_trials=7, generator=draws(0))
    assert scalar.test.shape == ()
    torch.testing.assert_close(scalar.test, got.test[1, 0])


def test_chunks_of_trials_are_independent_and_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ([1.0, 0.5, 0.2], [1.0, 1.0, 1.0], 4, 6, 0.1, 0.1)
    monkeypatch.setattr(simulation, "BUDGET", 400)
    one, two = (simulate_rf_ridge(*arguments, num_trials=1000, generator=draws(4)) for _ in range(2))
    assert torch.equal(one.test, two.test)
    monkeypatch.undo()
    whole = simulate_rf_ridge(*arguments, num_trials=1000, generator=draws(4))
    assert abs(one.test - whole.test) < 4.5 * torch.hypot(one.test_stderr, whole.test_stderr)
    assert one.test_stderr.item() == pytest.approx(whole.test_stderr.item(), rel=0.5)


def test_no_draw_exceeds_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    randn = torch.randn

    def counting(*shape: int, **options: object) -> torch.Tensor:
        drawn.append(math.prod(shape))
        return randn(*shape, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "randn", counting)
    monkeypatch.setattr(simulation, "BUDGET", 1 << 14)
    lam, power = powerlaw_task(300, 1.2, 1.5)
    for k in (5, 40, 500):
        simulate_rf_ridge(lam, power, 10, k, [0.1, 1.0], num_trials=6, generator=draws(0))
    assert max(drawn) <= 1 << 14


def test_float32_is_kept() -> None:
    got = simulate_rf_ridge(torch.tensor([1.0, 0.5]), [1.0, 2.0], 3, 4, 0.1, 0.5, num_trials=9, generator=draws(0))
    assert {x.dtype for x in vars(got).values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eigenvalues": [1.0, -1.0]}, "eigenvalues: got -1"),
        ({"eigenvalues": [0.0, 0.0]}, "eigenvalues: got 0"),
        ({"eigenvalues": [[1.0, 0.5]]}, "eigenvalues: got shape"),
        ({"target_power": [1.0]}, "target_power: got shape"),
        ({"target_power": [[1.0, 1.0]]}, "target_power: got shape"),
        ({"n": 0}, "n: got 0"),
        ({"k": 0}, "k: got 0"),
        ({"k": 2.5}, "k: got 2.5"),
        ({"k": math.nan}, "k: got nan"),
        ({"ridge": [-1.0]}, "ridge: got -1"),
        ({"ridge": math.nan}, "ridge: got nan"),
        ({"noise_variance": -0.1}, "noise_variance: got -0.1"),
        ({"noise_variance": [0.1, 0.2]}, "noise_variance: got shape"),
        ({"num_trials": 0}, "num_trials: got 0"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    arguments = {
        "eigenvalues": [1.0, 0.5],
        "target_power": [1.0, 1.0],
        "n": 2,
        "k": 3,
        "ridge": 0.1,
        "num_trials": 2,
    } | change
    with pytest.raises(ValueError, match=message):
        simulate_rf_ridge(**arguments, generator=draws(0))  # type: ignore[arg-type]


def test_two_infinite_sizes_and_infinite_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="both infinite"):
        simulate_rf_ridge([1.0], [1.0], math.inf, math.inf, [0.1], num_trials=1, generator=torch.Generator())
    with pytest.raises(ValueError, match="n: got inf, want a whole number"):
        simulate_rf_ridge([1.0], [1.0], math.inf, 3, [0.1], num_trials=1, generator=torch.Generator())


def test_counts_of_numpy_and_torch_are_counts() -> None:
    lam, power = [1.0, 0.5], [1.0, 2.0]
    want = simulate_rf_ridge(lam, power, 3, 4, 0.1, num_trials=5, generator=draws(0))
    for kind in (np.int64, np.float64, torch.tensor):
        got = simulate_rf_ridge(lam, power, kind(3), kind(4), 0.1, num_trials=5, generator=draws(0))
        assert got.test == want.test


@pytest.mark.parametrize("value", [True, 2.5, 0, math.nan, -math.inf, np.array([3])])
def test_what_is_no_count_is_named(value: float) -> None:
    for n, k, name in ((value, 4, "n"), (3, value, "k")):
        with pytest.raises(ValueError, match=f"{name}: got .*, want a whole number >= 1"):
            simulate_rf_ridge([1.0], [1.0], n, k, 0.1, num_trials=5, generator=draws(0))

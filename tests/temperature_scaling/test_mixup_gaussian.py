"""The minimiser of Mixup for Gaussian classes against adaptive quadrature and drawn mixtures."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch

from lib.temperature_scaling import (
    mixup_minimizer_gaussian,
)

from . import oracle

MEANS = np.array([[1.0, 0.0], [-1.0, 0.5], [0.0, 2.0]])


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("sigma", [0.3, 1.0])
@pytest.mark.parametrize("prior", [None, [0.5, 0.3, 0.2]])
def test_the_gaussian_minimiser_is_the_mean_of_the_mixed_labels(
    alpha: float, sigma: float, prior: list[float] | None, device: str
) -> None:
    x = np.array([[0.3, 0.2], [1.0, 0.1], [-2.0, -1.0]])
    shares = np.full(3, 1 / 3) if prior is None else np.array(prior)
    want = [oracle.mixup_gaussian(row, MEANS, sigma, shares, alpha) for row in x]
    given_means = torch.tensor(MEANS, device=device)
    got = mixup_minimizer_gaussian(torch.tensor(x, device=device), given_means, sigma, prior=prior, alpha=alpha)
    np.testing.assert_allclose(got.cpu().numpy(), want, atol=1e-9 if alpha >= 1 else 2e-6)


def test_the_gaussian_minimiser_is_the_average_of_drawn_mixtures() -> None:
    rng, n = np.random.default_rng(0), 1_000_000
    y1, y2 = rng.integers(2, size=(2, n))
    lam = rng.random(n)
    z = lam * (2 * y1 - 1 + rng.normal(size=n)) + (1 - lam) * (2 * y2 - 1 + rng.normal(size=n))
    target = lam * y1 + (1 - lam) * y2
    for point in (-0.5, 0.8, 2.0):
        near = np.abs(z - point) < 0.02
        got = mixup_minimizer_gaussian([point], [[-1.0], [1.0]], 1.0)[1].item()
        assert abs(target[near].mean() - got) < 5 * target[near].std() / math.sqrt(near.sum()) + 2e-4


def test_in_many_dimensions_nothing_overflows_and_it_tends_to_the_posterior() -> None:
    d = 5000
    x = torch.randn(4, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    means = torch.zeros(2, d, dtype=torch.float64)
    means[:, 0] = torch.tensor([1.0, -1.0])
    got = mixup_minimizer_gaussian(x + means[0], means, 1.0)
    bayes = torch.sigmoid(2 * (x[:, 0] + 1))
    assert bool(got.isfinite().all())
    torch.testing.assert_close(got[:, 0], bayes, rtol=0, atol=0.02)


def test_the_gaussian_batch_is_the_loop_and_classes_may_be_exchanged() -> None:
    x = torch.randn(2, 3, 2, dtype=torch.float64)
    prior = [0.2, 0.5, 0.3]
    got = mixup_minimizer_gaussian(x, MEANS, 0.7, prior=prior)
    assert got.shape == (2, 3, 3)
    torch.testing.assert_close(got.sum(-1), torch.ones(2, 3, dtype=torch.float64))
    for i in np.ndindex(2, 3):
        torch.testing.assert_close(got[i], mixup_minimizer_gaussian(x[i], MEANS, 0.7, prior=prior))
    other = mixup_minimizer_gaussian(x, MEANS[[2, 0, 1]].copy(), 0.7, prior=[0.3, 0.2, 0.5])
    torch.testing.assert_close(other, got[..., [2, 0, 1]])


def test_the_minimiser_keeps_its_kind() -> None:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    single = mixup_minimizer_gaussian(x, torch.tensor(MEANS, dtype=torch.float32), 0.7)
    double = mixup_minimizer_gaussian(x.double(), MEANS, 0.7)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)


def test_the_minimiser_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    got = mixup_minimizer_gaussian(torch.empty(3, 2, device=fake_gpu), torch.empty(4, 2, device=fake_gpu), 1.0)
    assert (str(got.device), got.dtype, got.shape) == (fake_gpu, torch.float32, (3, 4))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": -1.0}, "sigma"),
        ({"prior": [0.5, 0.6]}, "prior"),
        ({"prior": [1.0]}, "prior"),
        ({"prior": [1.5, -0.5]}, "prior"),
        ({"means": [1.0, 2.0]}, "means"),
        ({"means": [[1.0, 2.0], [0.0, 1.0]]}, "(x|means)"),
        ({"x": [math.nan]}, "x"),
        ({"x": 1.0}, "x"),
        ({"alpha": -1.0}, "alpha"),
        ({"n_nodes": 0}, "n_nodes"),
    ],
)
def test_what_is_wrong_with_a_gaussian_minimiser_is_named(change: dict[str, object], name: str) -> None:
    arguments = {"x": [0.5], "means": [[1.0], [-1.0]], "sigma": 1.0}
    with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
        mixup_minimizer_gaussian(**arguments | change)  # type: ignore[arg-type]


def test_numbers_may_be_numpys_or_tensors_without_axes() -> None:
    means = [[-1.0], [1.0]]
    want = mixup_minimizer_gaussian([[0.3]], means, 1.0, alpha=0.5, n_nodes=16)
    got = inspect.unwrap(mixup_minimizer_gaussian)([[0.3]], means, 1.0, alpha=torch.tensor(0.5), n_nodes=np.int64(16))
    torch.testing.assert_close(got, want, rtol=0, atol=0)

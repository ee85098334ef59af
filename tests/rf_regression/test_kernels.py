"""The ReLU kernel against Monte Carlo and in its corners."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.rf_regression import relu_kernel


def test_it_is_the_mean_over_random_weights(device: str) -> None:
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(4, 3)), 2 * rng.normal(size=(5, 3)), rng.normal(size=(400_000, 3))
    products = np.maximum(w @ x.T, 0)[:, :, None] * np.maximum(w @ y.T, 0)[:, None, :]
    mean, error = products.mean(0), products.std(0) / math.sqrt(len(w))
    got = relu_kernel(torch.tensor(x, device=device), torch.tensor(y, device=device)).cpu().numpy()
    assert (abs(got - mean) < 4.5 * error).all()
    assert error.max() < 0.02


def test_equal_opposite_orthogonal_and_zero_vectors() -> None:
    x = np.array([[3.0, 4.0]])
    got = relu_kernel(x, [[3.0, 4.0], [6.0, 8.0], [-3.0, -4.0], [-4.0, 3.0], [0.0, 0.0]])
    np.testing.assert_allclose(got, [[12.5, 25.0, 0.0, 25 / (2 * math.pi), 0.0]], rtol=1e-14, atol=1e-14)


def test_it_is_a_positive_semidefinite_kernel_of_degree_one_in_each_argument() -> None:
    x = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gram = relu_kernel(x, x)
    torch.testing.assert_close(gram, gram.mT)
    assert torch.linalg.eigvalsh(gram).min() > -1e-12
    torch.testing.assert_close(gram.diagonal(), x.square().sum(-1) / 2, rtol=1e-12, atol=0)
    torch.testing.assert_close(relu_kernel(3 * x, 0.5 * x), 1.5 * gram, rtol=1e-12, atol=1e-12)


def test_gradients_are_finite_on_the_diagonal_and_right_elsewhere() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, 4, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(relu_kernel, (x, y))
    (gradient,) = torch.autograd.grad(relu_kernel(x, x).diagonal().sum(), x)
    torch.testing.assert_close(gradient, x.detach(), rtol=1e-6, atol=1e-7)


def test_float32_and_an_accelerator(fake_gpu: str) -> None:
    got = relu_kernel(torch.rand(3, 4, device=fake_gpu), torch.rand(5, 4, device=fake_gpu))
    assert got.shape == (3, 5)
    assert str(got.device) == fake_gpu
    assert got.dtype == torch.float32


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1.0, 2.0], [[1.0, 2.0]], "x: got shape"),
        ([[1.0, 2.0]], [[1.0]], "y: got shape"),
        ([[1.0, math.nan]], [[1.0, 2.0]], "x: got nan"),
        ([[1.0, 2.0]], [[1.0, math.inf]], "y: got inf"),
    ],
)
def test_what_is_wrong_is_named(x: list[float], y: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        relu_kernel(x, y)

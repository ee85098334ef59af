"""The simplex frame against the definition of its Gram matrix."""

from __future__ import annotations

import inspect
import itertools
import math

import numpy as np
import pytest
import torch

from lib.neural_collapse import simplex_etf


def gram(classes: int) -> np.ndarray:
    """Ones on the diagonal, -1/(K-1) elsewhere."""
    return np.array([[1.0 if k == j else -1 / (classes - 1) for j in range(classes)] for k in range(classes)])


@pytest.mark.parametrize(("classes", "dim"), [(2, 1), (2, 5), (3, 2), (7, 6), (7, 20), (100, 99), (100, 128)])
@pytest.mark.parametrize("turned", [False, True])
def test_unit_rows_meet_at_the_smallest_common_cosine(classes: int, dim: int, turned: bool, device: str) -> None:
    generator = torch.Generator(device).manual_seed(3) if turned else None
    corners = simplex_etf(classes, dim, generator=generator, device=device)
    assert corners.shape == (classes, dim)
    assert corners.dtype == torch.float64
    assert corners.device.type == device
    got = (corners @ corners.mT).cpu().numpy()
    np.testing.assert_allclose(got, gram(classes), rtol=0, atol=1e-12)
    np.testing.assert_allclose(corners.sum(0).cpu(), 0, atol=1e-12)


def test_no_frame_of_unit_vectors_has_a_smaller_common_cosine() -> None:
    rng = np.random.default_rng(0)
    for classes, dim in itertools.product((2, 3, 6), (8, 20)):
        rows = rng.normal(size=(classes, dim))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        largest = max(rows[k] @ rows[j] for k, j in itertools.combinations(range(classes), 2))
        corners = simplex_etf(classes, dim)
        assert largest > (corners[0] @ corners[1]).item()


def test_a_generator_turns_it_and_the_same_one_turns_it_alike() -> None:
    plain, again = simplex_etf(4, 6), simplex_etf(4, 6)
    torch.testing.assert_close(plain, again, rtol=0, atol=0)
    first, second, other = (simplex_etf(4, 6, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert (first - other).abs().max() > 0.1
    assert (first - plain).abs().max() > 0.1


def test_random_orientations_favour_no_direction() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.stack([simplex_etf(3, 2, generator=generator) for _ in range(4000)])
    # each corner is uniform on the circle: mean 0 and second moment 1/2, with standard errors of 1/sqrt(2 * 4000)
    assert corners.mean(0).abs().max() < 5 / math.sqrt(8000)
    assert (corners.square().mean(0) - 0.5).abs().max() < 5 / math.sqrt(8000)
    # and both orders of turning occur: the frame is reflected in half of the draws
    turn = corners[:, 0, 0] * corners[:, 1, 1] - corners[:, 0, 1] * corners[:, 1, 0]
    assert 0.4 < (turn > 0).double().mean() < 0.6


def test_single_precision_is_kept_and_agrees() -> None:
    single = simplex_etf(10, 12, dtype=torch.float32)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), simplex_etf(10, 12), rtol=0, atol=1e-6)


def test_it_is_made_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    corners = simplex_etf(5, 7, dtype=torch.float32, device=fake_gpu)
    assert str(corners.device) == fake_gpu
    assert (corners.shape, corners.dtype) == ((5, 7), torch.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 3), "num_classes: got 1, want"),
        ((0, 3), "num_classes: got 0, want"),
        ((-2, 3), "num_classes: got -2, want"),
        ((5, 3), "dim: got 3, want .*4"),
        ((2, 0), "dim: got 0, want .*1"),
    ],
)
def test_what_is_wrong_is_named(arguments: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simplex_etf(*arguments)


def test_sizes_may_be_numbers_of_numpy() -> None:
    got = inspect.unwrap(simplex_etf)(np.int64(3), np.int64(4))
    torch.testing.assert_close(got, simplex_etf(3, 4), rtol=0, atol=0)

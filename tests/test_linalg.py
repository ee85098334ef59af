"""Batched linear systems against numpy, one matrix at a time, and on the several threads where torch alone fails."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from lib.linalg import LARGEST, factorise, solve


def systems(size: int, batch: int, device: str, *, by_columns: bool) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(size)
    chain = rng.dirichlet(np.full(size, 0.1), size=(batch, size))
    matrix = torch.tensor(np.eye(size) - 0.999 * chain, device=device)
    right = torch.tensor(rng.normal(size=(batch, size, 3)), device=device)
    return matrix.mT if by_columns else matrix, right


@pytest.mark.parametrize("size", [1, 2, LARGEST, LARGEST + 1, 2 * LARGEST + 3])
@pytest.mark.parametrize("by_columns", [False, True])
def test_it_agrees_with_numpy_one_matrix_at_a_time(size: int, by_columns: bool, device: str) -> None:
    matrix, right = systems(size, 3, device, by_columns=by_columns)
    want = np.stack([np.linalg.solve(m, r) for m, r in zip(matrix.cpu().numpy(), right.cpu().numpy(), strict=True)])
    got = solve(matrix, right)
    np.testing.assert_allclose(got.cpu(), want, rtol=1e-9, atol=1e-9 * np.abs(want).max())
    assert got.device.type == device


def test_a_single_matrix_and_float32_are_welcome() -> None:
    matrix, right = (x[0].float() for x in systems(LARGEST + 5, 1, "cpu", by_columns=False))
    torch.testing.assert_close(matrix @ solve(matrix, right), right, rtol=1e-4, atol=1e-3)
    assert solve(matrix[None], right[None]).dtype == torch.float32


@pytest.mark.parametrize("size", [3, LARGEST + 1])
def test_batch_axes_broadcast(size: int) -> None:
    matrix, right = systems(size, 3, "cpu", by_columns=False)
    want = torch.stack([solve(m, right) for m in matrix])
    torch.testing.assert_close(solve(matrix[:, None], right), want)
    torch.testing.assert_close(solve(matrix, right[0]), torch.stack([solve(m, right[0]) for m in matrix]))
    torch.testing.assert_close(solve(matrix[0], right), torch.stack([solve(matrix[0], r) for r in right]))


@pytest.mark.parametrize("size", [5, LARGEST + 3])
def test_one_factorisation_serves_several_right_sides(size: int, device: str) -> None:
    matrix, right = systems(size, 3, device, by_columns=False)
    solution = factorise(matrix)
    for k in range(3):
        torch.testing.assert_close(matrix @ solution(right[..., k : k + 1]), right[..., k : k + 1])


@pytest.mark.parametrize("size", [3, LARGEST + 1])
def test_a_singular_matrix_is_refused(size: int) -> None:
    with pytest.raises(RuntimeError, match="zero"):
        factorise(torch.zeros(2, size, size))


def test_gradients_pass_through_the_blocks() -> None:
    matrix, right = systems(LARGEST + 1, 1, "cpu", by_columns=False)
    matrix, right = matrix.requires_grad_(), right.requires_grad_()
    ours = torch.autograd.grad(solve(matrix, right).square().sum(), (matrix, right))
    whole = torch.autograd.grad(torch.linalg.solve(matrix, right).square().sum(), (matrix, right))
    for got, want in zip(ours, whole, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8 * want.abs().max().item())


def test_several_threads_solve_a_batch_of_large_systems() -> None:
    """In a process of its own, because the tests run on one thread."""
    program = (
        "import torch; from lib.linalg import solve; torch.set_num_threads(2); "
        "m = torch.eye(200, dtype=torch.float64).expand(3, -1, -1) * 2; "
        "x = solve(m, torch.ones(3, 200, 1, dtype=torch.float64)); assert bool((x == 0.5).all())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    got = solve(torch.empty(4, 7, 7, device=fake_gpu), torch.empty(4, 7, 2, device=fake_gpu))
    assert got.shape == (4, 7, 2)
    assert str(got.device) == fake_gpu

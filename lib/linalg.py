"""Batches of linear systems, also where torch cannot solve them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lib.shapes import Float

LARGEST = 128  # unknowns up to which torch factorises a batch reliably on several threads


def solve(matrix: Float[Tensor, "*#batch n n"], right: Float[Tensor, "*#batch n k"]) -> Float[Tensor, "*out n k"]:
    """Solve `matrix @ x = right` for systems that need no pivoting between blocks.

    On the CPU with more than one thread `torch.linalg.solve` fails on a batch of matrices with more than 150 rows
    (pytorch issue 142815). Such a batch is halved by block elimination until its blocks are small. That is stable for
    matrices with a dominant diagonal, by rows or by columns, and for positive definite ones, because their Schur
    complements are of the same kind.

    Args:
        matrix: diagonally dominant or positive definite, shape (*batch, n, n).
        right: k right sides, shape (*batch, n, k); batch axes broadcast.

    Raises:
        RuntimeError: a matrix is singular (on the CPU).

    >>> solve(torch.tensor([[[2.0, 0.0], [0.0, 4.0]]]), torch.tensor([[[2.0], [2.0]]])).flatten()
    tensor([1.0000, 0.5000])
    """
    return factorise(matrix)(right)


def factorise(
    matrix: Float[Tensor, "*#batch n n"],
) -> Callable[[Float[Tensor, "*#batch n k"]], Float[Tensor, "*out n k"]]:
    """The function that solves `matrix @ x = right` for one right side after another, see `solve`.

    Args:
        matrix: diagonally dominant or positive definite, shape (*batch, n, n).

    Raises:
        RuntimeError: a matrix is singular (on the CPU).

    >>> solution = factorise(torch.tensor([[2.0, 0.0], [0.0, 4.0]]))
    >>> solution(torch.tensor([[2.0], [2.0]])).flatten(), solution(torch.tensor([[4.0], [0.0]])).flatten()
    (tensor([1.0000, 0.5000]), tensor([2., 0.]))
    """
    size = matrix.shape[-1]
    if size <= LARGEST or matrix.ndim == 2 or matrix.device.type != "cpu":
        factors, pivots = torch.linalg.lu_factor(matrix)
        return lambda right: torch.linalg.lu_solve(factors, pivots, right)
    half = size // 2
    below = matrix[..., half:, :half]
    upper = factorise(matrix[..., :half, :half])
    across = upper(matrix[..., :half, half:])
    lower = factorise(matrix[..., half:, half:] - below @ across)

    def solution(right: Tensor) -> Tensor:
        alone = upper(right[..., :half, :])
        last = lower(right[..., half:, :] - below @ alone)
        first = alone - across @ last
        return torch.cat((first, last.expand(*first.shape[:-2], *last.shape[-2:])), -2)

    return solution


__all__ = ["factorise", "solve"]

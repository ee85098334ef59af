"""Batches of linear systems, also where torch cannot solve them."""

from __future__ import annotations

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
    size = matrix.shape[-1]
    batch = torch.broadcast_shapes(matrix.shape[:-2], right.shape[:-2])
    matrix, right = matrix.expand(*batch, size, size), right.expand(*batch, size, right.shape[-1])
    if size <= LARGEST or matrix.ndim == 2 or matrix.device.type != "cpu":
        solution: Tensor = torch.linalg.solve(matrix, right)
        return solution
    half = size // 2
    first = solve(matrix[..., :half, :half], torch.cat((matrix[..., :half, half:], right[..., :half, :]), -1))
    across, alone = first[..., : size - half], first[..., size - half :]
    below = matrix[..., half:, :half]
    lower = solve(matrix[..., half:, half:] - below @ across, right[..., half:, :] - below @ alone)
    return torch.cat((alone - across @ lower, lower), -2)


__all__ = ["solve"]

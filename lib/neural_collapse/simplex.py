"""The simplex equiangular tight frame: as many unit vectors as classes, as far apart as possible."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import read_size
from lib.shapes import Float


def simplex_etf(
    num_classes: int,
    dim: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Float[Tensor, "C d"]:
    r"""Unit vectors $\mathcal E_1,\dots,\mathcal E_C$ of equal pairwise cosine $-\frac1{C-1}$, the smallest possible.

    $$ \mathcal E\mathcal E^\top=\frac C{C-1}\Big(I-\frac1C\mathbf 1\mathbf 1^\top\Big). $$
    Coordinates in a Helmert basis of the vectors orthogonal to $\mathbf 1$, padded with zeros, then turned at random if
    a generator is given.

    Args:
        num_classes: C, at least 2.
        dim: d, at least C - 1.
        generator: source of a random orientation; without it the vectors lie along the first C - 1 axes.
        dtype: of the result.
        device: of the result; that of the generator by default.

    Returns:
        One unit vector a row, shape (C, d).

    Raises:
        ValueError: fewer than 2 classes, fewer than C - 1 dimensions, or a dtype that is not floating.

    Source: Papyan, Han and Donoho (2020), Prevalence of neural collapse, PNAS 117; own construction.

    >>> simplex_etf(3, 2) @ simplex_etf(3, 2).T
    tensor([[ 1.0000, -0.5000, -0.5000],
            [-0.5000,  1.0000, -0.5000],
            [-0.5000, -0.5000,  1.0000]], dtype=torch.float64)
    """
    num_classes = read_size("num_classes", num_classes, 2)
    dim = read_size("dim", dim, num_classes - 1)
    if not dtype.is_floating_point:
        raise ValueError(f"dtype: got {dtype}, want a floating dtype")
    where = torch.device(device) if device is not None else generator.device if generator else torch.device("cpu")
    # Helmert: column j has j + 1 equal entries and then one that balances them, so that columns are orthogonal.
    size = torch.arange(1, num_classes, dtype=dtype, device=where)
    row = torch.arange(num_classes, dtype=dtype, device=where).unsqueeze(-1)
    helmert = ((row < size).to(dtype) - size * (row == size).to(dtype)) / (size * (size + 1)).sqrt()
    flat = helmert * (num_classes / (num_classes - 1)) ** 0.5
    if generator is None:
        return torch.cat((flat, flat.new_zeros(num_classes, dim - num_classes + 1)), -1)
    gaussian = torch.randn(dim, num_classes - 1, generator=generator, dtype=dtype, device=generator.device).to(where)
    basis, triangle = torch.linalg.qr(gaussian)
    basis = basis * triangle.diagonal().sign()  # so that all orientations are equally likely
    frame: Tensor = flat @ basis.mT
    return frame

"""Data for the wider settings: modular addition, a teacher network, and real inputs made white."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, read_size, require, require_finite, require_shape
from lib.shapes import Float, Real


@dataclass(frozen=True)
class Task:
    """A training and a test set for each of several runs, one row an input of length about one."""

    train_inputs: Float[Tensor, "runs n d"]
    train_targets: Float[Tensor, "runs n k"]
    test_inputs: Float[Tensor, "runs rest d"]
    test_targets: Float[Tensor, "runs rest k"]

    def to(self, kind: torch.dtype | torch.device | str) -> Task:
        """The same task in another dtype or on another device."""
        parts = (self.train_inputs, self.train_targets, self.test_inputs, self.test_targets)
        return Task(*(part.to(kind) for part in parts))


def modular_addition(
    modulus: int, share: float, runs: int, *, mirrored: bool = True, generator: torch.Generator
) -> Task:
    r"""The table of $(a+b) \bmod p$, of which a random part is shown in training.

    An input is the pair of one-hot vectors of $a$ and $b$ divided by $\sqrt 2$, so that its length is one and two
    pairs have the inner product of half their number of shared tokens. A target is the one-hot vector of the sum
    minus $1/p$.

    Args:
        modulus: $p$, 2 or above; the table has $p^2$ rows.
        share: part of the table for training, 0 < share < 1.
        runs: number of independent splits.
        mirrored: whether $(a,b)$ and $(b,a)$ always fall into the same part. If not, a test pair's mirror image may
            have been shown in training, and a network that knows $a+b=b+a$ alone answers it.
        generator: source of randomness; the task lies on its device.

    Returns:
        Inputs ``(runs, rows, 2 p)`` and targets ``(runs, rows, p)`` in float64.

    Raises:
        ValueError: `modulus` below 2, `runs` below 1, a share that leaves the training or the test part empty.

    Source: Power, Burda, Edwards, Babuschkin and Misra (2022), arXiv 2201.02177, for the task; own splits.

    >>> task = modular_addition(5, 0.6, 2, generator=torch.Generator().manual_seed(0))
    >>> task.train_inputs.shape, task.test_targets.shape
    (torch.Size([2, 15, 10]), torch.Size([2, 10, 5]))
    """
    read_size("modulus", modulus, 2)
    read_size("runs", runs, 1)
    if not 0 < share < 1:
        raise ValueError(f"share: got {share!r}, want a number between 0 and 1")
    device = generator.device
    a = torch.arange(modulus, device=device).repeat_interleave(modulus)
    b = torch.arange(modulus, device=device).repeat(modulus)
    inside = torch.stack([_shown(a, b, modulus, share, mirrored, generator) for _ in range(runs)])
    n = int(inside[0].sum())
    if not 0 < n < len(a):
        raise ValueError(f"share: got {share!r}, want one that leaves rows of the {len(a)} for both parts")
    first_shown = (~inside).to(torch.int8).argsort(stable=True)
    hot = torch.eye(modulus, dtype=torch.float64, device=device)
    inputs = (torch.cat([hot[a], hot[b]], -1) / math.sqrt(2))[first_shown]
    targets = (hot[(a + b) % modulus] - 1 / modulus)[first_shown]
    return Task(inputs[:, :n], targets[:, :n], inputs[:, n:], targets[:, n:])


def _shown(a: Tensor, b: Tensor, modulus: int, share: float, mirrored: bool, generator: torch.Generator) -> Tensor:
    """Which rows of the table are training rows, the same number for every draw."""
    chance = torch.rand(modulus, modulus, generator=generator, device=a.device)
    if not mirrored:
        keys = chance[a, b]
        return keys <= keys.sort().values[max(round(share * len(a)), 1) - 1]
    keys = chance[torch.minimum(a, b), torch.maximum(a, b)]  # one draw for a pair and its mirror image
    inside = torch.zeros_like(a, dtype=torch.bool)
    for part, size in ((a == b, 1), (a != b, 2)):  # as many of the diagonal in every draw, so that n is the same
        own = keys[part].sort().values
        count = round(share * len(own) / size) * size
        if count:
            inside |= part & (keys <= own[count - 1])
    return inside


def student_teacher(
    dim: int,
    train: int,
    test: int,
    runs: int,
    *,
    activation: Callable[[Tensor], Tensor] = torch.relu,
    units: int = 1,
    generator: torch.Generator,
) -> Task:
    r"""Gaussian inputs, labelled by a random two-layer network:

    $$ y\propto\sum_{k=1}^{K}v_k\,\sigma(w_k\cdot x)-\text{const},\qquad x\sim\mathcal N(0,I/D),\quad
       w_k\sim\mathcal N(0,I),\quad v_k\sim\mathcal N(0,1). $$

    Args:
        dim: $D$, dimension of the inputs.
        train: rows for training.
        test: rows for the test.
        runs: number of teachers, each with its own rows.
        activation: $\sigma$, applied to each entry of a tensor.
        units: $K$, hidden units of the teacher.
        generator: source of randomness; the task lies on its device.

    Returns:
        Inputs ``(runs, rows, dim)`` and targets ``(runs, rows, 1)`` in float64. Over all rows of a run the targets have
        mean zero and mean square one.

    Raises:
        ValueError: a size below 1, or a teacher that is constant on its rows.

    Source: own construction.

    >>> task = student_teacher(10, 20, 30, 4, generator=torch.Generator().manual_seed(0))
    >>> task.train_targets.shape
    torch.Size([4, 20, 1])
    """
    for name, size in {"dim": dim, "train": train, "test": test, "runs": runs, "units": units}.items():
        read_size(name, size, 1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, device=generator.device)

    x = normal(runs, train + test, dim) / math.sqrt(dim)
    y: Tensor = activation(x @ normal(runs, dim, units)) @ normal(runs, units, 1)
    y = y - y.mean(-2, keepdim=True)
    spread = y.square().mean(-2, keepdim=True).sqrt()
    require("activation", spread > 0, "a teacher that is not constant on its rows, a spread > 0", spread)
    y = y / spread
    return Task(x[:, :train], y[:, :train], x[:, train:], y[:, train:])


def whiten(rows: Real[Tensor, "count features"] | ArrayLike, dim: int) -> Float[Tensor, "count dim"]:
    r"""The leading principal components of data, each scaled to mean zero and mean square $1/D$.

    Over the rows given, the result has the mean and the covariance $I/D$ of the inputs of theory; what is left of the
    data is all that a Gaussian of that covariance does not have.

    Args:
        rows: one input a row, shape (count, features), count > dim.
        dim: $D$, number of components.

    Returns:
        Shape (count, dim), largest component first; the sign of a column is arbitrary.

    Raises:
        ValueError: no matrix of finite numbers, or a rank below `dim`.

    Source: principal component analysis, Hotelling (1933).

    >>> white = whiten([[0.0, 0.0], [2.0, 0.0], [0.0, 6.0], [2.0, 6.0]], 2)
    >>> (white.T @ white / 4).round(decimals=9) + 0.0
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]], dtype=torch.float64)
    """
    read_size("dim", dim, 1)
    x = as_float("rows", rows)
    require_shape("rows", x, x.ndim == 2 and min(x.shape) >= 1, "(count, features)")
    require_finite("rows", x)
    x = x - x.mean(0)
    power, axes = torch.linalg.eigh(x.T @ x / len(x))
    limit = power[-1] * max(x.shape) * torch.finfo(x.dtype).eps
    rank = int((power > limit).sum())
    if rank < dim:
        raise ValueError(f"dim: got {dim}, want at most the rank of the centred rows, {rank}")
    power, axes = power[-dim:].flip(0), axes[:, -dim:].flip(1)
    white: Tensor = x @ (axes / (power * dim).sqrt())
    return white


__all__ = ["Task", "modular_addition", "student_teacher", "whiten"]

"""From data to a task: the spectrum of a kernel matrix, exponents, and errors outside a finite pool."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, require, require_positive, require_shape
from lib.shapes import Float, Real


@dataclass(frozen=True)
class EmpiricalSpectrum:
    """Kernel eigenvalues in falling order and the squared target coefficient on each."""

    eigenvalues: Float[Tensor, " N"]
    target_power: Float[Tensor, " N"]


@dataclass(frozen=True)
class PowerLawFit:
    r"""Exponents of $\lambda_i\propto i^{-\alpha}$ and $v_i^2\propto i^{-\beta}$."""

    alpha: Float[Tensor, ""]
    beta: Float[Tensor, ""]


def read_kernel(kernel: Tensor | ArrayLike, targets: Tensor | ArrayLike) -> tuple[Tensor, Tensor]:
    """A kernel matrix `(N, N)` and its targets as `(N, C)`, both finite."""
    gram = as_float("kernel", kernel)
    require_shape("kernel", gram, gram.ndim == 2 and 0 < gram.shape[0] == gram.shape[1], "(N, N) with N >= 1")
    require("kernel", gram.isfinite(), "finite numbers", gram)
    labels = as_float("targets", targets, like=gram)
    fits = labels.ndim in (1, 2) and labels.shape[0] == gram.shape[0]
    require_shape("targets", labels, fits, f"({gram.shape[0]},) or ({gram.shape[0]}, C), one row a kernel row")
    require("targets", labels.isfinite(), "finite numbers", labels)
    return gram, labels if labels.ndim == 2 else labels.unsqueeze(-1)


def empirical_spectrum(
    kernel: Real[Tensor, "N N"] | ArrayLike, targets: Real[Tensor, " N"] | Real[Tensor, "N C"] | ArrayLike
) -> EmpiricalSpectrum:
    r"""Eigenvalues of a kernel on a pool of N points, and the target's power on its eigenvectors.

    $$ \frac1NK=\sum_i\lambda_iu_iu_i^\top,\qquad v_i^2=\frac1N\sum_c(u_i^\top y_c)^2, $$
    so that $\sum_iv_i^2$ is the mean over points of $|y|^2$.

    Args:
        kernel: K, symmetric (its lower triangle is read), shape (N, N).
        targets: y, shape (N,), or (N, C) for C targets whose power adds up.

    Returns:
        Both of shape (N,), eigenvalues falling, those below zero by rounding set to zero.

    Raises:
        ValueError: a kernel that is not square, targets of another length, a number that is not finite.

    Source: Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646 (procedure of the experiments).

    >>> empirical_spectrum([[2.0, 0.0], [0.0, 4.0]], [1.0, 3.0])
    EmpiricalSpectrum(eigenvalues=tensor([2., 1.], dtype=torch.float64),
                      target_power=tensor([4.5000, 0.5000], dtype=torch.float64))
    """
    gram, labels = read_kernel(kernel, targets)
    points = gram.shape[0]
    values, vectors = torch.linalg.eigh(gram / points)
    power = (vectors.mT @ labels).square().sum(-1) / points
    return EmpiricalSpectrum(values.clamp_min(0).flip(-1), power.flip(-1))


def fit_powerlaw_exponents(
    sizes: Real[Tensor, " S"] | ArrayLike, kappa: Real[Tensor, " S"] | ArrayLike, test: Real[Tensor, " S"] | ArrayLike
) -> PowerLawFit:
    r"""Exponents of a task from how the ridgeless fit changes with the number of samples.

    Ridgeless kernel regression has $\kappa\propto n^{-\alpha}$, measured as $1/\mathrm{tr}K_n^{-1}$, and on noiseless
    targets $E_{\rm test}\propto n^{1-\beta}$: least squares in double logarithms gives $\alpha$ as minus the first
    slope and $\beta$ as one minus the second.

    Args:
        sizes: n, shape (S,) with at least two different sizes.
        kappa: $1/\mathrm{tr}K_n^{-1}$ at each size, shape (S,).
        test: ridgeless test error at each size, shape (S,).

    Returns:
        The two exponents, each of shape ().

    Raises:
        ValueError: different lengths, fewer than two different sizes, a number that is not positive and finite.

    Source: Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646 (procedure of the experiments).

    >>> fit = fit_powerlaw_exponents([10, 20], [0.1, 0.025], [1.0, 0.5])
    >>> fit.alpha, fit.beta
    (tensor(2.0000, dtype=torch.float64), tensor(2.0000, dtype=torch.float64))
    """
    level = as_float("kappa", kappa)
    samples, errors = as_float("sizes", sizes, like=level), as_float("test", test, like=level)
    for name, x in (("sizes", samples), ("kappa", level), ("test", errors)):
        require_shape(name, x, x.ndim == 1 and x.shape == samples.shape and x.shape[0] >= 2, "(S,) with S >= 2")
        require_positive(name, x)
    spread = samples.log() - samples.log().mean()
    total = spread.square().sum()
    require("sizes", samples.amax() > samples.amin(), "at least two different sizes", samples.amax())
    return PowerLawFit(-(spread * level.log()).sum() / total, 1 - (spread * errors.log()).sum() / total)


def heldout_from_pool(
    test: Real[Tensor, "*#batch"] | ArrayLike,
    train: Real[Tensor, "*#batch"] | ArrayLike,
    n: Real[Tensor, "*#batch"] | ArrayLike,
    pool_size: Real[Tensor, "*#batch"] | ArrayLike,
) -> Float[Tensor, "*batch"]:
    r"""Error on the points of a finite pool that were not trained on.

    If the eigensystem is that of a pool of N points, the test error of the theory averages over all of them, the n
    training points included:
    $$ E_{held\text{-}out}=\frac{N\,E_{\rm test}-n\,E_{\rm train}}{N-n}. $$

    Args:
        test: $E_{\rm test}$ over the pool; all arguments broadcast to (*batch,).
        train: $E_{\rm train}$ over the training points.
        n: training points.
        pool_size: N, above n.

    Returns:
        Mean error over the other N - n points, shape (*batch,).

    Raises:
        ValueError: an error that is negative or NaN, n not positive, a pool that is not larger than n.

    Source: Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646 (procedure of the experiments).

    >>> heldout_from_pool(0.75, 0.0, 25, 100)
    tensor(1., dtype=torch.float64)
    """
    pool_error = as_float("test", test)
    fit_error, samples = as_float("train", train, like=pool_error), as_float("n", n, like=pool_error)
    size = as_float("pool_size", pool_size, like=pool_error)
    broadcast_batch(test=pool_error.shape, train=fit_error.shape, n=samples.shape, pool_size=size.shape)
    require("test", pool_error >= 0, "a number >= 0", pool_error)
    require("train", fit_error >= 0, "a number >= 0", fit_error)
    require_positive("n", samples)
    require("pool_size", (size > samples) & size.isfinite(), "more points than n", size)
    return (size * pool_error - samples * fit_error) / (size - samples)

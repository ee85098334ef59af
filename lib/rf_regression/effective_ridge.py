"""Effective regularisation: what a random-feature ridge regression does to each mode of the kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, read_size, require
from lib.rf_regression.compression import weighted_modes
from lib.rf_regression.modes import learned_share
from lib.rf_regression.setting import read_eigenvalues, read_ridge, read_sizes
from lib.rf_regression.solution import ITERATIONS, solution
from lib.shapes import Float, Real


@dataclass(frozen=True)
class EffectiveRidge:
    r"""Effective ridges and how much of the samples and features they leave over; `residual` is $|z+b_{\min}-m|/m$."""

    gamma: Float[Tensor, "*batch"]
    kappa: Float[Tensor, "*batch"]
    modes_learned: Float[Tensor, "*batch"]
    modes_learned_squared: Float[Tensor, "*batch"]
    sample_slack: Float[Tensor, "*batch"]
    feature_slack: Float[Tensor, "*batch"]
    residual: Float[Tensor, "*batch"]


def learnabilities(
    eigenvalues: Real[Tensor, "*#batch M"] | ArrayLike, gamma: Real[Tensor, "*#batch"] | ArrayLike
) -> Float[Tensor, "*out M"]:
    r"""Share $L_i=\lambda_i/(\lambda_i+\Gamma)$ of each mode that is learned.

    Args:
        eigenvalues: $\lambda_i$ in any order, shape (*batch, M).
        gamma: effective ridge $\Gamma \ge 0$, shape broadcastable to (*batch,).

    Returns:
        Numbers in [0, 1], shape (*batch, M); 0 where the eigenvalue is 0, whatever gamma is.

    Raises:
        ValueError: an eigenvalue or a gamma that is negative or NaN, all eigenvalues zero.

    Source: Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646.

    >>> learnabilities([3.0, 1.0, 0.0], 1.0)
    tensor([0.7500, 0.5000, 0.0000], dtype=torch.float64)
    """
    spectrum = read_eigenvalues(eigenvalues)
    ridge = as_float("gamma", gamma, like=spectrum)
    require("gamma", ridge >= 0, "a number >= 0", ridge)
    broadcast_batch(eigenvalues=spectrum.shape[:-1], gamma=ridge.shape)
    present = spectrum > 0
    share, _ = learned_share(torch.where(present, spectrum, torch.ones_like(spectrum)), ridge.unsqueeze(-1))
    learned: Tensor = torch.where(present & ridge.unsqueeze(-1).isfinite(), share, torch.zeros_like(share))
    return learned


def solve_effective_ridge(
    eigenvalues: Real[Tensor, "*#batch M"] | ArrayLike,
    n: Real[Tensor, "*#batch"] | ArrayLike,
    k: Real[Tensor, "*#batch"] | ArrayLike,
    ridge: Real[Tensor, "*#batch"] | ArrayLike,
    *,
    num_iterations: int = ITERATIONS,
) -> EffectiveRidge:
    r"""Outer and inner effective ridge $\Gamma,\kappa\ge0$ of random-feature ridge regression.

    They solve $n=\sum_i\frac{\lambda_i}{\lambda_i+\Gamma}+\frac{\delta}{\kappa}$ and
    $k=\sum_i\frac{\lambda_i}{\lambda_i+\Gamma}+\frac{k\kappa}{\Gamma}$. With $m=\min(n,k)$ and $\chi=|1-n/k|$ both are
    one scalar equation that falls in $\Gamma$,
    $$ \sum_i\frac{\lambda_i}{\lambda_i+\Gamma}+\frac{2\delta/\Gamma}{\chi+\sqrt{\chi^2+4\delta/(k\Gamma)}}=m, $$
    solved by bracketed Newton steps in $\log\Gamma$. At $\delta=0$ and rank at most $m$ its solution is $\Gamma=0$.
    Gradients are those of the solution (one Newton step is differentiated), once, in every argument; that in an
    eigenvalue 0 is 0. Spectra of 1000 and more modes on the CPU are compressed unless a gradient in them is asked for.

    Args:
        eigenvalues: $\lambda_i$ in any order, shape (*batch, M).
        n: training samples, `math.inf` allowed; n, k and ridge broadcast to (*batch,).
        k: random features, `math.inf` allowed, but not together with n.
        ridge: $\delta$, added to the unnormalised Gram matrix; `math.inf` is the limit.
        num_iterations: Newton steps; the default is ample, fewer show in `residual`.

    Returns:
        All of shape (*batch,): `modes_learned` is $z=\sum L_i$, `modes_learned_squared` $q=\sum L_i^2$, `sample_slack`
        $b_n=n-z$, `feature_slack` $b_k=k-z$ (infinite where n or k is).

    Raises:
        ValueError: a ridge or eigenvalue that is negative or NaN, all eigenvalues zero, n or k not positive, both
            infinite, no iteration, shapes that do not broadcast.

    Source: Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646; the scalar equation is an own extension.

    >>> solve_effective_ridge([1.0, 1.0, 1.0, 1.0], n=2, k=float("inf"), ridge=1.0).gamma.round(decimals=4)
    tensor(1.7808, dtype=torch.float64)
    """
    read_size("num_iterations", num_iterations, 1)
    spectrum = read_eigenvalues(eigenvalues)
    sizes = read_sizes(n, k, like=spectrum)
    delta = read_ridge(ridge, like=spectrum)
    broadcast_batch(eigenvalues=spectrum.shape[:-1], n=sizes.n.shape, ridge=delta.shape)
    found = solution(weighted_modes(spectrum), sizes, delta, num_iterations)
    return EffectiveRidge(
        gamma=found.gamma,
        kappa=found.kappa,
        modes_learned=found.learned,
        modes_learned_squared=found.learned_squared,
        sample_slack=found.slack.samples,
        feature_slack=found.slack.features,
        residual=found.residual,
    )

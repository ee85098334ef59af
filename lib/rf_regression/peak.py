"""The double-descent peak: the test error where there are as many features as samples."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, require, require_positive
from lib.rf_regression.compression import weighted_modes
from lib.rf_regression.risk import power_sums
from lib.rf_regression.setting import read_eigenvalues, read_noise, read_power, read_ridge, read_sizes
from lib.rf_regression.solution import solution
from lib.shapes import Float, Real


def double_descent_peak(
    eigenvalues: Real[Tensor, "*#batch M"] | ArrayLike,
    target_power: Real[Tensor, "*#batch M"] | ArrayLike,
    n: Real[Tensor, "*#batch"] | ArrayLike,
    ridge: Real[Tensor, "*#batch"] | ArrayLike,
    noise_variance: Real[Tensor, "*#batch"] | ArrayLike = 0.0,
) -> Float[Tensor, "*batch"]:
    r"""Leading term, for small ridge, of the test error at n = k.

    With $\Gamma_0$ the effective ridge at $\delta=0$, $\sum_i\lambda_i/(\lambda_i+\Gamma_0)=n$,
    $$ E_{\rm test}\simeq\frac12\sqrt{\frac{n\Gamma_0}{\delta}}\Big[\sum_i(1-L_i)v_i^2+\sigma^2\Big], $$
    with a relative error of order $\sqrt\delta$: the peak diverges as $\delta^{-1/2}$.

    Args:
        eigenvalues: $\lambda_i$ in any order, shape (*batch, M).
        target_power: $v_i^2$, shape (*batch, M).
        n: samples and features, fewer than positive eigenvalues; n, ridge and noise broadcast to (*batch,).
        ridge: $\delta>0$, added to the unnormalised Gram matrix.
        noise_variance: $\sigma^2$ of the labels; the test error includes it.

    Returns:
        Test error, shape (*batch,); 0 on an accelerator where n is not below the rank.

    Raises:
        ValueError: as `rf_risk`; a ridge that is not positive, n at or above the rank (there is no peak).

    Source: own extension of Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646.

    >>> double_descent_peak([1.0] * 4, [0.25] * 4, 2, 0.01)  # gamma is 1: sqrt(200) / 4
    tensor(3.5355, dtype=torch.float64)
    """
    spectrum = read_eigenvalues(eigenvalues)
    power = read_power(target_power, spectrum)
    sizes = read_sizes(n, n, like=spectrum)
    delta, noise = read_ridge(ridge, like=spectrum), read_noise(noise_variance, like=spectrum)
    require_positive("ridge", delta)
    batch = broadcast_batch(
        eigenvalues=spectrum.shape[:-1],
        target_power=power.shape[:-1],
        n=sizes.n.shape,
        ridge=delta.shape,
        noise_variance=noise.shape,
    )
    rank = (spectrum > 0).sum(-1)
    require("n", sizes.n < rank, "fewer samples than positive eigenvalues", sizes.n)
    modes = weighted_modes(spectrum, power)
    found = solution(modes, sizes, torch.zeros_like(sizes.n))
    unlearned, boundary = power_sums(modes, found.gamma)
    return ((sizes.n * found.gamma / delta).sqrt() / 2 * (unlearned + boundary + noise)).expand(batch)

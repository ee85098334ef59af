r"""Closed forms for power-law tasks, $\lambda_i=i^{-\alpha}$ and $v_i^2=i^{-\beta}$, at large n."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, require, require_nonnegative, require_positive
from lib.rf_regression.task import read_exponents
from lib.shapes import Float, Real

NEWTON_STEPS = 40  # monotone Newton steps on a convex function; ten are enough for exponents up to 5


def _common(**values: Tensor | ArrayLike) -> dict[str, Tensor]:
    """All arguments as tensors of one batch shape, on the device of the tensors among them.

    Single numbers, as tensors too, do not lower the precision: float64 unless all floating arrays have less.
    """
    tensors = [x for x in values.values() if isinstance(x, Tensor)]
    arrays = [x for x in tensors if x.is_floating_point() and x.ndim > 0]
    dtype = reduce(torch.promote_types, (x.dtype for x in arrays)) if arrays else torch.float64
    device = (arrays or tensors)[0].device if tensors else torch.device("cpu")
    like = torch.empty((), dtype=dtype, device=device)
    converted = {name: as_float(name, x, like=like) for name, x in values.items()}
    batch = broadcast_batch(**{name: x.shape for name, x in converted.items()})
    return {name: x.expand(batch) for name, x in converted.items()}


def _modes_constant(alpha: Tensor) -> Tensor:
    r"""$B_0=\frac{\pi/\alpha}{\sin(\pi/\alpha)}$, so that $z=B_0\Gamma^{-1/\alpha}$."""
    return 1 / torch.sinc(1 / alpha)


def powerlaw_krr_risk(
    alpha: Real[Tensor, "*#batch"] | ArrayLike,
    beta: Real[Tensor, "*#batch"] | ArrayLike,
    n: Real[Tensor, "*#batch"] | ArrayLike,
    fitting_ratio: Real[Tensor, "*#batch"] | ArrayLike,
    relative_noise: Real[Tensor, "*#batch"] | ArrayLike = 0.0,
) -> Float[Tensor, "*batch"]:
    r"""Test error of kernel ridge regression on a power-law task, at a given ratio of train to test error.

    With $r=\sqrt{\mathcal R}$,
    $$ E_{\rm test}=\frac{\alpha A\,n^{1-\beta}}{1+(\alpha-1)r}\big[(1-r)^{1-\beta}+\alpha\sigma^2_{rel}\big],\qquad
    A=\Big(\frac{\pi/\alpha}{\sin(\pi/\alpha)}\Big)^{\beta-1}
    \frac{\pi(\alpha-\beta+1)}{\alpha^2\sin(\pi(\beta-1)/\alpha)}. $$
    The relative error of the sums that it stands for is of order $n^{-\min(1,2\alpha+1-\beta)}$.

    Args:
        alpha: decay of the eigenvalues, above 1; all arguments broadcast to (*batch,).
        beta: decay of the target power, between 1 and 2 alpha + 1.
        n: training samples.
        fitting_ratio: $\mathcal R=E_{\rm train}/E_{\rm test}$ in [0, 1].
        relative_noise: $\sigma^2_{rel}$, noise variance over the noiseless ridgeless test error at the same n.

    Returns:
        Test error, noise included, shape (*batch,).

    Raises:
        ValueError: an exponent or the fitting ratio outside its range, n not positive, negative or NaN noise.

    Source: Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646.

    >>> noiseless = powerlaw_krr_risk(1.5, 1.5, 1000, 0.0)
    >>> bool(torch.isclose(powerlaw_krr_risk(1.5, 1.5, 1000, 0.0, 0.1), 1.15 * noiseless))
    True
    """
    given = _common(alpha=alpha, beta=beta, n=n, fitting_ratio=fitting_ratio, relative_noise=relative_noise)
    a, b = read_exponents(given["alpha"], given["beta"])
    samples, ratio, noise = given["n"], given["fitting_ratio"], given["relative_noise"]
    require_positive("n", samples)
    require("fitting_ratio", (ratio >= 0) & (ratio <= 1), "0 <= fitting_ratio <= 1", ratio)
    require_nonnegative("relative_noise", noise)
    r = ratio.sqrt()
    # pi y / (a sin(pi (a - y) / a)) = 1 / sinc(y / a) with y = a + 1 - b: no 0/0 at b = a + 1
    scale = _modes_constant(a) ** (b - 1) / torch.sinc((a + 1 - b) / a) * samples ** (1 - b)
    return scale * ((1 - r) ** (1 - b) + a * noise) / (1 + (a - 1) * r)


def powerlaw_rf_risk(
    alpha: Real[Tensor, "*#batch"] | ArrayLike,
    beta: Real[Tensor, "*#batch"] | ArrayLike,
    n: Real[Tensor, "*#batch"] | ArrayLike,
    k: Real[Tensor, "*#batch"] | ArrayLike,
    fitting_ratio: Real[Tensor, "*#batch"] | ArrayLike,
    noise_variance: Real[Tensor, "*#batch"] | ArrayLike = 0.0,
) -> Float[Tensor, "*batch"]:
    r"""Test error of random-feature ridge regression on a power-law task, at finite width.

    With $u=1-\sqrt{\mathcal R}$, $z=nu$ modes learned and $\varphi=(k-z)/(k-z+z/\alpha)$,
    $$ E_{\rm test}=\frac{B_0^{\beta-1}z^{1-\beta}B_1[1-\varphi(\beta-1)/\alpha]+\sigma^2}{1-u+\varphi u/\alpha},\qquad
    B_0=\frac{\pi/\alpha}{\sin(\pi/\alpha)},\quad B_1=\frac{\pi/\alpha}{\sin(\pi(\beta-1)/\alpha)}. $$
    The relative error of the sums that it stands for is of order $n^{-\min(1,\alpha+1-\beta)}$ at finite width.

    Args:
        alpha: decay of the eigenvalues, above 1; all arguments broadcast to (*batch,).
        beta: decay of the target power, between 1 and alpha + 1.
        n: training samples.
        k: random features, `math.inf` allowed.
        fitting_ratio: $\mathcal R=E_{\rm train}/E_{\rm test}$ in [0, 1].
        noise_variance: $\sigma^2$ of the labels, absolute.

    Returns:
        Test error, noise included, shape (*batch,); NaN where z is not below k: no ridge reaches that ratio.

    Raises:
        ValueError: an exponent or the fitting ratio outside its range, n or k not positive, negative or NaN noise.

    Source: own extension of Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646.

    >>> wide = powerlaw_rf_risk(1.5, 1.5, 1000, float("inf"), 0.1)
    >>> bool(torch.isclose(wide, powerlaw_krr_risk(1.5, 1.5, 1000, 0.1)))
    True
    """
    given = _common(alpha=alpha, beta=beta, n=n, k=k, fitting_ratio=fitting_ratio, noise_variance=noise_variance)
    a, b = read_exponents(given["alpha"], given["beta"])
    require("beta", b < a + 1, "beta < alpha + 1", b)
    samples, width, ratio, noise = given["n"], given["k"], given["fitting_ratio"], given["noise_variance"]
    require_positive("n", samples)
    require_positive("k", width, finite=False)
    require("fitting_ratio", (ratio >= 0) & (ratio <= 1), "0 <= fitting_ratio <= 1", ratio)
    require_nonnegative("noise_variance", noise)
    u = 1 - ratio.sqrt()
    z = samples * u
    reachable, endless = z < width, width.isinf()
    slack = torch.where(reachable & ~endless, width - z, torch.ones_like(z))
    sufficiency = torch.where(endless, torch.ones_like(z), slack / (slack + z / a))
    head = 1 / (a * torch.sin(torch.pi * (b - 1) / a)) * torch.pi
    bias = _modes_constant(a) ** (b - 1) * z ** (1 - b) * head * (1 - sufficiency * (b - 1) / a)
    test = (bias + noise) / (1 - u + sufficiency * u / a)
    return torch.where(reachable, test, torch.full_like(test, torch.nan))


def optimal_fitting_ratio(
    alpha: Real[Tensor, "*#batch"] | ArrayLike,
    beta: Real[Tensor, "*#batch"] | ArrayLike,
    relative_noise: Real[Tensor, "*#batch"] | ArrayLike = 0.0,
) -> Float[Tensor, "*batch"]:
    r"""Ratio $\mathcal R^*$ of train to test error at which kernel ridge regression on a power-law task does best.

    $\sqrt{\mathcal R^*}=r^*$ is the root in [0, 1) of
    $$ \alpha-\beta-(\alpha-1)\beta r+\alpha(\alpha-1)(1-r)^\beta\sigma^2_{rel}=0, $$
    and 0 if there is none: then fitting the training data exactly is best. In $\log(1-r)$ the root is that of an
    increasing convex function, which Newton's method finds from the right without a bracket.

    Args:
        alpha: decay of the eigenvalues, above 1; all arguments broadcast to (*batch,).
        beta: decay of the target power, between 1 and 2 alpha + 1.
        relative_noise: $\sigma^2_{rel}$, noise variance over the noiseless ridgeless test error at the same n.

    Returns:
        The ratio (not its root), shape (*batch,).

    Raises:
        ValueError: an exponent outside its range, negative or NaN noise.

    Source: Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646.

    >>> optimal_fitting_ratio(1.5, 1.2, [0.0, 1.0]).round(decimals=4)
    tensor([0.2500, 0.5533], dtype=torch.float64)
    """
    given = _common(alpha=alpha, beta=beta, relative_noise=relative_noise)
    a, b = read_exponents(given["alpha"], given["beta"])
    noise = given["relative_noise"]
    require_nonnegative("relative_noise", noise)
    wanted = a * (b - 1)  # = (a - 1) b t + a (a - 1) sigma^2 t^b at t = 1 - r
    linear, power = (a - 1) * b, a * (a - 1) * noise
    inside = linear + power > wanted
    u = torch.zeros_like(wanted)  # log t
    for _ in range(NEWTON_STEPS):
        first, second = linear * u.exp(), power * (b * u).exp()
        total = first + second
        u = u - torch.log(total / wanted) * total / (first + b * second)
    return torch.where(inside, torch.expm1(u).square(), torch.zeros_like(u))


def interpolation_noise_threshold(
    alpha: Real[Tensor, "*#batch"] | ArrayLike, beta: Real[Tensor, "*#batch"] | ArrayLike
) -> Float[Tensor, "*batch"]:
    r"""Largest relative noise at which zero ridge is best for kernel ridge regression on a power-law task.

    $$ \sigma^2_{rel}\le\frac{\beta-\alpha}{\alpha(\alpha-1)}. $$

    Args:
        alpha: decay of the eigenvalues, above 1; both broadcast to (*batch,).
        beta: decay of the target power, between 1 and 2 alpha + 1.

    Returns:
        The threshold, shape (*batch,); where it is negative zero ridge is never best.

    Raises:
        ValueError: an exponent outside its range.

    Source: Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646.

    >>> interpolation_noise_threshold(2.0, [2.5, 1.5])
    tensor([ 0.2500, -0.2500], dtype=torch.float64)
    """
    given = _common(alpha=alpha, beta=beta)
    a, b = read_exponents(given["alpha"], given["beta"])
    return (b - a) / (a * (a - 1))


def critical_width(
    alpha: Real[Tensor, "*#batch"] | ArrayLike, beta: Real[Tensor, "*#batch"] | ArrayLike
) -> Float[Tensor, "*batch"]:
    r"""Features a sample above which zero ridge is best on a noiseless power-law task.

    With $\Delta=\beta-\alpha$,
    $$ \rho^*=1+\frac{1+\sqrt{(1+\Delta)/(1-\Delta)}}{\Delta}, $$
    which depends on the difference of the exponents only and is least, $3+2\sqrt2$, at $\Delta=1/\sqrt2$.

    Args:
        alpha: decay of the eigenvalues, above 1; both broadcast to (*batch,).
        beta: decay of the target power, between 1 and alpha + 1.

    Returns:
        The critical k/n, shape (*batch,); infinite for beta at or below alpha, where zero ridge is never best.

    Raises:
        ValueError: an exponent outside its range.

    Source: own extension of Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646.

    >>> critical_width(1.5, [2.0, 1.2])
    tensor([6.4641,    inf], dtype=torch.float64)
    """
    given = _common(alpha=alpha, beta=beta)
    a, b = read_exponents(given["alpha"], given["beta"])
    require("beta", b < a + 1, "beta < alpha + 1", b)
    delta = b - a
    possible = delta > 0
    delta = torch.where(possible, delta, torch.full_like(delta, 0.5))
    width = 1 + (1 + ((1 + delta) / (1 - delta)).sqrt()) / delta
    return torch.where(possible, width, torch.full_like(width, torch.inf))

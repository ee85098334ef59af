"""Power-law tasks: how fast the kernel's eigenvalues and the target's coefficients fall."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, read_size, require, require_positive
from lib.shapes import Float, Real


def read_exponents(
    alpha: Tensor | ArrayLike, beta: Tensor | ArrayLike, like: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Exponents with alpha > 1 (the kernel's trace is finite) and 1 < beta < 2 alpha + 1 (no finite head decides)."""
    a, b = as_float("alpha", alpha, like=like), as_float("beta", beta, like=like)
    require("alpha", (a > 1) & a.isfinite(), "a finite number > 1", a)
    require("beta", (b > 1) & (b < 2 * a + 1), "1 < beta < 2 alpha + 1", b)
    return a, b


def powerlaw_task(
    num_modes: int,
    alpha: float | int,
    beta: float | int,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
    r"""Eigenvalues $\lambda_i=i^{-\alpha}$ and target power $v_i^2=i^{-\beta}$ for $i=1,\dots,M$.

    Args:
        num_modes: M, at least 1.
        alpha: decay of the eigenvalues, above 1.
        beta: decay of the target power, between 1 and 2 alpha + 1.
        dtype: of the result.
        device: of the result.

    Returns:
        Two tensors of shape (M,).

    Raises:
        ValueError: no mode, an exponent outside its range, or a dtype that is not floating.

    Source: Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646.

    >>> powerlaw_task(3, 2.0, 1.5)[0]
    tensor([1.0000, 0.2500, 0.1111], dtype=torch.float64)
    """
    num_modes = read_size("num_modes", num_modes, 1)
    if not dtype.is_floating_point:
        raise ValueError(f"dtype: got {dtype}, want a floating one")
    read_exponents(alpha, beta)
    index = torch.arange(1, num_modes + 1, device=device).double()
    return (index**-alpha).to(dtype), (index**-beta).to(dtype)


def powerlaw_tail(
    num_modes: Real[Tensor, "*#batch"] | ArrayLike,
    alpha: Real[Tensor, "*#batch"] | ArrayLike,
    beta: Real[Tensor, "*#batch"] | ArrayLike,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    r"""Sums of $i^{-\alpha}$ and $i^{-\beta}$ over all modes beyond the first M, by the midpoint rule.

    $$ T_{>M}=\frac{(M+\frac12)^{1-\alpha}}{\alpha-1},\qquad V_{>M}=\frac{(M+\frac12)^{1-\beta}}{\beta-1}, $$
    with a relative error of order $M^{-2}$.

    Args:
        num_modes: M, the modes listed; all arguments broadcast to (*batch,).
        alpha: decay of the eigenvalues, above 1.
        beta: decay of the target power, between 1 and 2 alpha + 1.

    Returns:
        $T_{>M}$ and $V_{>M}$, each of shape (*batch,).

    Raises:
        ValueError: M not positive, or an exponent outside its range.

    Source: own extension of Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646.

    >>> 1000 * powerlaw_tail(1000, 2.0, 1.5)[0]  # 1/1001**2 + 1/1002**2 + ... is 0.0009995
    tensor(0.9995, dtype=torch.float64)
    """
    a, b = read_exponents(alpha, beta)
    modes = as_float("num_modes", num_modes, like=a)
    require_positive("num_modes", modes)
    edge = modes + 0.5
    trace, power = edge ** (1 - a) / (a - 1), edge ** (1 - b) / (b - 1)
    batch = torch.broadcast_shapes(trace.shape, power.shape)
    return trace.expand(batch), power.expand(batch)

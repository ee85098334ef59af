"""Other multiclass losses: the comp-sum family, and the exact transform of the mean absolute error."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lib.checks import ArrayLike, read_size
from lib.h_consistency.setting import read_number, read_unit
from lib.h_consistency.transform import logistic_transform
from lib.shapes import Float, Real


def comp_sum_transform(
    t: Real[Tensor, "*shape"] | ArrayLike, tau: float | int, num_classes: int
) -> Float[Tensor, "*shape"]:
    r"""Transform of the loss $\frac{z^{1-\tau}-1}{1-\tau}$, where $1/z$ is the softmax of the true class.

    With $a=\frac12\big((1+t)^{1/(2-\tau)}+(1-t)^{1/(2-\tau)}\big)$ it is $\frac{2^{1-\tau}}{1-\tau}(1-a^{2-\tau})$ for
    $\tau<1$, the logistic transform for $\tau=1$, $\frac{a^{2-\tau}-1}{(\tau-1)C^{\tau-1}}$ for $1<\tau<2$ and
    $\frac t{(\tau-1)C^{\tau-1}}$ for $\tau\ge2$; a lower bound of the regret for all C, attained for $C=2$.

    Args:
        t: error regret in [0, 1], any shape.
        tau: member of the family: 0 sum-exponential, 1 logistic, between 1 and 2 generalised cross-entropy, 2 mean
            absolute error.
        num_classes: $C\ge2$.

    Returns:
        The unit of the loss, the shape of `t`.

    Raises:
        ValueError: t outside [0, 1], a negative tau, fewer than two classes.

    Source: Mao, Mohri and Zhong (2023), the formulas; unbounded scores.

    >>> comp_sum_transform([0.5, 1.0], 0.0, 3)
    tensor([0.1340, 1.0000], dtype=torch.float64)
    """
    x = read_unit("t", t)
    power = read_number("tau", tau, "a finite number >= 0", above=-1e-300, top=1e300)
    classes = read_size("num_classes", num_classes, 2)
    if power == 1:
        return logistic_transform(x)
    scale = float(classes) ** (1 - power)
    if power >= 2:
        straight: Tensor = x * (scale / (power - 1))
        return straight
    log_a = _log_mean_power(x, (power - 1) / (2 - power))
    grown = torch.expm1((2 - power) * log_a) / (power - 1)  # (a^(2-tau) - 1) / (tau - 1)
    factor = 2.0 ** (1 - power) if power < 1 else scale
    loss: Tensor = grown * factor
    return loss


def _log_mean_power(x: Tensor, e: float) -> Tensor:
    """log(((1+x)^(1+e) + (1-x)^(1+e)) / 2) for e >= -1/2: no digits are lost to small x or e, nor range to large e."""
    power = 1 + e
    edge = 0.5 / max(power, 1.0)
    low, high = x.clamp_max(edge), x.clamp_min(edge)
    angle = e * low.atanh()
    near = e * torch.log1p(-low.square()) / 2 + torch.log1p(2 * (angle / 2).sinh().square() + low * angle.sinh())
    if e < 1:
        left = 1 - high
        some = torch.where(left > 0, left, 1.0)
        grown = torch.where(left > 0, left * torch.expm1(e * some.log()), left**power - left)
        far = torch.log1p(((1 + high) * torch.expm1(e * torch.log1p(high)) + grown) / 2)
    else:
        turn = high.clamp_max(1 - torch.finfo(x.dtype).eps).atanh()
        far = power * torch.log1p(high) + torch.log1p((-2 * power * turn).exp()) - math.log(2)
    return torch.where(x < edge, near, far)


def mae_transform(t: Real[Tensor, "*shape"] | ArrayLike, num_classes: int) -> Float[Tensor, "*shape"]:
    r"""Exact least regret of the mean absolute error, $\min_{2\le r\le C}\max(\frac tr,t-\frac1r)$.

    The published $t/C$ is touched up to $t=1/(C-1)$ only. The function is not convex; a bound uses its convex hull.

    Args:
        t: error regret in [0, 1], any shape.
        num_classes: $C\ge2$.

    Returns:
        Regret of the loss $1-\mathrm{softmax}_y$, the shape of `t`.

    Raises:
        ValueError: t outside [0, 1], fewer than two classes.

    Source: own derivation, :prf:ref:`hc-mae`.

    >>> mae_transform([0.3, 0.6, 1.0], 4)
    tensor([0.0750, 0.2667, 0.5000], dtype=torch.float64)
    """
    x = read_unit("t", t).unsqueeze(-1)
    pools = torch.arange(2, read_size("num_classes", num_classes, 2) + 1, device=x.device, dtype=x.dtype)
    return torch.maximum(x / pools, x - 1 / pools).amin(-1)

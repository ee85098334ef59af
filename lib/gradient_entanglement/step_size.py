"""How far a first-order verdict carries: Taylor's second term, and steps at which the verdict is certain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, read_finite, read_nonnegative, read_whole, require_shape
from lib.gradient_entanglement.setting import require_vocabulary
from lib.shapes import Float, Int, Real


@dataclass(frozen=True)
class TaylorChange:
    """Change of a function along a step: `exact`, to `first` order, and to `second` (first included)."""

    exact: Float[Tensor, "*out"]
    first: Float[Tensor, "*out"]
    second: Float[Tensor, "*out"]


@dataclass(frozen=True)
class CertifiedStep:
    """`slope` and `curvature` along a step, and the `step` up to which a rise is certain (0 where nothing rises)."""

    slope: Float[Tensor, "*batch"]
    curvature: Float[Tensor, "*batch"]
    step: Float[Tensor, "*batch"]


def taylor_change(
    fn: Callable[[Tensor], Tensor],
    params: Real[Tensor, "*shape"] | ArrayLike,
    direction: Real[Tensor, "*shape"] | ArrayLike,
    lr: Real[Tensor, ""] | ArrayLike,
) -> TaylorChange:
    r"""Change of a function along $\varepsilon v$, exactly and by Taylor's first two terms.

    $f(\theta+\varepsilon v)-f(\theta)=\varepsilon\langle\nabla f,v\rangle
    +\frac{\varepsilon^2}2v^\top\nabla^2f\,v+O(\varepsilon^3)$; the derivatives
    are those of $t\mapsto f(\theta+tv)$, so no Hessian is formed. A function with several values costs
    two reverse passes for each.

    Args:
        fn: a function of one tensor, of any output shape.
        params: $\theta$, one tensor.
        direction: $v$, of the same shape; for an objective $d_wg_w-d_lg_l$.
        lr: $\varepsilon\ge0$, a number.

    Returns:
        Three tensors of the shape of the function's values.

    Raises:
        ValueError: a direction of another shape, a number that is not finite, a negative step or more than one.

    Source: own extension of Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828 (first order there).

    >>> taylor_change(lambda x: x.square().sum(), [1.0, 2.0], [1.0, 0.0], 0.5)
    TaylorChange(exact=tensor(1.2500, dtype=torch.float64), first=tensor(1., dtype=torch.float64),
                 second=tensor(1.2500, dtype=torch.float64))
    """
    theta = read_finite("params", params)
    v = read_finite("direction", direction, like=theta)
    require_shape("direction", v, v.shape == theta.shape, f"{tuple(theta.shape)} as in params")
    step = read_nonnegative("lr", lr, theta)
    require_shape("lr", step, step.ndim == 0, "a single number")

    def along(t: Tensor) -> Tensor:
        return fn(theta + t * v)

    # One value at a time by `grad`: inside `jacrev` torch differentiates the gradient of its layer_norm wrongly.
    start, value = torch.zeros_like(step), along(torch.zeros_like(step))
    terms = [_first_and_second(along, k, start) for k in range(value.numel())]
    slope, bend = (torch.stack(x).reshape(value.shape) for x in zip(*terms, strict=True))
    first = step * slope
    return TaylorChange(along(step) - value, first, first + step.square() / 2 * bend)


def _first_and_second(along: Callable[[Tensor], Tensor], index: int, start: Tensor) -> tuple[Tensor, Tensor]:
    """Both derivatives of one value of a function of one number."""

    def value(t: Tensor) -> Tensor:
        return along(t).flatten()[index]

    slope, bend = torch.func.grad_and_value(torch.func.grad(value))(start)[::-1]
    return slope, bend


def certified_step(
    logits: Real[Tensor, "*#batch T V"] | ArrayLike,
    tokens: Int[Tensor, "*#batch T"] | ArrayLike,
    velocity: Real[Tensor, "*#batch T V"] | ArrayLike,
) -> CertifiedStep:
    r"""Steps up to which a response's log-probability is certain to rise if all its logits move in straight lines.

    Let $f(\varepsilon)=\sum_i\log\mathrm{softmax}(o_i+\varepsilon v_i)_{y_i}$. Then
    $f''=-\sum_i\mathrm{Var}_{p_i}(v_i)$, which lies between $-\frac14\sum_i\mathrm{range}(v_i)^2$ and 0. So a slope
    $f'(0)\le0$ means a fall for every $\varepsilon$, and a slope above zero a rise for all
    $0<\varepsilon\le8f'(0)/\sum_i\mathrm{range}(v_i)^2$.

    Args:
        logits: $o_i$, shape (*batch, T, V).
        tokens: $y_i$, shape (*batch, T).
        velocity: $v_i$, change of the logits a unit of step, shape (*batch, T, V).

    Returns:
        `slope`, `curvature` and `step`, shape (*batch,). `step` is infinite where the logits of a token that gains do
        not move against each other, which has no curvature.

    Raises:
        ValueError: shapes that do not fit, a token outside the vocabulary, a number that is not finite.

    Source: own extension of Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> certified_step([[0.0, 0.0]], [0], [[1.0, -1.0]])  # slope 1, range 2: certain up to 8 / 4
    CertifiedStep(slope=tensor(1., dtype=torch.float64), curvature=tensor(-1., dtype=torch.float64),
                  step=tensor(2., dtype=torch.float64))
    """
    scores = read_finite("logits", logits)
    v = read_finite("velocity", velocity, like=scores)
    require_shape("logits", scores, scores.ndim >= 2, "(*batch, T, V)")
    require_shape("velocity", v, v.shape[-2:] == scores.shape[-2:], f"(*batch, {scores.shape[-2]}, {scores.shape[-1]})")
    chosen = read_whole("tokens", tokens, scores.device)
    require_shape("tokens", chosen, chosen.shape[-1:] == scores.shape[-2:-1], f"(*batch, {scores.shape[-2]})")
    require_vocabulary("tokens", chosen, scores.shape[-1])
    batch = broadcast_batch(logits=scores.shape[:-2], tokens=chosen.shape[:-1], velocity=v.shape[:-2])
    shape = torch.Size((*batch, *scores.shape[-2:]))
    scores, v, chosen = scores.expand(shape), v.expand(shape), chosen.expand(shape[:-1])
    p = scores.softmax(-1)
    mean = (p * v).sum(-1, keepdim=True)
    slope = (v.gather(-1, chosen.unsqueeze(-1)) - mean).squeeze(-1).sum(-1)
    curvature = -(p * (v - mean).square()).sum((-1, -2))
    spread = (v.amax(-1) - v.amin(-1)).square().sum(-1)
    step = 8 * slope.clamp_min(0) / spread
    return CertifiedStep(slope, curvature, torch.where(slope > 0, step, torch.zeros_like(step)))

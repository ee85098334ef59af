"""The transform of a margin loss: closed for six of them, by convex conjugation for any other convex one."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lib.checks import ArrayLike, read_size, require
from lib.h_consistency.setting import read_bound, read_number, read_unit
from lib.h_consistency.transform import logistic_transform
from lib.shapes import Float, Real

GOLDEN = (math.sqrt(5) - 1) / 2
PROBES = 501  # margins of either sign at which a loss is examined, densest at zero
ACCURACY = {torch.float64: 1e-9, torch.float32: 1e-5}  # of the transform, in units of the loss
EXPONENT = 700.0  # whose exponential is still a number

Loss = Callable[[Tensor], Tensor]


def margin_transform(
    loss: Loss, t: Real[Tensor, "*shape"] | ArrayLike, bound: float | int = 20.0, num_steps: int = 200
) -> Float[Tensor, "*shape"]:
    r"""Transform of any convex margin loss, $\Phi(0)-\min_{|u|\le\mathcal B}\frac{1+t}2\Phi(u)+\frac{1-t}2\Phi(-u)$.

    A golden-section search for all $t$ at once. The minimum lies at $u\ge0$ because $\Phi$ falls at zero. By convexity
    the values at the ends of a bracket bound what a smaller one could still gain: that is the error control.

    Args:
        loss: $\Phi$, elementwise on a tensor of margins; convex, finite at zero and lower at some positive margin.
        t: error regret in [0, 1], any shape.
        bound: $\mathcal B>0$, on the margin, finite. Two scores of at most $\mathcal B$ make margins of up to
            $2\mathcal B$.
        num_steps: most steps of the search; as many are taken as the dtype can resolve.

    Returns:
        In the unit of the loss, the shape of `t`; absolute error below 1e-9 (float32: 1e-5)
        times the loss at margin 0, or what it rises by down to -1 if that is more.
        Differentiable in `t` and in what the loss depends on.

    Raises:
        ValueError: t outside [0, 1]; a loss that is no function, is not convex, does not fall or is NaN (with
            the margin where); a bound that is not positive and finite; too few steps.

    Source: Bartlett, Jordan and McAuliffe (2006) for unbounded scores; the box: own derivation.

    >>> margin_transform(lambda u: torch.exp(-u), [0.0, 0.6, 1.0])
    tensor([0.0000, 0.2000, 1.0000], dtype=torch.float64)
    """
    if not callable(loss):
        raise ValueError(f"loss: got {loss!r}, want a function of margins; margin_transform_closed takes names")
    x = read_unit("t", t)
    limit = read_number("bound", bound, "a finite number > 0", above=0, top=math.nextafter(math.inf, 0))
    steps = read_size("num_steps", num_steps, 1)
    level = _margins(loss, torch.zeros_like(x))
    with torch.no_grad():
        if x.device.type == "cpu":
            _examine(loss, limit, x.dtype)
        best, error = _search(loss, x, limit, steps)
        wanted = ACCURACY.get(x.dtype, 1e-2) * torch.maximum(
            level.abs(), _margins(loss, torch.full_like(x, -min(limit, 1))) - level
        )
        require(f"num_steps = {steps}, error of the transform", error <= wanted, "less: take more steps", error)
    return (level - _mixture(loss, x, best)).clamp_min(0)


def _search(loss: Loss, t: Tensor, limit: float, steps: int) -> tuple[Tensor, Tensor]:
    """The best margin found in [0, limit], and how much lower a convex function may be at another."""
    eps = torch.finfo(t.dtype).eps
    width, low = limit, torch.zeros_like(t)
    at_left, at_right = (_mixture(loss, t, low + part * width) for part in (1 - GOLDEN, GOLDEN))
    for _ in range(min(steps, math.ceil(math.log(eps / max(limit, 1)) / math.log(GOLDEN)))):
        is_left = at_left <= at_right  # also where both overflow: the minimum lies left of `right`
        low = torch.where(is_left, low, low + (1 - GOLDEN) * width)
        width *= GOLDEN
        new = _mixture(loss, t, torch.where(is_left, low + (1 - GOLDEN) * width, low + GOLDEN * width))
        at_left, at_right = torch.where(is_left, new, at_right), torch.where(is_left, at_left, new)
    points = torch.stack([low, low + (1 - GOLDEN) * width, low + GOLDEN * width, torch.full_like(t, limit)])
    values = torch.stack([_mixture(loss, t, points[0]), at_left, at_right, _mixture(loss, t, points[3])])
    best, place = values.min(0, keepdim=True)
    below = torch.stack(  # secants, extended over the other parts of the bracket
        [
            at_left - (at_right - at_left).clamp_min(0) / GOLDEN,
            at_right - (at_left - at_right).clamp_min(0) / GOLDEN,
            at_left - (values[0] - at_left).clamp_min(0) * GOLDEN,
        ]
    )
    return points.gather(0, place).squeeze(0), best.squeeze(0) - below.amin(0)


def _mixture(loss: Loss, t: Tensor, u: Tensor) -> Tensor:
    """Conditional risk of the margin u, where the more probable label has probability (1 + t) / 2."""
    ceiling = torch.finfo(t.dtype).max / 4  # zero times this is zero
    right, wrong = (_margins(loss, m).clamp_max(ceiling) for m in (u, -u))
    return (1 + t) / 2 * right + (1 - t) / 2 * wrong


def _margins(loss: Loss, u: Tensor) -> Tensor:
    values = loss(u)
    if not isinstance(values, Tensor) or values.shape != u.shape:
        got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"loss: got {got} for margins of shape {tuple(u.shape)}, want a value for each margin")
    return values


def _examine(loss: Loss, limit: float, dtype: torch.dtype) -> None:
    """Raise unless the loss is convex and falls at zero, as far as values on a grid can tell."""
    positive = limit * torch.linspace(0, 1, PROBES, dtype=dtype).pow(3)
    u = torch.cat((-positive[1:].flip(0), positive))
    values = _margins(loss, u)
    level = values[PROBES - 1]
    for bad in u[values.isnan() | (values == -math.inf)][:1]:
        raise ValueError(f"loss: got no number at margin {bad.item():.6g}, want numbers at all margins")
    if not bool(level.isfinite()):
        raise ValueError(f"loss: got {level.item()} at margin 0, want a finite number")
    noise = ACCURACY.get(dtype, 1e-2) * torch.maximum(values.abs(), level.abs())
    noise = (noise[1:] + noise[:-1]) / u.diff()
    slope = values.diff() / u.diff()
    for bad in u[1:-1][slope.diff() < -(noise[1:] + noise[:-1])][:1]:  # never beside an infinite value
        raise ValueError(f"loss: got a slope that falls at margin {bad.item():.6g}, want a convex loss")
    if not bool((values[PROBES:] < level).any()):
        raise ValueError("loss: got one that does not fall at margin 0, want lower values at positive margins")


def margin_transform_closed(
    name: str, t: Real[Tensor, "*shape"] | ArrayLike, bound: float | int = math.inf
) -> Float[Tensor, "*shape"]:
    r"""Transform of a named margin loss in closed form.

    With the bound $\mathcal B$ on the margin $u$, and up to the value of t at which the best margin reaches it:

    - hinge, $(1-u)_+$: $\min(\mathcal B,1)\,t$;
    - squared hinge and squared, $(1-u)_+^2$ and $(1-u)^2$: $t^2$ for $t\le\mathcal B$, then
      $2\mathcal Bt-\mathcal B^2$;
    - exponential, $e^{-u}$: $1-\sqrt{1-t^2}$ for $t\le\tanh\mathcal B$, then
      $1-\frac{1+t}2e^{-\mathcal B}-\frac{1-t}2e^{\mathcal B}$;
    - logistic, $\log(1+e^{-u})$: `logistic_transform` of two classes with half the bound;
    - sigmoid, $1-\tanh u$, which is not convex: $t\tanh\mathcal B$.

    Args:
        name: "hinge", "squared_hinge", "squared", "exponential", "logistic" or "sigmoid".
        t: error regret in [0, 1], any shape.
        bound: $\mathcal B>0$, on the margin.

    Returns:
        In the unit of the loss, the shape of `t`.

    Raises:
        ValueError: an unknown name, t outside [0, 1], a bound that is not positive.

    Source: Bartlett, Jordan and McAuliffe (2006); in the box Awasthi, Mao, Mohri and Zhong (2022).

    >>> margin_transform_closed("exponential", [0.0, 0.6, 1.0])
    tensor([0.0000, 0.2000, 1.0000], dtype=torch.float64)
    """
    forms = {
        "hinge": _hinge,
        "squared_hinge": _squared,
        "squared": _squared,
        "exponential": _exponential,
        "logistic": _logistic,
        "sigmoid": _sigmoid,
    }
    if name not in forms:
        raise ValueError(f"name: got {name!r}, want one of {', '.join(forms)}")
    return forms[name](read_unit("t", t), read_bound(bound))


def _hinge(t: Tensor, limit: float) -> Tensor:
    return t * min(limit, 1.0)


def _squared(t: Tensor, limit: float) -> Tensor:
    turn = min(limit, 1.0)
    return torch.where(t <= turn, t.square(), turn * (2 * t - turn))


def _exponential(t: Tensor, limit: float) -> Tensor:
    curved = t.square() / (1 + ((1 - t) * (1 + t)).sqrt())
    end = min(limit, EXPONENT)
    straight = -(1 + t) / 2 * math.expm1(-end) - (1 - t) / 2 * math.expm1(end)
    return torch.where(t.atanh() > limit, straight, curved)


def _logistic(t: Tensor, limit: float) -> Tensor:
    return logistic_transform(t, 2, limit / 2)  # two scores of at most b make a margin of at most 2 b


def _sigmoid(t: Tensor, limit: float) -> Tensor:
    return t * math.tanh(limit)

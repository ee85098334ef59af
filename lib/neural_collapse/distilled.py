"""Exact optima of cross-entropy plus binary KL on one head, and on two heads that share their features."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from lib.checks import ArrayLike, read_nonnegative, read_positive, shared_kind
from lib.neural_collapse.losses import sigmoid_difference
from lib.neural_collapse.optimum import Layer, gap_at, read_layer
from lib.neural_collapse.setting import broadcast, carry
from lib.shapes import Float, Real

STEPS = 64  # halvings of the bracket


@dataclass(frozen=True)
class DistilledOptimum:
    """Gaps of the main and the auxiliary head, and how near the common shift of all logits is to opening."""

    main_gap: Float[Tensor, "*batch"]
    aux_gap: Float[Tensor, "*batch"]
    offset_ratio: Float[Tensor, "*batch"]


@dataclass(frozen=True)
class _Problem:
    """A layer, a teacher and the weight of the distillation, all of one shape."""

    layer: Layer
    teacher: Tensor
    temperature: Tensor
    alpha: Tensor

    def residuals(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Derivative of the binary KL in the logit of the true class, and of any other."""
        scale = self.temperature
        true, other = (
            scale * sigmoid_difference(share * gap / scale, share * self.teacher / scale) for share in self._shares()
        )
        return true, other

    def pull(self, gap: Tensor) -> Tensor:
        r"""Strength $-\alpha\kappa$ with which the binary KL widens the gap."""
        true, other = self.residuals(gap)
        return self.alpha * (other - true) / self.layer.classes

    def pull_slope(self, gap: Tensor) -> Tensor:
        """Derivative of `pull` in the gap."""
        classes, (true, other) = self.layer.classes, (share * gap / self.temperature for share in self._shares())
        steep = [torch.sigmoid(x) * torch.sigmoid(-x) for x in (true, other)]
        return -self.alpha * ((classes - 1) * steep[0] + steep[1]) / classes.square()

    def cross(self, gap: Tensor) -> Tensor:
        r"""Strength $\gamma_{\rm CE}$ with which cross-entropy widens the gap."""
        return torch.sigmoid((self.layer.classes - 1).log() - gap) / (self.layer.classes - 1)

    def cross_slope(self, gap: Tensor) -> Tensor:
        """Derivative of `cross` in the gap."""
        return -self.cross(gap) * torch.sigmoid(gap - (self.layer.classes - 1).log())

    def detach(self) -> _Problem:
        """The same numbers without gradients."""
        layer = self.layer
        fixed = Layer(layer.classes.detach(), layer.ratio.detach(), layer.strength.detach())
        return _Problem(fixed, self.teacher.detach(), self.temperature.detach(), self.alpha.detach())

    def _shares(self) -> tuple[Tensor, Tensor]:
        """Logits of the true class and of any other, without a common shift, as shares of the gap."""
        return (self.layer.classes - 1) / self.layer.classes, -1 / self.layer.classes


def distilled_optimum(
    num_classes: Real[Tensor, "*#batch"] | ArrayLike,
    samples_per_class: Real[Tensor, "*#batch"] | ArrayLike,
    lambda_w: Real[Tensor, "*#batch"] | ArrayLike,
    lambda_h: Real[Tensor, "*#batch"] | ArrayLike,
    teacher_gap: Real[Tensor, "*#batch"] | ArrayLike,
    temperature: Real[Tensor, "*#batch"] | ArrayLike,
    alpha: Real[Tensor, "*#batch"] | ArrayLike,
    *,
    heads: int = 1,
) -> DistilledOptimum:
    r"""Gaps at the global minimum of cross-entropy plus $\alpha_{\rm B}$ times binary KL, over heads and free features.

    The teacher is collapsed with gap $g_{\rm T}$, weight decay acts on every head and on the features. One head:
    $\gamma_{\rm CE}(g)-\alpha_{\rm B}\kappa_{\rm B}(g)=\lambda_{\rm eff}$. Two heads, the second with the binary KL:
    $$ \gamma_{\rm CE}(g_1)=\lambda_{\rm eff}\cos\phi_{\rm a},\quad
    -\alpha_{\rm B}\kappa_{\rm B}(g_2)=\lambda_{\rm eff}\sin\phi_{\rm a},\quad\tan\phi_{\rm a}=g_2/g_1. $$

    Args:
        num_classes: C, at least 2; all broadcast to (*batch,).
        samples_per_class: $n_{\rm c}$, at least 1.
        lambda_w: weight decay of each head, above 0.
        lambda_h: weight decay of the features, above 0.
        teacher_gap: $g_{\rm T}>0$.
        temperature: T > 0.
        alpha: $\alpha_{\rm B}\ge0$.
        heads: 1 (both losses on one head) or 2.

    Returns:
        `DistilledOptimum`, each (*batch,). With one head both gaps are the same. `offset_ratio` at most 1 certifies the
        global minimum; above 1 a common shift of all logits pays, and the gaps are those of the best layer without one.
        First derivatives are those of the implicit functions, and zero where the gaps are; higher ones are not.

    Raises:
        ValueError: a number outside its range, shapes that do not broadcast, another number of heads.

    Source: own derivation, for the single- and dual-head losses of Yang, Zong, Huang, Feng and An, arXiv 2411.08937.

    >>> one, two = (distilled_optimum(10, 5, 5e-3, 5e-4, 2.0, 2.0, 0.1, heads=k).main_gap for k in (1, 2))
    >>> one, two  # cross-entropy alone: 5.6126
    (tensor(4.7662, dtype=torch.float64), tensor(5.6507, dtype=torch.float64))
    """
    if isinstance(heads, bool) or not isinstance(heads, Integral) or heads not in (1, 2):
        raise ValueError(f"heads: got {heads!r}, want 1 or 2")
    like = shared_kind(num_classes, samples_per_class, lambda_w, lambda_h, teacher_gap, temperature, alpha)
    layer = read_layer(num_classes, samples_per_class, lambda_w, lambda_h, like)
    classes, ratio, strength, teacher, scale, weight = broadcast(
        num_classes=layer.classes,
        samples_per_class=layer.ratio,
        lambda_w=layer.strength,
        teacher_gap=read_positive("teacher_gap", teacher_gap, like),
        temperature=read_positive("temperature", temperature, like),
        alpha=read_nonnegative("alpha", alpha, like),
    )
    problem = _Problem(Layer(classes, ratio, strength), teacher, scale, weight)
    fixed = problem.detach()
    if heads == 1:
        main = aux = _follow_one(problem, fixed, _one_head(fixed))
    else:
        main, aux = _follow_two(problem, fixed, *_two_heads(fixed))
    true, other = problem.residuals(aux)
    shift = weight * (true + (classes - 1) * other).abs()
    return DistilledOptimum(main, aux, shift / (strength * classes))


def _one_head(problem: _Problem) -> Tensor:
    """The gap at which both pulls together balance the decay; it lies below both gaps of a single loss at most."""
    strength, classes = problem.layer.strength, problem.layer.classes
    low, high = torch.zeros_like(problem.teacher), torch.maximum(problem.teacher, gap_at(strength, classes))
    opens = 1 / classes + problem.pull(low) > strength
    for _ in range(STEPS):
        gap = (low + high) / 2
        wider = problem.cross(gap) + problem.pull(gap) > strength
        low, high = torch.where(wider, gap, low), torch.where(wider, high, gap)
    return torch.where(opens, (low + high) / 2, torch.zeros_like(low))


def _two_heads(problem: _Problem) -> tuple[Tensor, Tensor]:
    """Bisection in the auxiliary gap: it gives the angle, the angle gives the main gap, and both must agree."""
    strength, classes = problem.layer.strength, problem.layer.classes
    zero = torch.zeros_like(problem.teacher)

    def main_gap(aux: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sine = (problem.pull(aux) / strength).clamp(0, 1)
        cosine = ((1 - sine) * (1 + sine)).sqrt()
        return gap_at(strength * cosine, classes), sine, cosine

    low, high = zero, problem.teacher
    for _ in range(STEPS):
        aux = (low + high) / 2
        main, sine, cosine = main_gap(aux)
        wider = (main * sine > aux * cosine) | (sine >= 1)
        low, high = torch.where(wider, aux, low), torch.where(wider, high, aux)
    aux = (low + high) / 2
    nothing = classes**-2 + problem.pull(zero).square() <= strength.square()
    none = nothing | (problem.alpha == 0)
    aux = torch.where(none, zero, aux)
    main = torch.where(problem.alpha == 0, gap_at(strength, classes), main_gap(aux)[0])
    return torch.where(nothing, zero, main), aux


def _follow_one(problem: _Problem, fixed: _Problem, gap: Tensor) -> Tensor:
    """The gap of one head with its derivatives, which are zero where it is."""
    slope = fixed.cross_slope(gap) + fixed.pull_slope(gap)
    step = (problem.layer.strength - problem.cross(gap) - problem.pull(gap)) / slope
    return carry(gap, torch.where(gap > 0, step, torch.zeros_like(step)))


def _follow_two(problem: _Problem, fixed: _Problem, main: Tensor, aux: Tensor) -> tuple[Tensor, Tensor]:
    r"""The gaps of two heads with their derivatives, by Cramer's rule on both conditions, divided by the strength.

    With the slopes a and b of both pulls the determinant is $(r\,ab-a\cos^2\phi-b\sin^2\phi)/r$, which is positive.
    """
    length = torch.hypot(main, aux)
    cosine, sine = (x / torch.where(length > 0, length, torch.ones_like(length)) for x in (main, aux))
    a, b = fixed.cross_slope(main) / fixed.layer.strength, fixed.pull_slope(aux) / fixed.layer.strength
    scale = length * a * b - a * cosine.square() - b * sine.square()
    scale = torch.where(length > 0, scale, torch.ones_like(scale))
    on_main, on_aux = problem.cross(main) / problem.layer.strength, problem.pull(aux) / problem.layer.strength
    along = cosine * on_main + sine * on_aux
    main = carry(main, (cosine * along - length * b * on_main) / scale)
    return main, carry(aux, (sine * along - length * a * on_aux) / scale)

"""Exact gradients of cross-entropy and binary KL on a collapsed last layer, and the gap at which they turn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lib.checks import ArrayLike, read_count, read_finite, read_nonnegative, read_positive, shared_kind
from lib.neural_collapse.losses import sigmoid_difference
from lib.neural_collapse.setting import broadcast, carry
from lib.shapes import Float, Real

STEPS = 70  # halvings of a bracket whose logarithm is a few dozen wide


@dataclass(frozen=True)
class CollapsedGradients:
    """Coefficients of both losses at collapse, and the cosine of their gradients in the head."""

    ce: Float[Tensor, "*batch"]
    logit: Float[Tensor, "*batch"]
    common: Float[Tensor, "*batch"]
    cosine: Float[Tensor, "*batch"]


def collapsed_gradients(
    student_gap: Real[Tensor, "*#batch"] | ArrayLike,
    teacher_gap: Real[Tensor, "*#batch"] | ArrayLike,
    num_classes: Real[Tensor, "*#batch"] | ArrayLike,
    temperature: Real[Tensor, "*#batch"] | ArrayLike,
    *,
    student_offset: Real[Tensor, "*#batch"] | ArrayLike = 0.0,
    teacher_offset: Real[Tensor, "*#batch"] | ArrayLike = 0.0,
    mean_ratio: Real[Tensor, "*#batch"] | ArrayLike = 0.0,
) -> CollapsedGradients:
    r"""Gradients in the head where student and teacher are collapsed: logits $g\,\Pi+b\,\mathbf 1\mathbf 1^\top$.

    With class means $\tilde H+\mathbf 1\bar h^\top$,
    $$ \nabla_W\mathcal L_{\rm CE}=-\gamma_{\rm CE}\tilde H,\qquad
    \nabla_W\mathcal L_{\rm B}=\kappa_{\rm B}\tilde H+\nu_{\rm B}\mathbf 1\bar h^\top, $$
    where $\gamma_{\rm CE}=1/(e^{g_{\rm S}}+C-1)$, $\kappa_{\rm B}=(\mathcal D_=-\mathcal D_{\ne})/C$ and
    $\nu_{\rm B}=(\mathcal D_=+(C-1)\mathcal D_{\ne})/C$ with the derivatives $\mathcal D$ of the binary KL in the logit
    of the true class and of any other. Cosine
    $-\kappa_{\rm B}/\sqrt{\kappa_{\rm B}^2+\rho_{\rm m}\nu_{\rm B}^2}$.

    Args:
        student_gap: $g_{\rm S}$, true logit minus any other; all broadcast to (*batch,).
        teacher_gap: $g_{\rm T}$.
        num_classes: C, at least 2.
        temperature: T > 0.
        student_offset: $b_{\rm S}$, a common shift of all logits.
        teacher_offset: $b_{\rm T}$.
        mean_ratio: $\rho_{\rm m}=C\|\bar h\|^2/\|\tilde H\|^2\ge0$, the weight of the mean feature.

    Returns:
        `ce` $\gamma_{\rm CE}$, `logit` $\kappa_{\rm B}$, `common` $\nu_{\rm B}$ and `cosine`, each (*batch,). The
        cosine is 0 where the gradient of the binary KL is zero.

    Raises:
        ValueError: a number outside its range, shapes that do not broadcast.

    Source: own derivation, with the losses of Yang, Zong, Huang, Feng and An, arXiv 2411.08937.

    >>> collapsed_gradients([3.0, 6.0], 5.0, 10, 2.0).cosine  # below and above the teacher's gap
    tensor([ 1., -1.], dtype=torch.float64)
    """
    like = shared_kind(student_gap, teacher_gap, num_classes, temperature, student_offset, teacher_offset, mean_ratio)
    s, t, classes, scale, b_s, b_t, rho = broadcast(
        student_gap=read_finite("student_gap", student_gap, like),
        teacher_gap=read_finite("teacher_gap", teacher_gap, like),
        num_classes=read_count("num_classes", num_classes, like, 2),
        temperature=read_positive("temperature", temperature, like),
        student_offset=read_finite("student_offset", student_offset, like),
        teacher_offset=read_finite("teacher_offset", teacher_offset, like),
        mean_ratio=read_nonnegative("mean_ratio", mean_ratio, like),
    )
    ce = torch.sigmoid((classes - 1).log() - s) / (classes - 1)
    true, other = (
        scale * sigmoid_difference((share * s + b_s) / scale, (share * t + b_t) / scale)
        for share in ((classes - 1) / classes, -1 / classes)
    )
    logit, common = (true - other) / classes, (true + (classes - 1) * other) / classes
    length = torch.hypot(logit, rho.sqrt() * common)
    cosine = torch.where(length > 0, -logit / torch.where(length > 0, length, torch.ones_like(length)), 0.0)
    return CollapsedGradients(ce, logit, common, cosine)


def conflict_gap(
    teacher_gap: Real[Tensor, "*#batch"] | ArrayLike,
    num_classes: Real[Tensor, "*#batch"] | ArrayLike,
    temperature: Real[Tensor, "*#batch"] | ArrayLike,
    *,
    student_offset: Real[Tensor, "*#batch"] | ArrayLike = 0.0,
    teacher_offset: Real[Tensor, "*#batch"] | ArrayLike = 0.0,
) -> Float[Tensor, "*out"]:
    r"""The student's gap beyond which binary KL pulls the head against cross-entropy, at collapse.

    The root $g^*$ of $\Delta_{\rm B}(g^*,b_{\rm S})=\Delta_{\rm B}(g_{\rm T},b_{\rm T})$ with the sigmoid gap
    $$ \Delta_{\rm B}(g,b)=\sigma\Big(\frac{(C-1)g/C+b}T\Big)-\sigma\Big(\frac{-g/C+b}T\Big), $$
    which rises from 0 to 1 in $g$. Equal offsets give $g^*=g_{\rm T}$ for every temperature and number of classes.

    Args:
        teacher_gap: $g_{\rm T}>0$; all broadcast to (*batch,).
        num_classes: C, at least 2.
        temperature: T > 0.
        student_offset: $b_{\rm S}$.
        teacher_offset: $b_{\rm T}$.

    Returns:
        $g^*>0$, shape (*batch,). Its first derivatives are those of the implicit function; higher ones are not.

    Raises:
        ValueError: a number outside its range, shapes that do not broadcast.

    Source: own derivation, with the losses of Yang, Zong, Huang, Feng and An, arXiv 2411.08937.

    >>> conflict_gap(5.0, 10, 2.0, teacher_offset=[-3.0, 0.0, 3.0])
    tensor([6.5451, 5.0000, 1.6642], dtype=torch.float64)
    """
    like = shared_kind(teacher_gap, num_classes, temperature, student_offset, teacher_offset)
    t, classes, scale, b_s, b_t = broadcast(
        teacher_gap=read_positive("teacher_gap", teacher_gap, like),
        num_classes=read_count("num_classes", num_classes, like, 2),
        temperature=read_positive("temperature", temperature, like),
        student_offset=read_finite("student_offset", student_offset, like),
        teacher_offset=read_finite("teacher_offset", teacher_offset, like),
    )
    root, slope = _crossing(*(x.detach() for x in (t, classes, scale, b_s, b_t)))
    miss = _log_odds_of_gap(root, b_s, classes, scale) - _log_odds_of_gap(t, b_t, classes, scale)
    return carry(root, -miss / slope)


def _crossing(t: Tensor, classes: Tensor, scale: Tensor, b_s: Tensor, b_t: Tensor) -> tuple[Tensor, Tensor]:
    """The student's gap at which both log-odds agree, by bisection, and the slope of the student's there."""
    wanted = _log_odds_of_gap(t, b_t, classes, scale)
    # tanh(g/4T) bounds the sigmoid gap from above for any offset; the log-odds grow at least like g/CT - |b|/T - 2.
    low = 2 * scale * softplus(wanted + math.log(2))
    high = torch.maximum(torch.maximum(2 * scale, 2 * low), classes * (scale * (wanted + 2) + b_s.abs()))
    low, high = low.log() - 1e-3, high.log()
    for _ in range(STEPS):
        middle = (low + high) / 2
        below = _log_odds_of_gap(middle.exp(), b_s, classes, scale) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    root = ((low + high) / 2).exp()
    return root, _slope_of_gap(root, b_s, classes, scale)


def _log_odds_of_gap(gap: Tensor, offset: Tensor, classes: Tensor, scale: Tensor) -> Tensor:
    r"""Logit of $\Delta_{\rm B}=\sinh u/(\cosh u+\cosh v)$, which keeps its digits where the gap rounds to 0 or 1."""
    u, v = gap / (2 * scale), (((classes - 2) / (2 * classes) * gap + offset) / scale).abs()
    log_sinh = u + (-torch.expm1(-2 * u)).log() - math.log(2)
    log_cosh = v + torch.log1p(torch.exp(-2 * v)) - math.log(2)
    return log_sinh - torch.logaddexp(log_cosh, -u)


def _slope_of_gap(gap: Tensor, offset: Tensor, classes: Tensor, scale: Tensor) -> Tensor:
    """Derivative of `_log_odds_of_gap` in the gap, above zero."""
    share = (classes - 2) / classes
    u, v = gap / (2 * scale), (share / 2 * gap + offset) / scale
    lost, twice = 2 * torch.exp(-u - v.abs()), torch.exp(-2 * v.abs())
    whole = 1 + twice + lost
    return (1 / torch.tanh(u) + lost / whole - share * v.sign() * (1 - twice) / whole) / (2 * scale)

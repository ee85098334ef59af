"""Losses on logits and what each sends back: cross-entropy, binary KL with its normalised variant, softmax KL."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from lib.checks import ArrayLike, broadcast_batch, indicator, read_positive, require_shape, shared_kind
from lib.neural_collapse.setting import read_labels, read_matrix
from lib.shapes import Float, Int, Real

VARIANTS = ("plain", "norm")


def cross_entropy_residual(
    logits: Real[Tensor, "*#batch n C"] | ArrayLike, labels: Int[Tensor, "*#batch n"] | ArrayLike
) -> Float[Tensor, "*out n C"]:
    r"""Derivative of every sample's cross-entropy in its logits: softmax minus one-hot label.

    Args:
        logits: shape (*batch, n, C).
        labels: whole numbers from 0 to C - 1, shape (n,) or (*batch, n).

    Returns:
        Per sample, without a division by n, shape (*batch, n, C).

    Raises:
        ValueError: fewer than 2 classes, a logit that is not finite, labels that are no whole numbers below C.

    Source: the derivative of log-sum-exp.

    >>> cross_entropy_residual([[0.0, 0.0]], [1])
    tensor([[ 0.5000, -0.5000]], dtype=torch.float64)
    """
    o = _read_logits("logits", logits, shared_kind(logits))
    y = read_labels(labels, o.shape[-2], o.shape[-1], o.device)
    broadcast_batch(logits=o.shape[:-2], labels=y.shape[:-1])
    return o.softmax(-1) - indicator(y, o.shape[-1], o)


def binary_kl(
    student: Real[Tensor, "*#batch n C"] | ArrayLike,
    teacher: Real[Tensor, "*#batch n C"] | ArrayLike,
    temperature: Real[Tensor, "*#batch"] | ArrayLike,
    *,
    variant: str = "plain",
) -> Float[Tensor, "*out"]:
    r"""The logit-level distillation loss: one two-class KL divergence for every class, summed.

    $$ \frac{T^2}n\sum_{i,j}\mathrm{KL}\big(\sigma(o^{\rm T}_{ij}/T)\,\big\|\,\sigma(o_{ij}/T)\big) $$
    with the logistic function $\sigma$. The variant "norm" replaces the two arguments by $\frac12$ and
    $\sigma((o_{ij}-o^{\rm T}_{ij})/T)$. Unlike a KL divergence of softmaxes, both see a common shift of all logits.

    Args:
        student: logits, shape (*batch, n, C).
        teacher: logits, shape (*batch, n, C).
        temperature: T > 0, shape broadcastable to (*batch,).
        variant: "plain" or "norm".

    Returns:
        Mean over the samples in nats, shape (*batch,); zero where student and teacher agree. Exact also at logits
        whose probabilities round to zero or one.

    Raises:
        ValueError: an unknown variant, different numbers of samples or classes, one class, logits that are not finite,
            a temperature that is not positive.

    Source: Yang, Zong, Huang, Feng and An, arXiv 2411.08937, and their code for "norm".

    >>> binary_kl([[1.0, -1.0]], [[1.0, -1.0]], 2.0), binary_kl([[2e4, 0.0]], [[0.0, 0.0]], 1.0)
    (tensor(0., dtype=torch.float64), tensor(9999.3069, dtype=torch.float64))
    """
    o, target, scale = _read_pair(student, teacher, temperature, variant)
    if variant == "norm":
        x = ((o - target) / scale).abs()
        divergence = x / 2 + softplus(-x) - math.log(2)
    else:
        x, y = o / scale, target / scale
        divergence = torch.sigmoid(y) * (logsigmoid(y) - logsigmoid(x))
        divergence = divergence + torch.sigmoid(-y) * (logsigmoid(-y) - logsigmoid(-x))
    return (scale.square() * divergence).sum(-1).mean(-1)


def binary_kl_residual(
    student: Real[Tensor, "*#batch n C"] | ArrayLike,
    teacher: Real[Tensor, "*#batch n C"] | ArrayLike,
    temperature: Real[Tensor, "*#batch"] | ArrayLike,
    *,
    variant: str = "plain",
) -> Float[Tensor, "*out n C"]:
    r"""Derivative of every sample's binary KL in the student's logits.

    $T\,[\sigma(o_{ij}/T)-\sigma(o^{\rm T}_{ij}/T)]$, and for "norm" $T\,[\sigma((o_{ij}-o^{\rm T}_{ij})/T)-\frac12]$.

    Args:
        student: logits, shape (*batch, n, C).
        teacher: logits, shape (*batch, n, C).
        temperature: T > 0, shape broadcastable to (*batch,).
        variant: "plain" or "norm".

    Returns:
        Per sample, without a division by n, shape (*batch, n, C).

    Raises:
        ValueError: as `binary_kl`.

    Source: Yang, Zong, Huang, Feng and An, arXiv 2411.08937, for the losses; the derivative of the logistic function.

    >>> binary_kl_residual([[0.0, 3.0]], [[0.0, 0.0]], 1.0)
    tensor([[0.0000, 0.4526]], dtype=torch.float64)
    """
    o, target, scale = _read_pair(student, teacher, temperature, variant)
    if variant == "norm":
        return scale * torch.tanh((o - target) / (2 * scale)) / 2
    return scale * sigmoid_difference(o / scale, target / scale)


def softmax_kl(
    student: Real[Tensor, "*#batch n C"] | ArrayLike,
    teacher: Real[Tensor, "*#batch n C"] | ArrayLike,
    temperature: Real[Tensor, "*#batch"] | ArrayLike,
) -> Float[Tensor, "*out"]:
    r"""The usual distillation loss: $T^2$ times the KL divergence of the two softmaxes at temperature $T$.

    Args:
        student: logits, shape (*batch, n, C).
        teacher: logits, shape (*batch, n, C).
        temperature: T > 0, shape broadcastable to (*batch,).

    Returns:
        Mean over the samples in nats, shape (*batch,).

    Raises:
        ValueError: as `binary_kl`.

    Source: Hinton, Vinyals and Dean (2015), Distilling the knowledge in a neural network.

    >>> softmax_kl([[5.0, 4.0]], [[1.0, 0.0]], 2.0)  # a common shift is not seen
    tensor(0., dtype=torch.float64)
    """
    o, target, scale = _read_pair(student, teacher, temperature, "plain")
    log_p, log_q = (o / scale).log_softmax(-1), (target / scale).log_softmax(-1)
    return (scale.square() * log_q.exp() * (log_q - log_p)).sum(-1).mean(-1)


def softmax_kl_residual(
    student: Real[Tensor, "*#batch n C"] | ArrayLike,
    teacher: Real[Tensor, "*#batch n C"] | ArrayLike,
    temperature: Real[Tensor, "*#batch"] | ArrayLike,
) -> Float[Tensor, "*out n C"]:
    r"""Derivative of every sample's softmax KL in the student's logits: $T$ times the difference of the softmaxes.

    Args:
        student: logits, shape (*batch, n, C).
        teacher: logits, shape (*batch, n, C).
        temperature: T > 0, shape broadcastable to (*batch,).

    Returns:
        Per sample, without a division by n, shape (*batch, n, C); its rows add up to zero.

    Raises:
        ValueError: as `binary_kl`.

    Source: Hinton, Vinyals and Dean (2015), Distilling the knowledge in a neural network.

    >>> softmax_kl_residual([[0.0, 0.0]], [[2.0, 2.0]], 1.0)
    tensor([[0., 0.]], dtype=torch.float64)
    """
    o, target, scale = _read_pair(student, teacher, temperature, "plain")
    return scale * ((o / scale).softmax(-1) - (target / scale).softmax(-1))


def sigmoid_difference(x: Tensor, y: Tensor) -> Tensor:
    r"""$\sigma(x)-\sigma(y)$ with all digits, also where both round to one."""
    both = torch.sigmoid(x) * torch.sigmoid(-y) + torch.sigmoid(-x) * torch.sigmoid(y)
    return torch.tanh((x - y) / 2) * both  # smooth, also where x = y


def _read_logits(name: str, value: Tensor | ArrayLike, like: Tensor) -> Tensor:
    x = read_matrix(name, value, like, "(*batch, n, C)")
    require_shape(name, x, x.shape[-1] > 1, "(*batch, n, C) with C >= 2")
    return x


def _read_pair(
    student: Tensor | ArrayLike, teacher: Tensor | ArrayLike, temperature: Tensor | ArrayLike, variant: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Both logits, and the temperature as (*batch, 1, 1)."""
    if variant not in VARIANTS:
        raise ValueError(f"variant: got {variant!r}, want one of {', '.join(map(repr, VARIANTS))}")
    like = shared_kind(student, teacher, temperature)
    o, target = _read_logits("student", student, like), _read_logits("teacher", teacher, like)
    want = f"(*batch, {o.shape[-2]}, {o.shape[-1]}) as the student's"
    require_shape("teacher", target, target.shape[-2:] == o.shape[-2:], want)
    scale = read_positive("temperature", temperature, like)
    broadcast_batch(student=o.shape[:-2], teacher=target.shape[:-2], temperature=scale.shape)
    return o, target, scale.unsqueeze(-1).unsqueeze(-1)

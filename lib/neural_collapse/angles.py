"""The angle between the gradients of cross-entropy and binary KL in the head, the backbone and the features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.neural_collapse.losses import binary_kl_residual, cross_entropy_residual
from lib.neural_collapse.students import LossMix, Students
from lib.shapes import Float, Int


@dataclass(frozen=True)
class GradientAngles:
    """Cosines (R, S) in the main head's weights, in the backbone's parameters, and in each feature vector (mean), the
    cosine in the whole matrix of features, and the mean logit gap.
    """

    head: Float[Tensor, "R S"]
    backbone: Float[Tensor, "R S"]
    per_sample: Float[Tensor, "R S"]
    features: Float[Tensor, "R S"]
    gap: Float[Tensor, "R S"]


def gradient_angles(
    model: Students,
    pixels: Float[Tensor, "R n p"],
    labels: Int[Tensor, "R n"],
    teacher: Float[Tensor, "R S n C"],
    temperature: float = 2.0,
    *,
    mix: LossMix | None = None,
) -> GradientAngles:
    r"""Cosines between the gradients of cross-entropy and of binary KL.

    In the weights of the main head both losses act there. Below, in features and backbone, cross-entropy arrives
    through the main head and binary KL through the heads on which a student has it.

    Args:
        model: the students.
        pixels: inputs of each run, shape (R, n, p).
        labels: class of each input, shape (R, n).
        teacher: logits of the teachers, shape (R, S, n, C).
        temperature: T of the binary KL.
        mix: on which heads each student has the binary KL; without it, and for students without one, the main head.

    Returns:
        `GradientAngles`, each (R, S), over all inputs given. `gap` is the mean of the true logit minus the mean of the
        others.

    Raises:
        ValueError: a weight on a head that the model has not got.

    Source: own construction, for the explanation of Yang, Zong, Huang, Feng and An, arXiv 2411.08937.

    >>> model = Students(1, 1, (3, 4), 2, generator=torch.Generator().manual_seed(0))
    >>> x, y = torch.ones(1, 2, 3), torch.tensor([[0, 1]])
    >>> gradient_angles(model, x, y, torch.zeros(1, 1, 2, 2)).head.shape
    torch.Size([1, 1])
    """
    parameters = list(model.backbone.parameters())
    h = model.features(pixels.unsqueeze(1))
    with torch.no_grad():
        o = model.logits(h)
        y = labels.unsqueeze(1).expand(o.shape[:-1])
        ce, kl = cross_entropy_residual(o, y), binary_kl_residual(o, teacher, temperature)
        true = o.gather(-1, y.unsqueeze(-1)).squeeze(-1)
        gap = (true - (o.sum(-1) - true) / (o.shape[-1] - 1)).mean(-1)
    back = ce @ model.main.weight.detach().mT, _from_teacher(model, h.detach(), teacher, temperature, mix)
    below = [
        torch.cat([g.flatten(2) for g in torch.autograd.grad(h, parameters, d, retain_graph=True)], -1) for d in back
    ]
    return GradientAngles(
        head=_cosine((h.detach().mT @ ce).flatten(2), (h.detach().mT @ kl).flatten(2)),
        backbone=_cosine(below[0], below[1]),
        per_sample=_cosine(back[0], back[1]).mean(-1),
        features=_cosine(back[0].flatten(2), back[1].flatten(2)),
        gap=gap,
    )


def _from_teacher(
    model: Students, features: Tensor, teacher: Tensor, temperature: float, mix: LossMix | None
) -> Tensor:
    """What binary KL sends into the features, through the heads of the mix or through the main head."""
    one = features.new_ones(features.shape[1])
    weights = [one, 0 * one, 0 * one]
    if mix is not None:
        none = (mix.main == 0) & (mix.linear == 0) & (mix.nonlinear == 0)
        weights = [torch.where(none, 1.0, mix.main), mix.linear, mix.nonlinear]
    h, total = features.requires_grad_(), torch.zeros_like(features)
    for weight, head in zip(weights, (model.main, model.linear, model.nonlinear), strict=True):
        if bool((weight != 0).any()):
            if head is not model.main and not model.auxiliary:
                raise ValueError("mix: got a weight on an auxiliary head, want a model that has auxiliary heads")
            o = head(h)
            residual = binary_kl_residual(o.detach(), teacher, temperature)
            total = total + torch.autograd.grad(o, h, weight[:, None, None] * residual)[0]
    return total


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine along the last axis, zero where a gradient vanishes (a sample whose features are all zero)."""
    length = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    cosine: Tensor = (a * b).sum(-1) / length.clamp_min(torch.finfo(a.dtype).tiny)
    return cosine

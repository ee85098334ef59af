"""The angle between the gradients of cross-entropy and binary KL in the head, the backbone and the features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.neural_collapse.losses import binary_kl_residual, cross_entropy_residual
from lib.neural_collapse.students import Students
from lib.shapes import Float, Int


@dataclass(frozen=True)
class GradientAngles:
    """Cosines (R, S) in the main head's weights, in the backbone's parameters, and in each feature vector (mean), the
    mean logit gap, and the cosine in the whole matrix of features.
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
) -> GradientAngles:
    r"""Cosines between the gradients of cross-entropy and of binary KL, both taken on the main head.

    Args:
        model: the students.
        pixels: inputs of each run, shape (R, n, p).
        labels: class of each input, shape (R, n).
        teacher: logits of the teachers, shape (R, S, n, C).
        temperature: T of the binary KL.

    Returns:
        `GradientAngles`, each (R, S), over all inputs given. `gap` is the mean of the true logit minus the mean of the
        others.

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
        back = ce @ model.main.weight.mT, kl @ model.main.weight.mT
        true = o.gather(-1, y.unsqueeze(-1)).squeeze(-1)
        gap = (true - (o.sum(-1) - true) / (o.shape[-1] - 1)).mean(-1)
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


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine along the last axis, zero where a gradient vanishes (a sample whose features are all zero)."""
    length = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    cosine: Tensor = (a * b).sum(-1) / length.clamp_min(torch.finfo(a.dtype).tiny)
    return cosine

"""Kernels of infinitely many random features in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, require, require_shape
from lib.shapes import Float, Real


def relu_kernel(x: Real[Tensor, "N p"] | ArrayLike, y: Real[Tensor, "P p"] | ArrayLike) -> Float[Tensor, "N P"]:
    r"""Mean product of two ReLU features over standard normal weights.

    $$ k(x,y)=\mathbb E_{w\sim N(0,I)}[\mathrm{relu}(w^\top x)\,\mathrm{relu}(w^\top y)]
    =\frac{|x||y|}{2\pi}\big(\sin\theta+(\pi-\theta)\cos\theta\big), $$
    with $\theta$ the angle between x and y. The kernel is 0 where a vector is.

    Args:
        x: one point a row, shape (N, p).
        y: one point a row, shape (P, p).

    Returns:
        The kernel matrix, shape (N, P).

    Raises:
        ValueError: not a matrix, different p, a number that is not finite.

    Source: Cho and Saul (2009), Kernel methods for deep learning, the arc-cosine kernel of order 1, halved.

    >>> relu_kernel([[2.0, 0.0]], [[1.0, 0.0], [-1.0, 0.0]])
    tensor([[1., 0.]], dtype=torch.float64)
    """
    left = as_float("x", x)
    right = as_float("y", y, like=left)
    require_shape("x", left, left.ndim == 2, "(N, p)")
    require_shape("y", right, right.ndim == 2 and right.shape[-1] == left.shape[-1], f"(P, {left.shape[-1]})")
    require("x", left.isfinite(), "finite numbers", left)
    require("y", right.isfinite(), "finite numbers", right)
    norms = left.norm(dim=-1).unsqueeze(-1) * right.norm(dim=-1)
    product = left @ right.mT
    cosine = product / torch.where(norms > 0, norms, torch.ones_like(norms))
    # at angles 0 and pi the derivative of the arc cosine is infinite, that of the kernel is not
    inside = cosine.abs() < 1
    angle = torch.where(inside, cosine, torch.zeros_like(cosine)).acos()
    bent = (norms * angle.sin() + (torch.pi - angle) * product) / (2 * torch.pi)
    return torch.where(inside, bent, product.clamp_min(0) / 2)

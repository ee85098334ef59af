"""Generalised cross-validation: the test error from one Gram matrix, of a kernel or of random features."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, require_positive
from lib.rf_regression.spectrum import read_kernel
from lib.shapes import Float, Real


def gcv_risk(
    kernel: Real[Tensor, "n n"] | ArrayLike,
    targets: Real[Tensor, " n"] | Real[Tensor, "n C"] | ArrayLike,
    ridge: Real[Tensor, "*batch"] | ArrayLike,
) -> Float[Tensor, "*batch"]:
    r"""Estimate of the test error of ridge regression from its training data alone.

    $$ E_{\rm test}\approx\frac{E_{\rm train}}{\big(\frac\delta n\,\mathrm{tr}(K+\delta I)^{-1}\big)^2},\qquad
    E_{\rm train}=\frac{\delta^2}n\,|(K+\delta I)^{-1}y|^2. $$
    Because $1/\kappa=\mathrm{tr}(\hat K+\delta I)^{-1}$ holds for the Gram matrix of random features too, neither
    spectrum nor width nor noise need be known.

    Args:
        kernel: K, unnormalised and symmetric (its lower triangle is read), shape (n, n).
        targets: y, shape (n,), or (n, C) for C targets whose errors add up.
        ridge: $\delta>0$, any number of ridges, shape (*batch,).

    Returns:
        The estimate at each ridge, shape (*batch,).

    Raises:
        ValueError: a kernel that is not square, targets of another length, a ridge that is not positive and finite.

    Source: own extension of Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646, to random features.

    >>> gcv_risk([[1.0, 0.0], [0.0, 1.0]], [1.0, 2.0], [0.1, 10.0])
    tensor([2.5000, 2.5000], dtype=torch.float64)
    """
    gram, labels = read_kernel(kernel, targets)
    delta = as_float("ridge", ridge, like=gram)
    require_positive("ridge", delta)
    values, vectors = torch.linalg.eigh(gram)
    power = (vectors.mT @ labels).square().sum(-1)
    kept = 1 / (values.clamp_min(0) + delta.unsqueeze(-1))  # the ridge cancels between both errors
    estimate: Tensor = (kept.square() * power).mean(-1) / kept.mean(-1).square()
    return estimate

"""Two other losses in the same frame: cross-entropy with smoothed labels, and the squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, require, shared_kind
from lib.neural_collapse.optimum import gap_at, read_layer
from lib.neural_collapse.setting import broadcast
from lib.shapes import Float, Real


def smoothed_gap(
    num_classes: Real[Tensor, "*#batch"] | ArrayLike,
    samples_per_class: Real[Tensor, "*#batch"] | ArrayLike,
    lambda_w: Real[Tensor, "*#batch"] | ArrayLike,
    lambda_h: Real[Tensor, "*#batch"] | ArrayLike,
    smoothing: Real[Tensor, "*#batch"] | ArrayLike,
) -> Float[Tensor, "*out"]:
    r"""The optimal gap of cross-entropy with smoothed labels: smoothing acts as more regularisation.

    Targets $(1-\epsilon_{\rm s})$ one-hot plus $\epsilon_{\rm s}/C$ give the gap of `ufm_optimum` with
    $\lambda_{\rm eff}+\epsilon_{\rm s}/C$ in place of $\lambda_{\rm eff}$.

    Args:
        num_classes: C, at least 2; all broadcast to (*batch,).
        samples_per_class: $n_{\rm c}$, at least 1.
        lambda_w: weight decay of the head, above 0.
        lambda_h: weight decay of the features, above 0.
        smoothing: $\epsilon_{\rm s}$ in [0, 1].

    Returns:
        The gap, shape (*batch,).

    Raises:
        ValueError: a number outside its range, shapes that do not broadcast.

    Source: own derivation; label smoothing is of Szegedy et al. (2016).

    >>> smoothed_gap(10, 5, 5e-3, 5e-4, [0.0, 0.1, 1.0])
    tensor([5.6126, 4.1725, 0.0000], dtype=torch.float64)
    """
    like = shared_kind(num_classes, samples_per_class, lambda_w, lambda_h, smoothing)
    layer = read_layer(num_classes, samples_per_class, lambda_w, lambda_h, like)
    part = as_float("smoothing", smoothing, like=like)
    require("smoothing", (part >= 0) & (part <= 1), "a number in [0, 1]", part)
    classes, strength, part = broadcast(num_classes=layer.classes, samples_per_class=layer.strength, smoothing=part)
    return gap_at(strength + part / classes, classes)


def squared_loss_gap(
    num_classes: Real[Tensor, "*#batch"] | ArrayLike,
    samples_per_class: Real[Tensor, "*#batch"] | ArrayLike,
    lambda_w: Real[Tensor, "*#batch"] | ArrayLike,
    lambda_h: Real[Tensor, "*#batch"] | ArrayLike,
) -> Float[Tensor, "*out"]:
    r"""The optimal gap of half the squared error against one-hot targets: $(1-\lambda_{\rm eff}C)_+$.

    Without bias the class means are orthogonal, with a free bias they are a simplex; the gap is the same.

    Args:
        num_classes: C, at least 2; all broadcast to (*batch,).
        samples_per_class: $n_{\rm c}$, at least 1.
        lambda_w: weight decay of the head, above 0.
        lambda_h: weight decay of the features, above 0.

    Returns:
        The gap, shape (*batch,).

    Raises:
        ValueError: a number outside its range, shapes that do not broadcast.

    Source: soft thresholding of singular values; compare Tirer and Bruna (2022), Extended unconstrained features model.

    >>> squared_loss_gap(10, 5, 5e-3, [5e-4, 1.0])
    tensor([0.9646, 0.0000], dtype=torch.float64)
    """
    like = shared_kind(num_classes, samples_per_class, lambda_w, lambda_h)
    layer = read_layer(num_classes, samples_per_class, lambda_w, lambda_h, like)
    gap: Tensor = torch.clamp_min(1 - layer.strength * layer.classes, 0)
    return gap

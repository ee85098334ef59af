"""Binned calibration errors of confidences, and of all classes."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, indicator
from lib.shapes import Float, Int, Real, Shaped
from lib.temperature_scaling.rows import blocks
from lib.temperature_scaling.setting import read_classes, read_confidence, read_probs, require_bins

NORMS = (1, 2, "max", "mean")


def binned_calibration_error(
    confidence: Real[Tensor, "*#batch n"] | ArrayLike,
    outcome: Shaped[Tensor, "*#batch n"] | ArrayLike,
    *,
    n_bins: int = 15,
    bins: str = "width",
    norm: int | str = 1,
    debias: bool = False,
) -> Float[Tensor, "*out"]:
    r"""Distance between mean confidence and mean outcome, bin by bin: the expected calibration error (ECE).

    With $n_b$ points in bin b and the difference $g_b$ of mean outcome and mean confidence, norm 1 is
    $\sum_b\frac{n_b}n|g_b|$, norm 2 is $(\sum_b\frac{n_b}n g_b^2)^{1/2}$, "max" the largest $|g_b|$, "mean" the plain
    mean of $|g_b|$ over bins that hold a point.

    Args:
        confidence: predicted probabilities, shape (*batch, n).
        outcome: whether it happened, or its probability, from 0 to 1, shape (*batch, n).
        n_bins: B, number of bins.
        bins: "width", the intervals (i/B, (i+1)/B] with 0 in the first; or "mass", equally many points in each, in
            the order of confidence (the first bins hold one more where n is no multiple of B).
        norm: 1, 2, "max" or "mean".
        debias: for norm 2, subtract from each $g_b^2$ the sampling variance $\bar y_b(1-\bar y_b)/(n_b-1)$ of its mean
            outcome (nothing in a bin of one point); the sum is clamped at zero.

    Returns:
        Shape (*batch,).

    Raises:
        ValueError: numbers outside [0, 1], shapes that differ, no bin, an unknown kind of bins or norm, debias with
            another norm than 2.

    Source: Naeini, Cooper and Hauskrecht (AAAI 2015); debiased as in Kumar, Liang and Ma (NeurIPS 2019), arXiv
    1909.10155.

    >>> binned_calibration_error([0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0], n_bins=10)
    tensor(0.1000, dtype=torch.float64)
    """
    f, y = read_confidence(confidence, outcome)
    require_bins(n_bins, bins)
    if norm not in NORMS or isinstance(norm, bool):
        raise ValueError(f"norm: got {norm!r}, want 1, 2, 'max' or 'mean'")
    if debias and norm != 2:
        raise ValueError(f"debias: got True with norm {norm!r}, want norm 2")
    n = f.shape[-1]
    if bins == "mass":
        f, order = f.sort(dim=-1, stable=True)
        y = y.gather(-1, order)
    count, told, happened = _bin_sums(f, y, n_bins, bins)
    held = count.clamp_min(1)
    rate = happened / held
    gap = rate - told / held
    share = count / n
    if norm == 1:
        error = (share * gap.abs()).sum(-1)
    elif norm == 2:
        square = gap**2
        if debias:
            square = square - torch.where(count > 1, rate * (1 - rate) / (count - 1).clamp_min(1), 0)
        total = (share * square).sum(-1)
        error = torch.where(total > 0, torch.where(total > 0, total, 1.0).sqrt(), 0.0)  # flat at zero
    elif norm == "max":
        error = gap.abs().amax(-1)
    else:
        error = gap.abs().sum(-1) / (count > 0).sum(-1)
    return error.to(f.dtype)


def _bin_sums(f: Tensor, y: Tensor, n_bins: int, bins: str) -> tuple[Tensor, Tensor, Tensor]:
    """Points, summed confidences and summed outcomes of each bin, in float64; in blocks that stay in the cache."""
    sums = [torch.zeros(*f.shape[:-1], n_bins, dtype=torch.float64, device=f.device) for _ in range(3)]
    long, size = f.shape[-1] % n_bins, f.shape[-1] // n_bins  # so many bins of equal mass hold one point more
    start = 0
    for columns in blocks(f.unsqueeze(-1), y.unsqueeze(-1), torch.float64, copies=2):
        part, outcome = (column.squeeze(-1) for column in columns)
        if bins == "mass":
            place = torch.arange(start, start + part.shape[-1], device=f.device)
            late = long + (place - long * (size + 1)) // max(size, 1)
            index = torch.where(place < long * (size + 1), place // (size + 1), late).expand(part.shape)
        else:
            edge = (part * n_bins).round()  # the nearest; the point lies above it or not
            index = (edge - (part <= edge / n_bins).to(f.dtype)).clamp_min(0).long()
        start += part.shape[-1]
        terms = (torch.ones_like(part, dtype=torch.float64), part.double(), outcome.double())
        sums = [total.scatter_add(-1, index, term) for total, term in zip(sums, terms, strict=True)]
    return sums[0], sums[1], sums[2]


def classwise_calibration_error(
    probs: Real[Tensor, "*#batch n k"] | ArrayLike,
    labels: Int[Tensor, "*#batch n"] | ArrayLike,
    *,
    n_bins: int = 15,
    bins: str = "width",
) -> Float[Tensor, "*out"]:
    r"""Mean over classes of the binned calibration error of each class's probability.

    Args:
        probs: predictions, rows sum to 1, shape (*batch, n, k).
        labels: true classes, shape (*batch, n).
        n_bins: number of bins.
        bins: "width" (static calibration error) or "mass" (adaptive calibration error).

    Returns:
        Shape (*batch,).

    Raises:
        ValueError: probabilities outside [0, 1] or rows that do not sum to 1, labels outside the classes, no bin, an
            unknown kind of bins.

    Source: Nixon, Dusenberry, Zhang, Jerfel and Tran (CVPR Workshops 2019), arXiv 1904.01685.

    >>> classwise_calibration_error([[0.5, 0.5], [0.5, 0.5]], [0, 1])
    tensor(0., dtype=torch.float64)
    """
    p = read_probs("probs", probs)
    y = read_classes("labels", labels, p.shape[-1], p.shape[-2], p)
    require_bins(n_bins, bins)
    happened = indicator(y, p.shape[-1], p)
    by_class = binned_calibration_error(p.mT.clamp(0, 1), happened.mT, n_bins=n_bins, bins=bins)
    return by_class.mean(-1)

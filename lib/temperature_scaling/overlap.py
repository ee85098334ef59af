"""Risks of an interpolating classifier in the overlap model, exactly and for any number of classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, read_count, require, shared_kind
from lib.shapes import Float, Real
from lib.temperature_scaling.setting import read_number


@dataclass(frozen=True)
class OverlapRisks:
    """Error and negative log-likelihoods (nats) of the overlap model (see `overlap_risks`)."""

    error: Float[Tensor, "*batch"]
    bayes_nll: Float[Tensor, "*batch"]
    uniform_nll: Float[Tensor, "*batch"]
    scaled_nll: Float[Tensor, "*batch"]
    recalibrated_nll: Float[Tensor, "*batch"]
    calibration_gap: Float[Tensor, "*batch"]
    grouping_gap: Float[Tensor, "*batch"]
    scaled_logit_gap: Float[Tensor, "*batch"]


def binary_entropy(p: Tensor) -> Tensor:
    """Entropy in nats of a coin with probability p; zero at both ends."""
    heads: Tensor = torch.special.entr(p)
    tails: Tensor = torch.special.entr(1 - p)
    return heads + tails


def overlap_risks(
    overlap: Real[Tensor, "*#batch"] | ArrayLike,
    n_classes: Real[Tensor, "*#batch"] | ArrayLike,
    *,
    group_size: Real[Tensor, "*#batch"] | ArrayLike = 2,
) -> OverlapRisks:
    r"""What an interpolator with one logit gap pays at its best temperature, and what any other map could reach.

    Classes come in groups of $C_{\rm g}$. A class puts the share $\vartheta$ of its mass on a region that its whole
    group shares, and the rest on its own. An interpolator repeats there the label of a training point, and is wrong
    with probability $p_{\rm err}=\vartheta(1-1/C_{\rm g})$. At the best temperature its negative log-likelihood (NLL)
    is

    $$ H_{\rm b}(p_{\rm err})+p_{\rm err}\log(C-1),\qquad\text{against}\quad
    \vartheta\log C_{\rm g}\quad\text{for the true probabilities.} $$

    Args:
        overlap: $\vartheta$, share of each class in the common region of its group, from 0 to 1.
        n_classes: C, number of classes; all arguments broadcast.
        group_size: $C_{\rm g}$, classes of a group, at least 2, a divisor of C.

    Returns:
        All (*batch,), in nats but for the error: `error` $p_{\rm err}$; `bayes_nll` $\vartheta\log C_{\rm g}$;
        `uniform_nll` $\log C$; `scaled_nll`, the best temperature's; `recalibrated_nll`
        $H_{\rm b}(p_{\rm err})+p_{\rm err}\log(C_{\rm g}-1)$, the best that any map of the predicted class can do;
        `calibration_gap` $p_{\rm err}\log\frac{C-1}{C_{\rm g}-1}$, the difference of the last two; `grouping_gap`,
        recalibrated minus Bayes; `scaled_logit_gap` $\log\frac{(1-p_{\rm err})(C-1)}{p_{\rm err}}$, the logit gap after
        division by the best temperature (infinite without an error).

    Raises:
        ValueError: an overlap outside [0, 1], numbers of classes that are not whole, groups of fewer than 2 classes or
            that do not divide the classes evenly, shapes that do not broadcast.

    Source: own derivation, in the overlap model of Chidambaram and Ge (ICLR 2024), arXiv 2306.00740.

    >>> risks = overlap_risks(0.4, [2, 10, 100])
    >>> risks.scaled_nll.round(decimals=4)
    tensor([0.5004, 0.9398, 1.4194], dtype=torch.float64)
    >>> risks.bayes_nll.round(decimals=4)
    tensor([0.2773, 0.2773, 0.2773], dtype=torch.float64)
    """
    like = shared_kind(overlap, n_classes, group_size)
    share = read_number("overlap", overlap, like, 0.0, 1.0, "a share from 0 to 1")
    k, m = read_count("n_classes", n_classes, like, 2), read_count("group_size", group_size, like, 2)
    batch = broadcast_batch(overlap=share.shape, n_classes=k.shape, group_size=m.shape)
    require("group_size", (m <= k) & (torch.remainder(k, m) == 0), "a divisor of n_classes", m)
    share, k, m = share.expand(batch), k.expand(batch), m.expand(batch)
    error = share * (1 - 1 / m)
    entropy, bayes = binary_entropy(error), share * m.log()
    recalibrated = entropy + torch.xlogy(error, m - 1)
    return OverlapRisks(
        error=error,
        bayes_nll=bayes,
        uniform_nll=k.log(),
        scaled_nll=entropy + torch.xlogy(error, k - 1),
        recalibrated_nll=recalibrated,
        calibration_gap=torch.xlogy(error, (k - 1) / (m - 1)),
        grouping_gap=recalibrated - bayes,
        scaled_logit_gap=((1 - error) * (k - 1) / error).log(),
    )


def temperature_lower_bound(
    error: Real[Tensor, "*#batch"] | ArrayLike,
    n_classes: Real[Tensor, "*#batch"] | ArrayLike,
    gap_ratio: Real[Tensor, "*#batch"] | ArrayLike = 1.0,
) -> Float[Tensor, "*batch"]:
    r"""Lowest NLL that any temperature can reach when logit gaps vary by a bounded factor.

    If every gap between the largest logit and another one lies in $[\Delta_{\min},\Delta_{\max}]$ with
    $\rho_\Delta=\Delta_{\max}/\Delta_{\min}$, and the largest logit is wrong with probability $p_{\rm err}$, then
    for every T

    $$ \mathrm{NLL}(T)\ge H_{\rm b}(p_{\rm err}/\rho_\Delta)+\frac{p_{\rm err}}{\rho_\Delta}\log(C-1), $$

    and $\log C$ where $p_{\rm err}/\rho_\Delta\ge(C-1)/C$. Equality holds for equal gaps.

    Args:
        error: $p_{\rm err}$, probability that the largest logit is wrong, from 0 to 1.
        n_classes: C, number of classes; all arguments broadcast.
        gap_ratio: $\rho_\Delta\ge1$, largest over smallest gap.

    Returns:
        Nats, shape (*batch,).

    Raises:
        ValueError: an error outside [0, 1], fewer than 2 classes, a ratio below 1, shapes that do not broadcast.

    Source: own derivation; the finite-size form of the lower bound of Chidambaram and Ge (ICLR 2024), arXiv 2306.00740.

    >>> temperature_lower_bound(0.2, 10, [1.0, 2.0]).round(decimals=4)
    tensor([0.9398, 0.5448], dtype=torch.float64)
    """
    like = shared_kind(error, n_classes, gap_ratio)
    wrong = read_number("error", error, like, 0.0, 1.0, "a probability from 0 to 1")
    k = read_count("n_classes", n_classes, like, 2)
    ratio = read_number("gap_ratio", gap_ratio, like, 1.0, float("inf"), "a ratio >= 1")
    broadcast_batch(error=wrong.shape, n_classes=k.shape, gap_ratio=ratio.shape)
    share = wrong / ratio
    return torch.where(share < (k - 1) / k, binary_entropy(share) + torch.xlogy(share, k - 1), k.log())

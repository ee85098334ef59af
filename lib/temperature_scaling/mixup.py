"""Mixing training points and their labels, two or more at a time."""

from __future__ import annotations

from torch import Tensor

from lib.checks import ArrayLike, as_float, indicator, read_size, read_whole, require, require_finite, require_shape
from lib.shapes import Float, Int, Real
from lib.temperature_scaling.setting import SUM_TOLERANCE, read_classes


def mixup_batch(
    inputs: Real[Tensor, "n ..."] | ArrayLike,
    labels: Int[Tensor, " n"] | ArrayLike,
    weights: Real[Tensor, "*#n m"] | ArrayLike,
    permutations: Int[Tensor, "m n"] | ArrayLike,
    n_classes: int,
) -> tuple[Float[Tensor, "n ..."], Float[Tensor, "n k"]]:
    r"""Convex combinations of m points, and of their one-hot labels with the same weights.

    $$ x'_i=\sum_{j=1}^mt_{ij}\,x_{\tau_j(i)},\qquad y'_i=\sum_{j=1}^mt_{ij}\,\mathbb 1_{y_{\tau_j(i)}} $$

    Two points give Mixup, one more than the dimension of x the d-Mixup of the paper. Draw the weights from a Dirichlet
    law, one row for every point or one for all (noisier).

    Args:
        inputs: points, shape (n, ...).
        labels: classes from 0 to k - 1, shape (n,).
        weights: $t$, >= 0 with sum 1, shape (m,) for all points or (n, m).
        permutations: row numbers $\tau_j(i)$, shape (m, n); often the first is the identity.
        n_classes: k.

    Returns:
        Mixed inputs of the shape of `inputs`, and soft targets of shape (n, k).

    Raises:
        ValueError: shapes that do not fit, inputs that are not finite, labels outside the classes, weights that are
            negative or do not sum to 1, row numbers outside the points.

    Source: Zhang, Cisse, Dauphin and Lopez-Paz (ICLR 2018), arXiv 1710.09412; more than two points as in Chidambaram
    and Ge (ICLR 2024), arXiv 2306.00740.

    >>> mixed, target = mixup_batch([[0.0], [10.0]], [0, 1], [0.75, 0.25], [[0, 1], [1, 0]], 2)
    >>> mixed.flatten(), target
    (tensor([2.5000, 7.5000], dtype=torch.float64), tensor([[0.7500, 0.2500],
            [0.2500, 0.7500]], dtype=torch.float64))
    """
    x = as_float("inputs", inputs)
    require_shape("inputs", x, x.ndim >= 1 and x.shape[0] >= 1, "(n, ...) with n >= 1")
    require_finite("inputs", x)
    n = x.shape[0]
    y = read_classes("labels", labels, read_size("n_classes", n_classes, 2), n, x)
    require_shape("labels", y, y.ndim == 1, f"({n},)")
    order = read_whole("permutations", permutations, x.device)
    require_shape("permutations", order, order.ndim == 2 and order.shape[1] == n and len(order) >= 1, f"(m, {n})")
    require("permutations", (order >= 0) & (order < n), f"row numbers from 0 to {n - 1}", order)
    share = as_float("weights", weights, like=x)
    m = order.shape[0]
    require_shape("weights", share, tuple(share.shape) in ((m,), (n, m)), f"({m},) or ({n}, {m})")
    require("weights", share >= 0, "numbers >= 0", share)
    total = share.sum(-1)
    require("weights", (total - 1).abs() <= SUM_TOLERANCE, "rows that sum to 1", total)
    share = share.expand(n, m).T  # (m, n)
    targets = (share.unsqueeze(-1) * indicator(y[order], n_classes, x)).sum(0)
    mixed = (share.reshape(m, n, *[1] * (x.ndim - 1)) * x[order]).sum(0)
    return mixed, targets

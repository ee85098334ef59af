"""Multinomial logistic regression with a ridge penalty, for a batch of data sets at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, read_size, require_nonnegative
from lib.h_consistency.newton import Problem, forms_hessian, minimise
from lib.h_consistency.samples import IN_MEMORY, collect, indicator, read_samples
from lib.shapes import Float, Int, Real

IN_CACHE = 1 << 22  # numbers in use at once on the CPU: 32 MiB


@dataclass(frozen=True)
class LogisticFit:
    """Weights (*batch, C, d), bias (*batch, C); objective in nats and norm of its gradient there, (*batch,)."""

    weights: Float[Tensor, "*batch C d"]
    bias: Float[Tensor, "*batch C"]
    objective: Float[Tensor, "*batch"]
    gradient_norm: Float[Tensor, "*batch"]


@torch.no_grad()
def fit_logistic(
    x: Real[Tensor, "*#batch n d"] | ArrayLike,
    y: Int[Tensor, "*#batch n"] | ArrayLike,
    num_classes: int,
    ridge: Real[Tensor, "*#batch"] | ArrayLike,
    sample_weight: Real[Tensor, "*#batch n"] | ArrayLike | None = None,
    num_steps: int = 60,
) -> LogisticFit:
    r"""Multinomial logistic regression: mean loss plus ridge penalty at its minimum.

    $$\frac{\sum_i\omega_i\big(\log\sum_ke^{o_{ik}}-o_{iy_i}\big)}{\sum_i\omega_i}+\frac{\text{ridge}}2\sum_{kj}
    \mathsf w_{kj}^2,\qquad o_{ik}=\mathsf w_k\cdot x_i+\mathsf b_k$$

    scikit-learn's `LogisticRegression(C=c)` has `ridge = 1 / (c n)`; for two classes it has one vector of weights
    instead of two opposite ones, which is twice its c here. Newton's method: the gradient at the answer is zero up to
    rounding unless ridge is zero and the classes can be separated, so that there is no minimum.

    Args:
        x: features, shape (*batch, n, d).
        y: classes from 0 to C - 1, each at least once in a data set, shape (*batch, n).
        num_classes: $C\ge2$.
        ridge: penalty, >= 0, shape (*batch,).
        sample_weight: $\omega_i\ge0$, shape (*batch, n); ones by default. With zeros and ones, data sets of different
            sizes share a batch.
        num_steps: Newton steps; on the CPU fewer if no more are needed.

    Returns:
        In the dtype of x, computed in double precision; no derivatives. Weights and biases of all classes sum to zero.
        `gradient_norm` (of both together) tells how far from the minimum they are.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, labels that are not whole numbers from 0 to
            C - 1, a class without a sample, a negative ridge or weight.

    Source: definition; the safeguard of a step is that of Bach (2010), self-concordant analysis of logistic regression.

    >>> fit = fit_logistic([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1], 2, ridge=0.1)
    >>> fit.weights.flatten().round(decimals=4), bool(fit.gradient_norm < 1e-12)
    (tensor([-0.3718,  0.3718], dtype=torch.float64), True)
    """
    samples = read_samples(x, y, num_classes, sample_weight)
    steps = read_size("num_steps", num_steps, 1)
    penalty = as_float("ridge", ridge, like=samples.x)
    require_nonnegative("ridge", penalty)
    batch = broadcast_batch(samples=samples.batch, ridge=penalty.shape)
    samples, penalty = replace(samples, batch=batch), penalty.expand(batch).reshape(-1).double()
    n, d = samples.x.shape[-2:]
    k, contrasts = min(n, d) + 1, num_classes - 1
    each = n * (2 * d + 6 * k + 12 * num_classes) + min(n, d) * d
    each += 3 * (contrasts * k) ** 2 if forms_hessian(contrasts, k, n) else 8 * contrasts * k
    most = IN_CACHE if samples.x.device.type == "cpu" else IN_MEMORY
    fits = (
        (where, _fit(rows.double(), indicator(labels, num_classes, penalty), weight.double(), penalty[where], steps))
        for where, rows, labels, weight in samples.chunks(each, most)
    )
    return LogisticFit(*(part.to(samples.x.dtype) for part in collect(batch, fits)))


def _fit(
    x: Float[Tensor, "B n d"], target: Float[Tensor, "B C n"], weight: Float[Tensor, "B n"], ridge: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights, bias, objective and norm of the gradient of a chunk of data sets."""
    ridge, weight = ridge.view(-1, 1, 1), (weight / weight.sum(-1, keepdim=True)).unsqueeze(-2)
    classes, (n, d) = target.shape[-2], x.shape[-2:]
    centre = weight @ x
    columns, turn = (x - centre).mT, None
    if d > n:  # the best weights are combinations of the rows
        turn, columns = torch.linalg.qr(columns)
    columns = torch.cat((columns, torch.ones_like(weight)), -2)
    moments = (columns * weight) @ columns.mT / classes
    diagonal = moments.diagonal(dim1=-2, dim2=-1)
    eps = torch.finfo(x.dtype).eps  # a penalty of rounding's size bounds the weights where nothing else does
    more = 8 * eps * diagonal.shape[-1] * diagonal + 99 * eps**2 * diagonal.sum(-1, keepdim=True)
    more = torch.cat((more[:, :-1] + ridge.squeeze(-1), more[:, -1:]), -1)
    factor = torch.linalg.cholesky_ex(moments + torch.diag_embed(more)).L
    design = torch.linalg.solve_triangular(factor, columns, upper=False)
    full = torch.eye(classes, dtype=x.dtype, device=x.device) - 1 / classes
    contrasts = torch.linalg.qr(full[:, 1:]).Q
    found = minimise(Problem(design, target, weight, contrasts), steps)
    found = contrasts @ torch.linalg.solve_triangular(factor, found, upper=False, left=False)
    weights, shift = found[..., :-1], found[..., -1:]
    weights = weights if turn is None else weights @ turn.mT
    bias = shift - weights @ centre.mT
    scores = weights @ x.mT + bias
    loss = scores.logsumexp(-2, keepdim=True) - (scores * target).sum(-2, keepdim=True)
    objective = (weight * loss).sum((-2, -1)) + (ridge * weights.square()).sum((-2, -1)) / 2
    misfit = weight * (scores.softmax(-2) - target)
    slope = misfit @ x + ridge * weights
    norm = (slope.square().sum((-2, -1)) + misfit.sum(-1).square().sum(-1)).sqrt()
    return weights, bias.squeeze(-1), objective, norm

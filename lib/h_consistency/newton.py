"""Newton's method for a batch of multinomial logistic regressions with a ridge penalty.

The scores are given in C - 1 contrasts of the classes, because a common shift of all C changes nothing, and in
coordinates in which the Hessian at zero weights is the identity, so that no scale of a feature matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lib.checks import is_known
from lib.shapes import Float

FIRST, FEW = 4, 8  # steps that need no accuracy, and conjugate gradients that each of them gets
MANY = 200  # conjugate gradients for all other steps where the Hessian is too large to be formed
LOOSENESS = 0.1  # conjugate gradients stop at this part of the gradient, earlier where the gradient is small
SINGLE_MISSES = 1e-2  # how far steps from a Hessian in single precision may miss the minimum along themselves
UNKNOWNS, PRODUCTS = 2048, 1600  # a Hessian is formed up to this size, and if that costs less than so many products


@dataclass(frozen=True)
class Problem:
    r"""Minimise $\sum_i\omega_i\ell(Vs_i,y_i)-\frac1{2C}\sum_i\omega_i|s_i|^2+\frac12|v|^2$ over $v$, where $s=vD$.

    With $D\,\mathrm{diag}(\omega)D^\top/C+\text{penalty}=I$ that is the penalised logistic loss.

    Attributes:
        design: $D$, a column a sample, shape (B, k, n).
        target: one where a sample is of the class, else zero, shape (B, C, n).
        weight: $\omega$, shape (B, 1, n).
        contrasts: $V$, orthonormal columns that sum to zero, shape (C, C - 1).
    """

    design: Float[Tensor, "B k n"]
    target: Float[Tensor, "B C n"]
    weight: Float[Tensor, "B 1 n"]
    contrasts: Float[Tensor, "C c"]

    def value(self, v: Tensor, s: Tensor) -> Tensor:
        """The objective at `v` with scores `s`, shape (B, 1, 1)."""
        o = self.contrasts @ s
        loss = o.logsumexp(-2, keepdim=True) - (o * self.target).sum(-2, keepdim=True)
        loss = loss - s.square().sum(-2, keepdim=True) / (2 * self.target.shape[-2])
        return (self.weight * loss).sum(-1, keepdim=True) + _inner(v, v) / 2

    def gradient(self, v: Tensor, s: Tensor, p: Tensor) -> Tensor:
        """With respect to `v`, at probabilities `p`; shape (B, c, k)."""
        misfit = self.contrasts.mT @ (p - self.target) - s / self.target.shape[-2]
        return (self.weight * misfit) @ self.design.mT + v

    def bend(self, move: Tensor, p: Tensor) -> Tensor:
        """The second derivative of each sample's loss applied to a change of scores; shape (B, c, n)."""
        u = self.contrasts @ move
        u = p * (u - (p * u).sum(-2, keepdim=True))
        return self.weight * (self.contrasts.mT @ u - move / self.target.shape[-2])

    @cached_property
    def rows(self) -> Tensor:
        """The design with a row a sample, shape (B, n, k)."""
        return self.design.mT.contiguous()

    @cached_property
    def single_rows(self) -> Tensor:
        """The same in single precision."""
        return self.rows.float()


def forms_hessian(contrasts: int, k: int, n: int) -> bool:
    """Whether a Hessian is small enough to be formed and factorised."""
    unknowns = contrasts * k
    return unknowns <= UNKNOWNS and k * (contrasts + 1) + unknowns**2 / (3 * n) < PRODUCTS


def minimise(problem: Problem, num_steps: int) -> Float[Tensor, "B c k"]:
    """The minimiser, by `num_steps` Newton steps; on the CPU by fewer if the next could not improve it.

    A step is taken in full or in the part log(1 + D r) / D, whichever is better: D is the largest change of a
    difference of two scores, r is minus slope over curvature. Along a line the third derivative is at most D times the
    second, so this part lowers the objective in every direction of descent: the first steps, and those with a Hessian
    in single precision (half the time on the CPU), may be inexact.
    """
    batch, k, n = problem.design.shape
    contrasts = problem.contrasts.shape[1]
    v, s = problem.design.new_zeros(batch, contrasts, k), problem.design.new_zeros(batch, contrasts, n)
    direct = forms_hessian(contrasts, k, n)
    single = direct and v.device.type == "cpu"
    tiny, goal = torch.finfo(v.dtype).tiny, torch.finfo(v.dtype).eps ** 0.55
    before = torch.full_like(v.narrow(-1, 0, 1).narrow(-2, 0, 1), torch.inf)
    for number in range(num_steps):
        p = (problem.contrasts @ s).softmax(-2)
        gradient = problem.gradient(v, s, p)
        early = number < FIRST
        if direct and not early:
            step = _by_factors(problem, p, gradient, single)
        else:
            step = _by_conjugate_gradients(problem, p, gradient, FEW if early else MANY)
        move = step @ problem.design
        fall = -_inner(gradient, step)
        ratio = fall / (_inner(step, step) + _inner(move, problem.bend(move, p))).clamp_min(tiny)
        if single and not early and not is_known((ratio - 1).abs() <= SINGLE_MISSES):
            single = False
            continue
        change = problem.contrasts @ move
        reach = (change.amax(-2, keepdim=True) - change.amin(-2, keepdim=True)).amax(-1, keepdim=True)
        part = torch.where(reach > 1e-6, torch.log1p(reach * ratio) / reach.clamp_min(tiny), ratio)
        full = problem.value(v + step, s + move) <= problem.value(v + part * step, s + part * move)
        part = torch.where(full, 1.0, part)
        v, s = v + part * step, s + part * move
        size = fall.clamp_min(0).sqrt()
        if not early and is_known(size * (size / before.clamp_min(tiny)).clamp_max(1) <= goal):
            break  # sizes fall at least by the same factor again
        before = size
    return v


def _by_factors(problem: Problem, p: Tensor, gradient: Tensor, single: bool) -> Tensor:
    """The Newton step, from Cholesky factors of the Hessian."""
    batch, contrasts, k = gradient.shape
    rows = problem.single_rows if single else problem.rows
    V = problem.contrasts
    q = V.mT @ p
    hessian = p.new_zeros(batch, contrasts, k, contrasts, k, dtype=rows.dtype)  # of `p`, also inside torch.func.vmap
    for a in range(contrasts):
        for b in range(a + 1):  # Cholesky reads the lower triangle
            bend = (V[:, a] * V[:, b]) @ p - q[:, a] * q[:, b] - (1 / V.shape[0] if a == b else 0.0)
            bend = (problem.weight.squeeze(-2) * bend).to(rows.dtype)
            hessian[:, a, :, b] = (rows * bend.unsqueeze(-1)).mT @ rows
    square = hessian.view(batch, contrasts * k, contrasts * k)
    square.diagonal(dim1=-2, dim2=-1).add_(1 + 4 * torch.finfo(rows.dtype).eps * contrasts)
    factor = torch.linalg.cholesky_ex(square).L
    half = torch.linalg.solve_triangular(factor, -gradient.to(rows.dtype).reshape(batch, contrasts * k, 1), upper=False)
    step: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True)
    return step.to(gradient.dtype).view_as(gradient)


def _by_conjugate_gradients(problem: Problem, p: Tensor, gradient: Tensor, most: int) -> Tensor:
    """The Newton step up to a part of the gradient that falls with the gradient, in at most so many products."""
    step, rest, way = torch.zeros_like(gradient), -gradient, -gradient
    tiny = torch.finfo(p.dtype).tiny
    left = _inner(rest, rest)
    goal = left * left.clamp_max(LOOSENESS**2)
    for _ in range(most):
        turned = problem.bend(way @ problem.design, p) @ problem.design.mT + way
        rate = torch.where(left > goal, left / _inner(way, turned).clamp_min(tiny), 0.0)
        step, rest = step + rate * way, rest - rate * turned
        now = _inner(rest, rest)
        if is_known(now <= goal):
            break
        way, left = rest + now / left.clamp_min(tiny) * way, now
    return step


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1), keepdim=True)

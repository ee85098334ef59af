"""The solver's objective, gradient and curvature against automatic differentiation."""

from __future__ import annotations

import torch

from lib.h_consistency.newton import Problem, minimise


def problem() -> Problem:
    generator = torch.Generator().manual_seed(0)
    full = torch.eye(3, dtype=torch.float64) - 1 / 3
    rows = torch.randn(2, 4, 9, generator=generator, dtype=torch.float64)
    target = torch.nn.functional.one_hot(torch.arange(9) % 3, 3).double().mT.expand(2, 3, 9)
    weight = torch.rand(2, 1, 9, generator=generator, dtype=torch.float64)
    weight = weight / weight.sum(-1, keepdim=True)
    design = torch.linalg.solve_triangular(
        torch.linalg.cholesky((rows * weight) @ rows.mT / 3 + 0.1 * torch.eye(4)), rows, upper=False
    )
    return Problem(design, target, weight, torch.linalg.qr(full[:, 1:]).Q)


def test_gradient_and_curvature_are_derivatives_of_the_value() -> None:
    p, v = problem(), torch.randn(2, 2, 4, dtype=torch.float64)

    def value(x: torch.Tensor) -> torch.Tensor:
        return p.value(x, x @ p.design).sum()

    def gradient(x: torch.Tensor) -> torch.Tensor:
        return p.gradient(x, x @ p.design, (p.contrasts @ (x @ p.design)).softmax(-2))

    torch.testing.assert_close(gradient(v), torch.func.grad(value)(v))
    way = torch.randn(2, 2, 4, dtype=torch.float64)
    turned = torch.func.grad(lambda x: (gradient(x) * way).sum())(v)
    probs = (p.contrasts @ (v @ p.design)).softmax(-2)
    torch.testing.assert_close(p.bend(way @ p.design, probs) @ p.design.mT + way, turned)


def test_more_steps_never_raise_the_value_and_end_at_the_minimum() -> None:
    p = problem()
    found = [minimise(p, steps) for steps in (1, 2, 3, 5, 60)]
    values = torch.stack([p.value(v, v @ p.design).flatten() for v in found])
    assert (values.diff(dim=0) <= 1e-14).all()
    last = found[-1] @ p.design
    assert p.gradient(found[-1], last, (p.contrasts @ last).softmax(-2)).abs().max() < 1e-12

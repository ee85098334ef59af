"""The objectives in symbols and in tensors agree, and a sign would show."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
import torch

from lib.gradient_entanglement import OBJECTIVES, margin_objective, objective_formulas
from lib.gradient_entanglement import formulas as f

SYMBOLS = (
    f.U, f.V, f.REF_W, f.REF_L, f.LEN_W, f.LEN_L, f.BETA, f.GAMMA, f.LAM, f.ALPHA, f.DELTA, f.Z_REF, f.LAM_W, f.LAM_L,
)  # fmt: skip
NAMES = ("ref_w", "ref_l", "len_w", "len_l", "beta", "gamma", "lam", "alpha", "delta", "z_ref", "lam_w", "lam_l")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_symbols_and_tensors_agree(name: str) -> None:
    rng = np.random.default_rng(1)
    values = [-rng.uniform(1, 9, 40) for _ in range(4)] + [rng.integers(1, 9, 40).astype(float) for _ in range(2)]
    values += [0.4, 0.3, 0.8, 0.02, 0.6, 0.1, 1.4, 0.7]
    formula = objective_formulas()[name]
    got = margin_objective(name, *values[:2], **dict(zip(NAMES, values[2:], strict=True)))
    for part, expression in (("loss", formula.loss), ("d_w", formula.d_w), ("d_l", formula.d_l)):
        want = sp.lambdify(SYMBOLS, expression, ["numpy", {"Heaviside": lambda x: np.heaviside(x, 0.5)}])(*values)
        np.testing.assert_allclose(getattr(got, part), np.broadcast_to(want, 40), rtol=1e-11, atol=1e-12)


def test_every_objective_has_a_formula_and_a_title() -> None:
    found = objective_formulas()
    assert tuple(found) == OBJECTIVES
    assert all(formula.title for formula in found.values())
    assert torch.tensor([formula.extra == 0 for formula in found.values()]).sum() == 7

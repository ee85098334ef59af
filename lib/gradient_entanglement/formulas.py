"""The objectives as symbols: the four parts of the general form, from which sympy derives loss and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy as sp

U, V, MARGIN = sp.symbols("ell_w ell_l t", real=True)
REF_W, REF_L = sp.symbols(r"\ell_w^{\rm{ref}} \ell_l^{\rm{ref}}", real=True)
LEN_W, LEN_L, BETA = sp.symbols(r"\lvert{w}\rvert \lvert{l}\rvert \beta_{\rm{p}}", positive=True)
LAM, LAM_W, LAM_L = sp.symbols(r"\zeta_{\rm{p}} zeta_w zeta_l", nonnegative=True)
ALPHA, GAMMA, DELTA, Z_REF = sp.symbols(r"\alpha_{\rm{p}} \gamma_{\rm{p}} \delta_{\rm{p}} z_{\rm{ref}}", real=True)


@dataclass(frozen=True)
class ObjectiveFormula:
    r"""An objective $-\big(m(h_w(\ell_w)-h_l(\ell_l))+\Lambda(\ell_w)\big)$ in symbols.

    `m` is an expression in `MARGIN`, `h_w` and `extra` ($\Lambda$) in `U`, `h_l` in `V`; `title` is the usual name.
    """

    title: str
    m: Any
    h_w: Any
    h_l: Any
    extra: Any

    @property
    def loss(self) -> Any:
        """The loss of one pair."""
        return -(self.m.subs(MARGIN, self.h_w - self.h_l) + self.extra)

    @property
    def d_w(self) -> Any:
        """Minus the derivative of the loss in the chosen log-probability."""
        return -sp.diff(self.loss, U)

    @property
    def d_l(self) -> Any:
        """The derivative of the loss in the rejected log-probability."""
        return sp.diff(self.loss, V)


def objective_formulas() -> dict[str, ObjectiveFormula]:
    r"""The general form of every objective of `OBJECTIVES`, in the same order.

    Constants of the margin stand in $h_w$. Written apart from the tensor code, so that each can check the other.

    Args:
        None.

    Returns:
        The parts of each objective as sympy expressions, by its name.

    Source: Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828, for the form.

    >>> formula = objective_formulas()["slic"]
    >>> sp.simplify((formula.d_w - formula.d_l) - LAM)
    0
    """
    log_sigmoid, hinge = -sp.log(1 + sp.exp(-MARGIN)), -sp.Max(0, -MARGIN)
    a, b, half = U - REF_W, V - REF_L, 1 / (2 * BETA)

    def logistic(x: Any) -> Any:
        return 1 / (1 + sp.exp(-x))

    def log_odds(x: Any) -> Any:
        return x - sp.log(1 - sp.exp(x))

    return {
        "dpo": ObjectiveFormula("DPO", log_sigmoid, BETA * a, BETA * b, sp.S.Zero),
        "rdpo": ObjectiveFormula("R-DPO", log_sigmoid, BETA * a + ALPHA * (LEN_W - LEN_L), BETA * b, sp.S.Zero),
        "simpo": ObjectiveFormula("SimPO", log_sigmoid, BETA * U / LEN_W - GAMMA, BETA * V / LEN_L, sp.S.Zero),
        "ipo": ObjectiveFormula("IPO", -(MARGIN**2), a - half, b, sp.S.Zero),
        "rrhf": ObjectiveFormula("RRHF", hinge, U / LEN_W, V / LEN_L, LAM * U),
        "slic": ObjectiveFormula("SLiC-HF", hinge, U - DELTA, V, LAM * U),
        "cpo": ObjectiveFormula("CPO", log_sigmoid, BETA * U, BETA * V, LAM * U),
        "orpo": ObjectiveFormula("ORPO", LAM * log_sigmoid, log_odds(U / LEN_W), log_odds(V / LEN_L), U / LEN_W),
        "dpop": ObjectiveFormula("DPOP", log_sigmoid, BETA * (a - LAM * sp.Max(0, -a)), BETA * b, sp.S.Zero),
        "kto": ObjectiveFormula(
            "KTO",
            MARGIN - LAM_W - LAM_L,
            LAM_W * logistic(BETA * (a - Z_REF)),
            -LAM_L * logistic(BETA * (Z_REF - b)),
            sp.S.Zero,
        ),
        "sppo": ObjectiveFormula("SPPO", MARGIN, -((a - half) ** 2), (b + half) ** 2, sp.S.Zero),
    }

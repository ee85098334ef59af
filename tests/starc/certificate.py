"""What makes a worst-case regret beyond doubt: occupancies that attain it, and bounds that meet."""

from __future__ import annotations

import numpy as np
import pytest

from lib.starc import WorstCaseRegret, worst_case_regret

from . import oracle


def regret_of(case: oracle.Case, **options: int) -> WorstCaseRegret:
    return worst_case_regret(case.R1, case.R2, case.P, case.gamma, case.initial, **options)


def assert_certified(got: WorstCaseRegret, case: oracle.Case) -> None:
    """The occupancies obey flow and constraint and lose what is stated, the bounds meet, the numbers are in range."""
    scale = 1 / (1 - case.gamma)
    flow = oracle.flow_matrix(case.P, case.gamma).T
    means = [oracle.mean_reward(R, case.P) for R in (case.R1, case.R2)]
    x, y = got.occupancy_1.numpy(), got.occupancy_2.numpy()
    for went in (x, y):
        assert went.min() >= -1e-12 * scale
        np.testing.assert_allclose(flow @ went.ravel(), case.initial, rtol=0, atol=1e-12 * scale)
    sizes = [np.abs(mean).max() * scale for mean in means]
    assert ((x - y) * means[1]).sum() <= 1e-11 * sizes[1]
    assert got.regret.item() == pytest.approx(((x - y) * means[0]).sum(), rel=1e-9, abs=1e-11 * sizes[0])
    assert -1e-11 * scale <= got.gap.item() <= 1e-9 * scale
    assert 0 <= got.residual.item() <= 1e-10 * scale
    assert 0 <= got.normalised.item() <= 1
    assert got.multiplier.item() >= 0

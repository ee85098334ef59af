"""Supporting lines of the range along a ray: where they meet, and that the search ends at the minimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.starc.problems import Problems
from lib.starc.regret_search import Lines, crossing, meeting_point, search

from . import oracle


def test_two_lines_meet_where_they_cross() -> None:
    # of R_1 and R_2: the first pair has height 5 and falls by 2, the second has height 1 and rises by 6
    returns = torch.tensor([[[5.0, 3.0], [0.0, 1.0], [2.0, -4.0], [1.0, 2.0]]])
    multiplier, share = meeting_point(returns)
    assert multiplier.tolist() == [0.5]  # 5 - 2 x = 1 + 6 x
    assert share.tolist() == [0.75]  # 0.75 * 2 - 0.25 * 6 = 0: the mixture satisfies the constraint


def test_a_first_line_that_does_not_fall_is_best_at_zero() -> None:
    for fall in (0.0, -2.0):
        returns = torch.tensor([[[5.0, fall], [0.0, 0.0], [2.0, -4.0], [1.0, 2.0]]])
        multiplier, share = meeting_point(returns)
        assert (multiplier.tolist(), share.tolist()) == ([0.0], [1.0])


def test_lines_that_would_meet_at_a_negative_multiplier_meet_at_zero() -> None:
    returns = torch.tensor([[[1.0, 3.0], [0.0, 1.0], [6.0, -4.0], [1.0, 2.0]]])
    assert meeting_point(returns)[0].tolist() == [0.0]


def start_of(case: oracle.Case) -> tuple[Problems, torch.Tensor, Lines]:
    """The search as it begins: best and worst policies of the first reward, worst and best of the second."""
    policies = oracle.deterministic_policies(*case.P.shape[:2])
    chosen = []
    for R, ends in ((case.R1, (np.argmax, np.argmin)), (case.R2, (np.argmin, np.argmax))):
        returns = oracle.all_returns(R, case.P, case.gamma, case.initial)
        chosen += [policies[end(returns)].argmax(-1) for end in ends]
    rewards = torch.tensor(np.stack([oracle.mean_reward(R, case.P) for R in (case.R1, case.R2)]))
    problems = Problems.stack(
        torch.tensor(case.P), torch.tensor(case.gamma, dtype=torch.float64), rewards[None], torch.Size([1])
    )
    actions = torch.tensor(np.stack(chosen))[None]
    return problems, torch.tensor(case.initial)[None], Lines(actions, problems.evaluate(actions))


@pytest.mark.parametrize("seed", range(8))
def test_the_crossing_rises_to_the_least_range_along_the_ray(seed: int) -> None:
    case = oracle.case(seed, 4, 3)
    problems, start, lines = start_of(case)

    def width(factor: float) -> float:
        return oracle.width(case.R1 - factor * case.R2, case.P, case.gamma, case.initial)

    heights = []
    for steps in (0, 1, 2, 4, 32):
        here = crossing(problems, start, search(problems, start, lines, steps))
        heights.append(here.height.item())
        least = min(width(x) for x in (0.0, here.multiplier.item(), *np.linspace(0, 3, 7)))
        assert here.height.item() <= least + 1e-10
    assert heights == sorted(heights) or np.diff(heights).min() > -1e-11
    assert heights[-1] == pytest.approx(width(here.multiplier.item()), rel=1e-10)
    assert (here.q_value.amax(-1) - here.values).abs().max() < 1e-11

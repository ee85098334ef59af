"""Best and worst policies of many decision processes at once, by policy iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.starc.problems import Problems, improvable, improve, still_open

ITERATIONS = 96  # by default; few processes need more than ten
EASY_STEPS, SWEEPS = 8, 8  # who is not done after so many steps looks so many further steps ahead


@dataclass(frozen=True)
class Extremes:
    """Per reward a best and a worst policy (2 F of them), their values under all F rewards, what is left to gain."""

    actions: Tensor  # (N, 2 F, S)
    values: Tensor  # (N, 2 F, F, S)
    residual: Tensor  # (N, F)


def extremes(problems: Problems, iterations: int) -> Extremes:
    """Howard's policy iteration from the greedy policies, for every reward and its negative.

    An improved policy is greedy for the present values; late in the search for values that were improved by `SWEEPS`
    steps of value iteration, because in a corridor the former sees one state further a step. Problems that are solved
    are dropped where reading that costs no synchronisation; elsewhere all steps are made.
    """
    actions = signed_rewards(problems).max(-1).indices
    found = [actions, problems.evaluate(actions)]
    rows, part, now = None, problems, found
    for step in range(iterations):
        rewards, values = signed_rewards(part), own_values(now[1])
        q_value = rewards + part.ahead(values)
        left = still_open(~improvable(q_value, values))
        for _ in range(SWEEPS if step >= EASY_STEPS else 0):
            q_value = rewards + part.ahead(q_value.amax(-1))
        improved = improve(q_value, now[0])
        if left is not None:
            found = now if rows is None else [x.index_copy(0, rows, y) for x, y in zip(found, now, strict=True)]
            if left.numel() == 0:
                break
            rows = left if rows is None else rows[left]
            part, now, improved = part.some(left), [x[left] for x in now], improved[left]
        now = [improved, part.evaluate(improved)]
    else:
        found = now if rows is None else [x.index_copy(0, rows, y) for x, y in zip(found, now, strict=True)]
    values = own_values(found[1])
    gain = (signed_rewards(problems) + problems.ahead(values)).amax(-1) - values
    return Extremes(found[0], found[1], gain.abs().amax(-1).unflatten(-1, (-1, 2)).amax(-1))


def signed_rewards(problems: Problems) -> Tensor:
    """Every reward and its negative, `(N, 2 F, S, A)`: a worst policy is best for the negative."""
    return torch.stack((problems.rewards, -problems.rewards), 2).flatten(1, 2)


def own_values(values: Tensor) -> Tensor:
    """Of values `(N, 2 F, F, S)` those of each policy under the signed reward it is meant for, `(N, 2 F, S)`."""
    own = values.unflatten(1, (-1, 2)).diagonal(dim1=1, dim2=3).movedim(-1, 1)  # (N, F, 2, S)
    return torch.stack((own[:, :, 0], -own[:, :, 1]), 2).flatten(1, 2)

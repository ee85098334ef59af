"""Decision processes that others wrote: the transition tables of Gymnasium's toy-text environments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lib.shapes import Float, Int

END = -1  # the number of the state that follows the end of an episode


@dataclass(frozen=True)
class TabularProcess:
    """Transition probabilities `P`, reward `R`, distribution `initial` of the first state, number of each state."""

    P: Float[torch.Tensor, "S A S"]
    R: Float[torch.Tensor, "S A S"]
    initial: Float[torch.Tensor, " S"]
    states: Int[torch.Tensor, " S"]


def gymnasium_process(name: str, *, reachable_only: bool = True, **options: Any) -> TabularProcess:
    """A tabular environment of Gymnasium as a decision process without end.

    Whatever ends an episode leads to one more state, the last, that nothing leaves and where every reward is 0. Where
    one transition is listed with several rewards R is their mean, which leaves every return as it is.

    Args:
        name: of an environment with a transition table, such as "FrozenLake-v1", "CliffWalking-v1" or "Taxi-v4".
        reachable_only: leave out states that no policy reaches from the first ones.
        options: for the environment, such as `is_slippery=False`.

    Returns:
        `P` and `R` (S, A, S), `initial` (S,), and `states` (S,), the environment's number of each state, -1 for the
        end; all float64 but the last.

    Raises:
        ValueError: an environment without a table of states and actions.
        ImportError: gymnasium is not installed.

    Source: Towers et al. (2024), Gymnasium: a standard interface for reinforcement learning environments.

    >>> lake = gymnasium_process("FrozenLake-v1")
    >>> lake.P.shape, int(lake.initial.argmax()), int(lake.states[-1])
    (torch.Size([12, 4, 12]), 0, -1)
    """
    try:
        import gymnasium
    except ImportError as error:
        raise ImportError(
            'gymnasium_process: gymnasium is not installed; get it with pip install "executable-theory[data]"'
        ) from error
    environment = gymnasium.make(name, **options).unwrapped
    table, first = getattr(environment, "P", None), getattr(environment, "initial_state_distrib", None)
    if table is None or first is None:
        raise ValueError(f"name: got {name!r}, want an environment with a transition table and first states")
    states, actions = len(table), len(table[0])
    P, earned = np.zeros((states + 1, actions, states + 1)), np.zeros((states + 1, actions, states + 1))
    for state, by_action in table.items():
        for action, outcomes in by_action.items():
            for chance, following, reward, ends in outcomes:
                target = states if ends else int(following)
                P[state, action, target] += chance
                earned[state, action, target] += chance * reward
    P[states, :, states] = 1
    R = np.divide(earned, P, out=np.zeros_like(earned), where=P > 0)
    initial = np.append(np.asarray(first, dtype=np.float64), 0.0)
    kept = _reachable(P, initial) if reachable_only else np.arange(states + 1)
    P, R = (x[kept][..., kept] for x in (P, R))
    numbers = np.where(kept == states, END, kept)
    return TabularProcess(*(torch.from_numpy(x) for x in (P, R, initial[kept] / initial.sum(), numbers)))


def _reachable(P: np.ndarray, initial: np.ndarray) -> np.ndarray:
    step = np.asarray((P > 0).any(1))
    seen = initial > 0
    while (wider := seen | step[seen].any(0)).sum() > seen.sum():
        seen = wider
    return np.flatnonzero(seen)

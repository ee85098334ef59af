"""A corridor in which policy iteration, left to itself, sees one state further a step; solved by hand."""

from __future__ import annotations

import numpy as np


def corridor(states: int, cost: float, actions: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Reward and dynamics: action 1 advances at a cost, and pays 1 in the last state; the others stay for nothing.

    The more others there are, the less of the far end is seen by a policy that acts at random.
    """
    P, R = np.zeros((states, actions, states)), np.zeros((states, actions, states))
    for s in range(states):
        P[s, :, s] = 1
        P[s, 1] = np.eye(states)[min(s + 1, states - 1)]
        R[s, 1] = -cost
    R[-1, 1] = 1
    return R, P


def extreme_values(states: int, cost: float, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Highest value of each state (advance, if that pays at all) and lowest (advance, then stay in the last state)."""
    reach = gamma ** np.arange(states - 1, -1, -1.0)
    paid = cost * (1 - reach) / (1 - gamma)
    return np.maximum(reach / (1 - gamma) - paid, 0.0), -paid


def two_ends(states: int, right: float, left: float) -> tuple[np.ndarray, np.ndarray]:
    """Reward and dynamics: action 1 goes right, action 2 left, 0 stays; pressing on at an end pays what is given."""
    P, R = np.zeros((states, 3, states)), np.zeros((states, 3, states))
    for s in range(states):
        P[s, 0, s] = P[s, 1, min(s + 1, states - 1)] = P[s, 2, max(s - 1, 0)] = 1
    R[-1, 1], R[0, 2] = right, left
    return R, P

"""The arithmetic behind the claims: pure functions from numbers to a finding, which never raise on a failed comparison.

A finding says whether the comparison passed, why not, and the numbers at the worst point. `margin` is at least zero
where it passed: the unused share of the tolerance, of the bound, or of the range of ordered values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Numbers = Any  # a number, an array, a tensor, or a sequence of numbers
Array = NDArray[np.float64] | np.float64  # arithmetic on an array without axes returns the latter


@dataclass(frozen=True)
class Finding:
    """What a comparison found, at its worst point."""

    passed: bool
    reason: str = ""
    predicted: float | str | None = None
    measured: float | str | None = None
    error: float | None = None
    tolerance: float | None = None
    margin: float | None = None
    points: int = 0
    bad: int = 0


def as_array(name: str, values: Numbers) -> Array:
    """`values` as a float64 array on the host.

    Raises:
        ValueError: they are not real numbers.
    """
    try:
        if isinstance(values, torch.Tensor):
            return np.asarray(values.detach().cpu().double().numpy())
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: got {type(values).__name__}, want real numbers") from error


def broadcast(**arrays: Array) -> list[Array]:
    """The named arrays at their common shape.

    Raises:
        ValueError: they do not broadcast; names every shape.
    """
    try:
        return [np.asarray(a) for a in np.broadcast_arrays(*arrays.values())]
    except ValueError as error:
        listed = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        raise ValueError(f"{listed}: got shapes that do not broadcast, want one common shape") from error


def _unusable(*arrays: Array) -> Finding | None:
    if arrays[0].size == 0:
        return Finding(passed=False, reason="nothing was compared: the array is empty")
    bad = sum(int((~np.isfinite(a)).sum()) for a in arrays)
    if bad:
        return Finding(passed=False, reason=f"{bad} numbers are not finite", points=arrays[0].size, bad=bad)
    return None


def agreement(theory: Array, found: Array, tolerance: Array) -> Finding:
    """Do prediction and measurement agree within the tolerance at every point?"""
    theory, found, tolerance = np.ravel(theory), np.ravel(found), np.ravel(tolerance)
    broken = _unusable(theory, found, tolerance)
    if broken:
        return broken
    error = np.abs(found - theory)
    used = np.divide(error, tolerance, out=np.where(error > 0, np.inf, 0.0), where=tolerance > 0)
    at, bad = int(np.argmax(used)), int((used > 1).sum())
    return Finding(
        passed=bad == 0,
        reason="" if bad == 0 else f"off at {bad} of {error.size} points",
        predicted=float(theory[at]),
        measured=float(found[at]),
        error=float(error[at]),
        tolerance=float(tolerance[at]),
        margin=float(max(1 - used[at], -1e9)),
        points=int(error.size),
        bad=bad,
    )


def one_sided(edge: Array, found: Array, *, side: int, allowance: Array) -> Finding:
    """Does `found` stay below the edge (`side` = 1) or above it (-1), up to the allowance?"""
    edge, found, allowance = np.ravel(edge), np.ravel(found), np.ravel(allowance)
    broken = _unusable(edge, found, allowance)
    if broken:
        return broken
    gap = side * (edge - found)
    slack = (gap + allowance) / np.where(edge == 0, 1.0, np.abs(edge))
    at, bad = int(np.argmin(slack)), int((slack < 0).sum())
    return Finding(
        passed=bad == 0,
        reason="" if bad == 0 else f"violated at {bad} of {edge.size} points",
        predicted=float(edge[at]),
        measured=float(found[at]),
        error=float(gap[at]),
        margin=float(slack[at]),
        points=int(edge.size),
        bad=bad,
    )


def order(values: Array, *, sign: int, axes: Sequence[int], step: float) -> Finding:
    """Does every step along each axis go up (`sign` = 1) or down (-1) by more than `step`?"""
    steps = np.concatenate([sign * np.diff(values, axis=axis).ravel() for axis in axes])
    broken = _unusable(steps)
    if broken:
        return broken
    smallest, bad = float(steps.min()), int((steps <= step).sum())
    return Finding(
        passed=bad == 0,
        reason="" if bad == 0 else f"{bad} of {steps.size} steps go the other way",
        measured=sign * smallest,
        margin=(smallest - step) / (float(np.ptp(values)) or 1.0) if bad == 0 else min(smallest - step, -1e-300),
        points=int(steps.size),
        bad=bad,
    )


def symbolic(left: Any, right: Any) -> Finding:
    """Are two sympy expressions, or two equally long sequences of them, identical after simplification?

    Raises:
        ValueError: the sequences differ in length.
    """
    import sympy

    lefts, rights = ([*side] if isinstance(side, (list, tuple)) else [side] for side in (left, right))
    if len(lefts) != len(rights):
        raise ValueError(f"right: got {len(rights)} expressions, want {len(lefts)} as on the left")
    if not lefts:
        return Finding(passed=False, reason="nothing was compared: no expression")
    rests = [sympy.simplify(sympy.sympify(a) - sympy.sympify(b)) for a, b in zip(lefts, rights, strict=True)]
    bad = sum(rest != 0 for rest in rests)
    if bad == 0:
        return Finding(passed=True, margin=0.0, points=len(rests))
    return Finding(passed=False, reason=f"{bad} of {len(rests)} differ", margin=-1.0, points=len(rests), bad=bad)

"""The claims ledger: a sentence of the book that a computation can refute.

Four kinds: `claim` (a predicted value meets a measured one), `bound` (never violated), `ordering` (rises or falls) and
`identity` (two expressions are the same). Each shows one row in the page, stores the same as machine-readable metadata
of the cell's output, and raises `ClaimError` if the statement does not hold, or if a *rival* (a neighbouring wrong
theory) passes on the same data at the same tolerance: a check that cannot fail is no check.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .claim_comparison import Finding, Numbers, agreement, as_array, broadcast, one_sided, order, symbolic
from .claim_display import number
from .claim_records import ClaimError, begin, collect, records, write_down

__all__ = ["ClaimError", "begin", "bound", "claim", "collect", "identity", "ordering", "records"]


def claim(
    id: str,
    statement: str,
    *,
    predicted: Numbers,
    measured: Numbers,
    stderr: Numbers | None = None,
    sigmas: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    rival: Mapping[str, Numbers] | None = None,
) -> None:
    r"""Claim that theory and measurement agree at every point.

    At each point the error $|\text{measured} - \text{predicted}|$ must not exceed
    $\text{atol} + \text{rtol}\,|\text{predicted}| + \text{sigmas}\cdot\text{stderr}$; terms that are not given are
    zero, at least one must be given.

    Args:
        id: unique in the book, the label of the theorem it belongs to: lower-case letters, digits and hyphens.
        statement: one sentence that can be false.
        predicted: what the theory says, a number or an array.
        measured: what was found without the theory, broadcastable against `predicted`.
        stderr: standard error of `measured`, in the same unit.
        sigmas: how many standard errors are allowed.
        rtol: relative tolerance, of the prediction.
        atol: absolute tolerance, in the unit of the values.
        rival: name and prediction of each wrong theory that the same data must reject at the same tolerance.

    Raises:
        ClaimError: the claim fails, a number is not finite, an array is empty, a rival is not rejected, or the id is
            taken.
        ValueError: no tolerance, a negative one, shapes that do not broadcast, or an id of another form.

    >>> claim("sum-of-angles", "Angles of a triangle add up to pi", predicted=3.1416, measured=3.1415, rtol=1e-3,
    ...       rival={"a spherical octant": 4.712})
    ✓ sum-of-angles: Angles of a triangle add up to pi | predicted 3.142; measured 3.142; off by 0.0001;
    tolerance 0.003142 (0.1 %); rival rejected a spherical octant: 4.712, off by 1.57
    """
    if (sigmas is None) != (stderr is None):
        raise ValueError("stderr and sigmas: got one of them, want both or none")
    if sigmas is None and rtol is None and atol is None:
        raise ValueError("tolerance: got none, want rtol, atol, or sigmas with stderr")
    _require_allowances(sigmas=sigmas, rtol=rtol, atol=atol)
    data, spread = as_array("measured", measured), as_array("stderr", 0.0 if stderr is None else stderr)
    if (spread < 0).any():
        raise ValueError(f"stderr: got {spread.min():g}, want numbers >= 0")

    def confront(name: str, prediction: Numbers) -> Finding:
        theory, found, error_bar = broadcast(**{name: as_array(name, prediction), "measured": data, "stderr": spread})
        return agreement(theory, found, (atol or 0.0) + (rtol or 0.0) * np.abs(theory) + (sigmas or 0.0) * error_bar)

    def describe(finding: Finding) -> str:
        return f"{number(finding.predicted)}, off by {number(finding.error)}"

    standard_errors = f"{sigmas:g} s.e." if sigmas else ""
    criterion = _join(standard_errors, _percent(rtol), f"{atol:g}" if atol else "") or "exact"
    found = confront("predicted", predicted)
    write_down(id, "value", statement, found, criterion, _rivals(rival, confront, describe))


def bound(
    id: str,
    statement: str,
    *,
    value: Numbers,
    upper: Numbers | None = None,
    lower: Numbers | None = None,
    rtol: float = 0.0,
    atol: float = 0.0,
    rival: Mapping[str, Numbers] | None = None,
) -> None:
    """Claim that a bound is never violated; the row shows the tightest point.

    Args:
        id: unique in the book.
        statement: one sentence that can be false.
        value: what was measured, a number or an array.
        upper: the upper bound, broadcastable against `value`; or
        lower: the lower bound. Exactly one of them.
        rtol: allowance for rounding, relative to the bound.
        atol: allowance in the unit of the values.
        rival: name and value of each wrong bound (on the same side) that the same data must violate somewhere.

    Raises:
        ClaimError: a point violates the bound, a number is not finite, an array is empty, a rival bound is never
            violated, or the id is taken.
        ValueError: not exactly one bound, a negative allowance, shapes that do not broadcast, or an id of another form.

    >>> bound("two-means", "The geometric mean is at most the arithmetic one", value=[2.0, 3.0], upper=[2.5, 3.0],
    ...       rival={"a tenth lower": [2.25, 2.7]})
    ✓ two-means: The geometric mean is at most the arithmetic one | bound 3; value 3; tightest gap 0;
    criterion value <= bound; worst of 2 points; rival rejected a tenth lower: violated at 1 of 2 points
    """
    if (upper is None) == (lower is None):
        raise ValueError("upper and lower: got both or none, want exactly one of them")
    _require_allowances(rtol=rtol, atol=atol)
    side, name, edge = (1, "upper", upper) if lower is None else (-1, "lower", lower)
    data = as_array("value", value)

    def confront(name: str, limit: Numbers) -> Finding:
        edge, found = broadcast(**{name: as_array(name, limit), "value": data})
        return one_sided(edge, found, side=side, allowance=atol + rtol * np.abs(edge))

    def describe(finding: Finding) -> str:
        return f"violated at {finding.bad} of {finding.points} points"

    allowance = _join(_percent(rtol), f"{atol:g}" if atol else "")
    relation, shift = ("<=", " + ") if side > 0 else (">=", " - ")
    criterion = shift.join(part for part in (f"value {relation} bound", allowance.replace(" + ", shift)) if part)
    write_down(id, "bound", statement, confront(name, edge), criterion, _rivals(rival, confront, describe))


def ordering(
    id: str,
    statement: str,
    *,
    values: Numbers,
    direction: str,
    axis: int | tuple[int, ...] = -1,
    step: float = 0.0,
    rival: Mapping[str, Numbers] | None = None,
) -> None:
    """Claim that values strictly rise or fall along an axis, or along each of several.

    Args:
        id: unique in the book.
        statement: one sentence that can be false.
        values: an array with at least two entries along each such axis.
        direction: "rising" or "falling".
        axis: the axis along which they are ordered, or several.
        step: every step must exceed this, in the unit of the values.
        rival: name and values of each quantity that one would expect to be so ordered, and that is not.

    Raises:
        ClaimError: a step goes the wrong way, a number is not finite, there is no step, a rival is ordered as well, or
            the id is taken.
        ValueError: another direction, a negative step, an axis that an array does not have, or an id of another form.

    >>> ordering("squares-rise", "Squares of 1, 2, 3 rise", values=[1, 4, 9], direction="rising",
    ...          rival={"sines": [0.84, 0.91, 0.14]})
    ✓ squares-rise: Squares of 1, 2, 3 rise | smallest step 3; criterion every step rising; worst of 2 points;
    rival rejected sines: 1 of 2 steps go the other way
    """
    if direction not in ("rising", "falling"):
        raise ValueError(f"direction: got {direction!r}, want 'rising' or 'falling'")
    _require_allowances(step=step)
    axes = (axis,) if isinstance(axis, int) else tuple(axis)

    def confront(name: str, quantity: Numbers) -> Finding:
        data = as_array(name, quantity)
        if not axes or any(not -data.ndim <= a < data.ndim for a in axes):
            raise ValueError(f"axis: got {axis} for {name} of shape {data.shape}, want an axis that it has")
        return order(data, sign=1 if direction == "rising" else -1, axes=axes, step=step)

    def describe(finding: Finding) -> str:
        return finding.reason or f"is {direction} as well"

    criterion = f"every step {direction}" + (f" by more than {step:g}" if step else "")
    write_down(id, "ordering", statement, confront("values", values), criterion, _rivals(rival, confront, describe))


def identity(
    id: str, statement: str, *, left: Any, right: Any, rtol: float | None = None, rival: Mapping[str, Any] | None = None
) -> None:
    """Claim that two sides are the same: exactly as sympy expressions, or up to rounding as numbers.

    Args:
        id: unique in the book.
        statement: one sentence that can be false.
        left: a sympy expression (or a list of them), or numbers if `rtol` is given.
        right: what it equals, of the same form.
        rtol: for numbers: the relative rounding error allowed. Without it the sides are symbolic.
        rival: name and right-hand side of each neighbouring formula that must differ.

    Raises:
        ClaimError: the sides differ, nothing was compared, a rival equals the left side, or the id is taken.
        ValueError: the sides are not of equal number, a negative tolerance, or an id of another form.

    >>> import sympy
    >>> x = sympy.Symbol("x")
    >>> identity("binomial", "The square of a sum", left=(x + 1) ** 2, right=x**2 + 2 * x + 1,
    ...          rival={"without the mixed term": x**2 + 1})
    ✓ binomial: The square of a sum | criterion symbolic; rival rejected without the mixed term: differs
    """
    _require_allowances(rtol=rtol)

    def confront(name: str, other: Any) -> Finding:
        if rtol is None:
            return symbolic(left, other)
        theory, found = broadcast(**{name: as_array(name, other), "left": as_array("left", left)})
        return agreement(theory, found, rtol * np.maximum(np.abs(theory), np.abs(found)))

    def describe(finding: Finding) -> str:
        differs = "differs" if rtol is None else f"off by {number(finding.error)}"
        return "is the same" if finding.passed else differs

    criterion = "symbolic" if rtol is None else _percent(rtol) or "exact"
    write_down(id, "identity", statement, confront("right", right), criterion, _rivals(rival, confront, describe))


def _rivals(
    rival: Mapping[str, Numbers] | None, confront: Callable[[str, Numbers], Finding], describe: Callable[[Finding], str]
) -> dict[str, tuple[Finding, str]]:
    findings = {name: confront(f"rival {name!r}", wrong) for name, wrong in (rival or {}).items()}
    return {name: (finding, describe(finding)) for name, finding in findings.items()}


def _require_allowances(**allowances: float | None) -> None:
    for name, value in allowances.items():
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name}: got {value}, want a finite number >= 0")


def _percent(rtol: float | None) -> str:
    if not rtol:
        return ""
    return f"{100 * rtol:g} %" if rtol >= 1e-4 else f"relative {rtol:g}"


def _join(*parts: str) -> str:
    return " + ".join(part for part in parts if part)

"""Shape annotations for signatures: jaxtyping where it is installed, nothing elsewhere.

The tests switch on their checking (`tests/conftest.py`). At run time `lib` needs only numpy, scipy, torch, sympy and
matplotlib; annotations are never evaluated there, because every module postpones them.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or find_spec("jaxtyping"):
    from jaxtyping import Bool, Float, Int, Real, Shaped
else:
    Bool = Float = Int = Real = Shaped = Any

__all__ = ["Bool", "Float", "Int", "Real", "Shaped"]

"""What float32 costs in accuracy: the calls of `tests/costs.py` in both precisions, on inputs that both can hold.

Run `make bench`, or this file alone; it writes `benchmarks/results/precision.json` for the page *Performance*.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn

from benchmarks.harness import RESULTS, apart
from tests.costs import CASES, MANY

RANDOM = ("rf_regression.simulate_rf_ridge", "temperature_scaling.bootstrap_calibration_error")
CHECKS = ("residual", "gap", "gradient", "gradient_norm", "counts")  # errors themselves, and whole numbers


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Numbers of a call's arguments as float32 holds them, in the given precision."""
    if isinstance(value, Tensor):
        return value.float().to(dtype) if value.is_floating_point() else value
    if isinstance(value, nn.Module):
        return copy.deepcopy(value).float().to(dtype)
    return type(value)(cast(x, dtype) for x in value) if isinstance(value, list | tuple) else value


def parts(result: Any) -> dict[str, Any]:
    """The result's parts by name, without what only tells how well it was solved."""
    named = vars(result) if hasattr(result, "__dataclass_fields__") else {"result": result}
    return {name: x for name, x in named.items() if name not in CHECKS and isinstance(x, Tensor) and x.numel()}


def error(call: Callable[[], object]) -> tuple[float, str]:
    """The largest difference relative to the largest entry of a part, and the part."""
    if not isinstance(call, partial):
        raise TypeError(f"call: got {type(call).__name__}, want a partial, whose arguments can be cast")
    single, double = (
        parts(call.func(*cast(call.args, dtype), **{k: cast(v, dtype) for k, v in call.keywords.items()}))
        for dtype in (torch.float32, torch.float64)
    )
    return max((apart(single[name].double(), double[name]), name) for name in double)


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    rows = []
    for name, case in CASES.items():
        if name in RANDOM:
            continue  # other numbers are drawn in the other precision
        size, part = error(case.make(MANY))
        chapter, kernel = name.split(".")
        rows.append([kernel, chapter, f"{size:.1e}", part])
        print(*rows[-1])
    content = {
        "caption": f"Largest difference between float32 and float64, relative to the largest entry; {MANY} elements",
        "headings": ["Kernel", "Chapter", "Error", "Part"],
        "rows": rows,
    }
    (RESULTS / "precision.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Large tables, read in blocks of rows that stay in a processor's cache."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

LOG2E = 1 / math.log(2)  # exp(x) = exp2(x LOG2E): a product more, but on a processor twice as fast
BYTES = {"cpu": 1 << 20}  # of a block and its copies: they stay in the cache
BYTES_ELSEWHERE = 1 << 26


def blocks(
    table: Tensor, column: Tensor, dtype: torch.dtype | None = None, copies: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Matching parts of a table `(*batch, n, k)` and a column `(*batch, n, 1)` along n.

    They are the larger the fewer `copies` of them in `dtype` (the table's by default) are to be held at once.
    """
    row = table.numel() // table.shape[-2] * (table.dtype if dtype is None else dtype).itemsize * copies
    rows = max(1, BYTES.get(table.device.type, BYTES_ELSEWHERE) // max(1, row))
    return zip(table.split(rows, -2), column.split(rows, -2), strict=True)

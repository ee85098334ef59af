"""What all fits read alike: labelled samples with weights, and a batch of them in chunks of bounded size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, is_known, read_size, read_whole, require, require_shape
from lib.shapes import Float, Int

IN_MEMORY = 1 << 27  # numbers that a chunk may use where no cache matters: 1 GiB


@dataclass(frozen=True)
class Samples:
    """Features `x`, classes `y` and weights of the rows, each with batch axes that broadcast to `batch`."""

    x: Float[Tensor, "*x_batch n d"]
    y: Int[Tensor, "*y_batch n"]
    weight: Float[Tensor, "*weight_batch n"]
    batch: torch.Size

    def chunks(self, each: int, most: int) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """A slice of the flattened batch, and `x`, `y` and weights there with one batch axis; copies a chunk at most.

        Args:
            each: numbers that the caller needs for one data set.
            most: numbers that it may use at once, unless one data set needs more.
        """
        total, step = self.batch.numel(), max(1, most // each)
        for start in range(0, max(total, 1), step):  # of an empty batch one empty chunk
            stop = min(start + step, total)
            x, y, weight = (self._take(*part, start, stop) for part in ((self.x, 2), (self.y, 1), (self.weight, 1)))
            yield slice(start, stop), x, y, weight

    def _take(self, part: Tensor, axes: int, start: int, stop: int) -> Tensor:
        own = part.shape[part.ndim - axes :]
        if part.is_contiguous() and part.shape == (*self.batch, *own):
            return part.view(-1, *own)[start:stop]
        places = torch.arange(start, stop, device=part.device)
        index = [places // math.prod(self.batch[i + 1 :]) % size for i, size in enumerate(self.batch)]
        return part.expand(*self.batch, *own)[tuple(index)]


def read_samples(
    x: Tensor | ArrayLike, y: Tensor | ArrayLike, num_classes: int, sample_weight: Tensor | ArrayLike | None
) -> Samples:
    """Rows of finite features with classes from 0 to C - 1, in each data set every class at least once.

    Raises:
        ValueError: fewer than two classes, another shape, a number that is not finite, a negative weight, a label that
            is no class, or a class without a sample whose weight is above zero.
    """
    classes = read_size("num_classes", num_classes, 2)
    features = as_float("x", x)
    require_shape("x", features, features.ndim >= 2 and 0 not in features.shape[-2:], "(*batch, n, d) with n, d >= 1")
    if not is_known(features.sum().isfinite()):  # a finite sum has finite terms: look at each only where it is not
        require("x", features.isfinite(), "finite numbers", features)
    rows = features.shape[-2]
    labels = read_whole("y", y, features.device)
    require_shape("y", labels, labels.ndim >= 1 and labels.shape[-1] == rows, f"(*batch, {rows}), one class a row of x")
    require("y", (labels >= 0) & (labels < classes), f"a class from 0 to {classes - 1}", labels)
    if sample_weight is None:
        weight = torch.ones(rows, dtype=features.dtype, device=features.device)
    else:
        weight = as_float("sample_weight", sample_weight, like=features)
    require_shape("sample_weight", weight, weight.ndim >= 1 and weight.shape[-1] == rows, f"(*batch, {rows})")
    require("sample_weight", (weight >= 0) & weight.isfinite(), "finite numbers >= 0", weight)
    batch = broadcast_batch(x=features.shape[:-2], y=labels.shape[:-1], sample_weight=weight.shape[:-1])
    for k in range(classes):
        there = ((labels == k) & (weight > 0)).any(-1)
        require("y", there, f"a sample of class {k} in every data set, with a weight above zero", there.long())
    return Samples(features, labels, weight, batch)


def collect(batch: torch.Size, parts: Iterable[tuple[slice, tuple[Tensor, ...]]]) -> list[Tensor]:
    """What was computed chunk by chunk, with the axes of the batch in front.

    Each result is written to its place as it comes: kept one by one between the arrays of the chunks they would leave
    holes in memory that no later array fits.
    """
    whole: list[Tensor] = []
    for where, results in parts:
        if not whole:
            whole = [part.new_empty(batch.numel(), *part.shape[1:]) for part in results]
        for target, part in zip(whole, results, strict=True):
            target[where] = part
    return [target.view((*batch, *target.shape[1:])) for target in whole]


def indicator(labels: Int[Tensor, "*batch n"], classes: int, like: Tensor) -> Float[Tensor, "*batch C n"]:
    """A row for every class, one where a sample is of that class and zero elsewhere."""
    numbers = torch.arange(classes, device=labels.device).unsqueeze(-1)
    return (labels.unsqueeze(-2) == numbers).to(like.dtype)

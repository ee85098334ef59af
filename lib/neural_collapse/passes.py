"""Two passes over the samples of a layer: class means first, then the spread around them and the decisions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.neural_collapse.screening import Screen, screen
from lib.shapes import Float, Int

ENTRIES, ROWS = 2**21, 1024  # held at a time: 16 MiB, and on the CPU no more samples than its cache takes
SCREENED = 2**15  # classes times rank from which a screen in single precision is faster


@dataclass(frozen=True)
class ClassSums:
    """Sum of the features of each class, and number of its samples."""

    sums: Float[Tensor, "*batch C d"]
    sizes: Float[Tensor, "*batch C"]


def class_sums(h: Float[Tensor, "*#batch n d"], y: Int[Tensor, "*#batch n"], classes: int) -> ClassSums:
    """The first pass: one scatter over all samples of all layers of a batch."""
    batch, dim = torch.broadcast_shapes(h.shape[:-2], y.shape[:-1]), h.shape[-1]
    place, count = _places(y, batch, classes), batch.numel() * classes
    sums = h.new_zeros(count, dim).index_add_(0, place, h.expand(*batch, *h.shape[-2:]).reshape(len(place), dim))
    sizes = h.new_zeros(count).index_add_(0, place, h.new_ones(1).expand(len(place)))
    return ClassSums(sums.reshape(*batch, classes, dim), sizes.reshape(*batch, classes))


@dataclass(frozen=True)
class Levels:
    """Decisions from products with deviations, to which what is known of the class mean is added."""

    back: Float[Tensor, "*layers C r"]  # whitened deviations to inner products with the class means
    head: Float[Tensor, "*batch C C"]  # a row: the head's scores of one class mean
    near: Float[Tensor, "*layers C C"]  # a row: nearness of one class mean to all

    def decisions_differ(self, white: Tensor, scores: Tensor, own: Tensor) -> Tensor:
        """Whether the head and the nearest class mean disagree on each sample, a column of `white` and `scores`."""
        head = scores + _of_class(self.head, own).mT
        near = self.back @ white + _of_class(self.near, own).mT
        return head.argmax(-2) != near.argmax(-2)


@dataclass(frozen=True)
class SecondPass:
    r"""What the second pass takes from the first: class means, and matrices that turn deviations into numbers.

    The deviation $h_i-\bar h_{y_i}$ is taken first and multiplied afterwards. The other way round it would be the small
    difference of two large products, with few digits left near the collapse.
    """

    mean: Float[Tensor, "*layers C d"]
    apart: Float[Tensor, "*layers C d"]  # class means from their own mean
    probe: Float[Tensor, "*heads rows d"]  # whitening, and below it the head unless a screen decides
    rank: int  # rows of the whitening
    decider: Levels | Screen
    batch: torch.Size

    def over(self, h: Float[Tensor, "*#batch n d"], y: Int[Tensor, "*#batch n"]) -> tuple[Tensor, Tensor]:
        """Sums over the samples: whitened squared deviations, and decisions of head and nearest mean that differ."""
        classes = self.mean.shape[-2]
        step = max(1, ENTRIES // max(1, self.batch.numel() * (h.shape[-1] + self.rank + 2 * classes)))
        step = min(step, ROWS) if h.device.type == "cpu" else step
        spread, wrong = h.new_zeros(self.mean.shape[:-2]), h.new_zeros(self.batch)
        for start in range(0, h.shape[-2], step):
            size = min(step, h.shape[-2] - start)
            x, own = h.narrow(-2, start, size), y.narrow(-1, start, size)
            # samples are columns: a product with a thin matrix is fastest with the thin one first
            columns = self.probe @ (x - _of_class(self.mean, own)).mT
            white = columns.narrow(-2, 0, self.rank)
            if isinstance(self.decider, Screen):
                differ = self.decider.decisions_differ(x)
            else:
                differ = self.decider.decisions_differ(white, columns.narrow(-2, self.rank, classes), own)
            spread, wrong = spread + white.square().sum((-2, -1)), wrong + differ.sum(-1)
        return spread, wrong


def second_pass(
    mean: Float[Tensor, "*#batch C d"], weight: Float[Tensor, "*#batch C d"], bias: Float[Tensor, "*#batch C"] | None
) -> SecondPass:
    """Prepare the second pass; NC1 is the first sum that it finds, divided by the number of samples."""
    batch = torch.broadcast_shapes(mean.shape[:-2], weight.shape[:-2], () if bias is None else bias.shape[:-1])
    apart = mean - mean.mean(-2, keepdim=True)
    white, back = _whitening(apart)
    rank = white.shape[-2]
    coarse = screen(mean, apart, weight, bias) if rank * mean.shape[-2] >= SCREENED else None
    if coarse is not None:
        return SecondPass(mean, apart, white, rank, coarse, batch)
    gram = apart @ apart.mT
    near = gram - gram.diagonal(dim1=-2, dim2=-1).unsqueeze(-2) / 2
    head = mean @ weight.mT if bias is None else mean @ weight.mT + bias.unsqueeze(-2)
    levels = Levels(back, head.expand(*batch, *head.shape[-2:]), near)
    return SecondPass(mean, apart, _stack(white, weight), rank, levels, batch)


def _whitening(apart: Tensor) -> tuple[Tensor, Tensor]:
    r"""From the eigenpairs of the smaller Gram matrix: $\Gamma^{-1/2}V^\top$ (r, d) and $\tilde HV\Gamma^{1/2}$ (C, r).

    Directions in which the class means do not differ are zero in both; all are NaN where no two class means differ.
    """
    classes, dim = apart.shape[-2:]
    few = classes <= dim
    values, vectors = torch.linalg.eigh(apart @ apart.mT if few else apart.mT @ apart)
    largest = values.amax(-1, keepdim=True)
    kept = values > largest * max(classes, dim) * torch.finfo(values.dtype).eps
    safe = torch.where(kept, values, torch.ones_like(values))
    up = torch.where(kept, safe if few else safe.sqrt(), torch.zeros_like(safe)).unsqueeze(-2)
    down = torch.where(kept, 1 / (safe if few else safe.sqrt()), torch.zeros_like(safe))
    down = torch.where(largest > 0, down, torch.full_like(down, torch.nan)).unsqueeze(-2)
    if few:
        return (vectors * down).mT @ apart, vectors * up
    return (vectors * down).mT, apart @ (vectors * up)


def _places(y: Tensor, batch: torch.Size, classes: int) -> Tensor:
    """Row of each sample's class in a table of all classes of all layers, flattened."""
    layer = torch.arange(batch.numel(), device=y.device).reshape(*batch, 1)
    return (y + classes * layer).flatten()


def _of_class(table: Tensor, y: Tensor) -> Tensor:
    """The row (*batch, n, m) of each sample's class in a table (*batch, C, m)."""
    batch, (classes, width) = table.shape[:-2], table.shape[-2:]
    y = y.expand(*batch, y.shape[-1])
    rows = table.reshape(batch.numel() * classes, width).index_select(0, _places(y, batch, classes))
    return rows.reshape(*y.shape, width)


def _stack(upper: Tensor, lower: Tensor) -> Tensor:
    """One matrix above the other, with a common batch shape."""
    batch = torch.broadcast_shapes(upper.shape[:-2], lower.shape[:-2])
    return torch.cat([x.expand(*batch, *x.shape[-2:]) for x in (upper, lower)], -2)

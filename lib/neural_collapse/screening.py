"""Decisions of the head and of the nearest class mean: in half the digits wherever those are enough."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.shapes import Bool, Float

LARGEST = 1e30  # products of numbers up to this size do not overflow in single precision


@dataclass(frozen=True)
class Screen:
    r"""Scores of both deciders, exact and rough, and how far the rough ones can be off.

    A sample $x$ of norm $\|x\|$ (from the mean of the class means) has rough scores within
    $u(d+3)\|x\|\max_j\|t_j\|+2u\max_j|l_j|$ of $t_j^\top x+l_j$, with the unit roundoff $u=2^{-24}$: rounding of both
    factors, of d products and sums, and of the level. The screen allows four times that, for it is between two scores
    and the threshold is rounded too. Samples whose best two scores lie within it are decided again in double precision.
    """

    centre: Float[Tensor, " d"]
    table: Float[Tensor, "scores d"]  # rows of the head, then of the class means
    level: Float[Tensor, " scores"]
    rough_table: Float[Tensor, "scores d"]
    rough_level: Float[Tensor, " scores"]
    relative: Float[Tensor, ""]  # slack per unit of the sample's norm
    absolute: Float[Tensor, ""]
    longest: Float[Tensor, ""]

    def decisions_differ(self, h: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Whether the head and the nearest class mean disagree on each sample."""
        x = h.detach() - self.centre
        size = torch.linalg.vector_norm(x, dim=-1)
        slack = (self.relative * size + self.absolute).float()
        sure = size.clamp_min(1) * self.longest < LARGEST
        picks = []
        for scores in torch.addmm(self.rough_level, x.float(), self.rough_table.mT).chunk(2, -1):
            best, pick = scores.max(-1)
            sure = sure & ((scores >= (best - slack).unsqueeze(-1)).sum(-1) == 1)
            picks.append(pick)
        differ = picks[0] != picks[1]
        close = (~sure).nonzero().squeeze(-1)
        head, near = torch.addmm(self.level, x.index_select(0, close), self.table.mT).chunk(2, -1)
        return differ.index_copy_(0, close, head.argmax(-1) != near.argmax(-1))


def screen(mean: Tensor, apart: Tensor, weight: Tensor, bias: Tensor | None) -> Screen | None:
    """A screen for one layer in double precision on the CPU; elsewhere None, because a screen reads its own results."""
    one = mean.ndim == weight.ndim == 2 and (bias is None or bias.ndim == 1)
    if not one or mean.device.type != "cpu" or mean.dtype != torch.float64:
        return None
    mean, apart, weight = mean.detach(), apart.detach(), weight.detach()
    centre = mean.mean(0)
    head_level = weight @ centre + (0 if bias is None else bias.detach())
    table = torch.cat((weight, apart))
    level = torch.cat((head_level, -apart.square().sum(-1) / 2))
    longest = torch.linalg.vector_norm(table, dim=-1).amax()
    unit, tiny = torch.finfo(torch.float32).eps / 2, torch.finfo(torch.float32).tiny
    dim = table.shape[-1]
    return Screen(
        centre,
        table,
        level,
        table.float(),
        level.float(),
        4 * unit * (dim + 3) * longest,
        8 * unit * level.abs().amax() + dim * tiny,
        longest.clamp_min(1),
    )

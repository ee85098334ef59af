"""A spectrum as weighted modes in falling order, and what is learned of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib.shapes import Float


@dataclass(frozen=True)
class Modes:
    """Nodes that stand for `weight` modes each, in groups of falling eigenvalue; a weight of 0 fills a place."""

    eigenvalues: Float[Tensor, "*#batch J"]
    log_eigenvalues: Float[Tensor, "*#batch J"]  # without gradient: only the solver reads it
    weight: Float[Tensor, "*#batch J"]
    power: Float[Tensor, "*#batch J"]
    before: Float[Tensor, "*#batch J"]  # modes in the groups above this node's
    group: Float[Tensor, "*#batch J"]  # modes in this node's group
    floor: Float[Tensor, "*#batch J"]  # log of a lower bound on the eigenvalues of the group
    unseen_power: Float[Tensor, "*#batch"]  # power on modes that no node stands for
    rank: Float[Tensor, "*#batch"]
    log_trace: Float[Tensor, "*#batch"]

    @property
    def batch(self) -> torch.Size:
        """The common batch shape of all parts."""
        common: torch.Size = torch.broadcast_shapes(self.eigenvalues.shape[:-1], self.power.shape[:-1])
        return common

    def head_fraction(self, modes: Tensor) -> Tensor:
        """Which part of each node belongs to the `modes` largest modes, shape `(*batch, J)`."""
        return ((modes.unsqueeze(-1) - self.before) / self.group.clamp_min(1)).clamp(0, 1)

    def slices(self, batch: torch.Size) -> list[Modes]:
        """The same modes in pieces whose products with a batch of that shape stay below 8 MB in float64."""
        piece = max(1, (1 << 20) // max(1, batch.numel()))
        total = self.eigenvalues.shape[-1]
        if total <= piece:
            return [self]
        along = ("eigenvalues", "log_eigenvalues", "weight", "power", "before", "group", "floor")
        return [
            replace(self, **{name: getattr(self, name).narrow(-1, start, min(piece, total - start)) for name in along})
            for start in range(0, total, piece)
        ]

    def with_tail(self, trace: Tensor, power: Tensor) -> Modes:
        r"""The same modes and, below them, infinitely many that are far smaller than any $\Gamma$.

        Only the sum of their eigenvalues, `trace`, matters, so one node stands for them: an eigenvalue far below
        rounding error (`trace` times eps squared), and as many modes as the sum asks for.
        """
        tiny = torch.finfo(self.eigenvalues.dtype).eps ** 2
        batch = torch.broadcast_shapes(self.batch, trace.shape, power.shape)
        trace, power, rank = trace.expand(batch), power.expand(batch), self.rank.expand(batch)
        exists, none = trace > 0, torch.zeros_like(trace)
        value = torch.where(exists, trace * tiny, torch.ones_like(trace))
        level, count = value.detach().log(), exists.to(trace) / tiny
        last = {
            "eigenvalues": value,
            "log_eigenvalues": level,
            "weight": count,
            "power": torch.where(exists, power, none),
            "before": rank,
            "group": count,
            "floor": level,
        }
        parts = {
            name: torch.cat([getattr(self, name).expand(*batch, -1), node.unsqueeze(-1)], -1)
            for name, node in last.items()
        }
        log_trace = torch.logaddexp(self.log_trace.expand(batch), trace.detach().log())
        unseen_power = self.unseen_power + torch.where(exists, none, power)
        return replace(self, **parts, rank=rank + count, log_trace=log_trace, unseen_power=unseen_power)


def learned_share(spectrum: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    r"""$L$ and $1-L$ of positive eigenvalues, each without cancellation, for gamma from 0 to infinity."""
    finite = gamma.clamp_max(torch.finfo(spectrum.dtype).max / 4)  # learns nothing, and is no inf / inf
    total = spectrum + finite
    return spectrum / total, finite / total


def sorted_modes(spectrum: Tensor, power: Tensor) -> Modes:
    """Every mode as its own node, largest first; those with eigenvalue 0 as unseen ones."""
    values, order = spectrum.sort(dim=-1, descending=True)
    batch = torch.broadcast_shapes(order.shape, power.shape)
    coefficients = power.expand(batch).gather(-1, order.expand(batch))
    present, none = values > 0, torch.zeros_like(coefficients)
    weight, level = present.to(values), values.detach().log()
    return Modes(
        eigenvalues=torch.where(present, values, torch.ones_like(values)),
        log_eigenvalues=level,
        weight=weight,
        power=torch.where(present, coefficients, none),
        before=torch.arange(values.shape[-1], dtype=values.dtype, device=values.device).expand(values.shape),
        group=weight,
        floor=level,
        unseen_power=torch.where(present, none, coefficients).sum(-1),
        rank=weight.sum(-1),
        log_trace=level.logsumexp(-1),
    )

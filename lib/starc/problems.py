"""A flat stack of decision processes: looking one step ahead, evaluating and improving deterministic policies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.linalg import solve

NOISE = 256.0  # in units of rounding: an action replaces another only if it is better by more


@dataclass(frozen=True)
class Problems:
    """N decision processes with F rewards each; a dynamics that all share is stored once."""

    rows: Tensor  # (N or 1, S A, S), next-state distributions
    gamma: Tensor  # (N,)
    rewards: Tensor  # (N, F, S, A)

    @classmethod
    def stack(cls, dynamics: Tensor, gamma: Tensor, rewards: Tensor, batch: torch.Size) -> Problems:
        """From tensors whose batch axes broadcast to `batch`; `rewards` is (*batch, F, S, A)."""
        states, actions = dynamics.shape[-3:-1]
        shared = dynamics.shape[:-3].numel() == 1
        rows = (dynamics if shared else dynamics.expand(*batch, states, actions, states)).reshape(
            -1, states * actions, states
        )
        kinds = rewards.shape[-3]
        return cls(
            rows,
            gamma.expand(batch).reshape(-1),
            rewards.expand(*batch, kinds, states, actions).reshape(-1, kinds, states, actions),
        )

    def some(self, index: Tensor) -> Problems:
        """The chosen ones."""
        rows = self.rows if self.rows.shape[0] == 1 else self.rows[index]
        return Problems(rows, self.gamma[index], self.rewards[index])

    def ahead(self, values: Tensor) -> Tensor:
        """Discounted value of the next state, `(N, K, S)` to `(N, K, S, A)`."""
        count, kinds, states = values.shape
        if self.rows.shape[0] == 1:
            product = (values.reshape(-1, states) @ self.rows[0].mT).view(count, kinds, self.rows.shape[1])
        else:
            product = values @ self.rows.mT
        actions = self.rows.shape[1] // states
        later: Tensor = (self.gamma[:, None, None] * product).unflatten(-1, (states, actions))
        return later

    def evaluate(self, actions: Tensor) -> Tensor:
        """Values of deterministic policies `(N, K, S)` under all rewards, shape `(N, K, F, S)`."""
        gain, chain = self.induced(actions)
        values: Tensor = solve(self._system(chain), gain.mT)
        return values.mT

    def visits(self, actions: Tensor, start: Tensor) -> Tensor:
        """Discounted visits of states, `(N, K, S)`, by deterministic policies that start from `(N, S)`."""
        system = self._system(self.induced(actions)[1])
        right = start[:, None, :, None].expand(-1, actions.shape[1], -1, -1)
        visits: Tensor = solve(system.mT, right)
        return visits.squeeze(-1)

    def induced(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """What policies `(N, K, S)` earn at once `(N, K, F, S)`, and their chains `(N, K, S, S)`."""
        count, kinds, states = actions.shape
        shared = self.rows.shape[0] == 1
        pair = actions + torch.arange(states, device=actions.device) * self.rewards.shape[-1]
        first = torch.arange(count, device=actions.device)[:, None, None] * (0 if shared else self.rows.shape[1])
        chain = self.rows.flatten(0, 1).index_select(0, (pair + first).flatten()).view(count, kinds, states, states)
        flat = self.rewards.flatten(-2, -1).unsqueeze(1)  # (N, 1, F, S A)
        index = pair.unsqueeze(2).expand(count, kinds, flat.shape[2], states)
        return flat.expand(-1, kinds, -1, -1).gather(-1, index), chain

    def _system(self, chain: Tensor) -> Tensor:
        identity = torch.eye(chain.shape[-1], dtype=chain.dtype, device=chain.device)
        return identity - self.gamma[:, None, None, None] * chain


def improvable(q_value: Tensor, values: Tensor) -> Tensor:
    """Where `(N,)` some action is clearly better than the values `(N, K, S)`: rounding is no improvement."""
    best = q_value.amax(-1)
    return (best - values > rounding(best)).flatten(1).any(-1)


def improve(q_value: Tensor, actions: Tensor) -> Tensor:
    """The best actions `(N, K, S)`; the present one stays unless it loses clearly, or equal ones would alternate."""
    best, arg = q_value.max(-1)
    present = q_value.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    return torch.where(best - present > rounding(best), arg, actions)


def rounding(best: Tensor) -> Tensor:
    """What may be rounding in values `(..., S)` of rewards of size 1, shape `(..., 1)`."""
    return NOISE * torch.finfo(best.dtype).eps * (1 + best.abs().amax(-1, keepdim=True))


def still_open(closed: Tensor) -> Tensor | None:
    """Indices of the rows that are not closed, once they are few enough to go on without the others.

    None means to go on with all: so it is on an accelerator, which would have to wait for the answer.
    """
    if closed.device.type != "cpu":
        return None
    try:
        left = int(closed.numel() - closed.sum())
    except RuntimeError:  # inside torch.func.vmap a value cannot be read
        return None
    return (~closed).nonzero().squeeze(-1) if left == 0 or left <= 0.75 * closed.numel() else None

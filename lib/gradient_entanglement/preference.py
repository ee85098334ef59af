"""Training on preference pairs by plain gradient descent, with everything the theory wants to know recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lib.checks import read_size
from lib.gradient_entanglement.gram import PairGram
from lib.gradient_entanglement.layerwise import layerwise_kernel
from lib.gradient_entanglement.movement import LogProbChanges, normalized_weights
from lib.gradient_entanglement.objectives import margin_objective
from lib.gradient_entanglement.pairs import PreferencePairs, response_logps
from lib.gradient_entanglement.trajectory import kernel_step
from lib.shapes import Float

NORMALIZED = "normalized"
TENTH = 0.1


@dataclass(frozen=True)
class PreferenceRun:
    """A run of full-batch descent on B pairs; the last axis holds the chosen, then the rejected responses (2B).

    `logps` before the first and after every step, and the weights `d_w`, `d_l` of each step. With a recorded kernel:
    the `gram` of each pair at each step, the `first`-order change of each step, its part that comes from the `own` pair
    alone, and the `kernel` at the start. With a recorded curvature: the change to `second` order.
    """

    logps: Float[Tensor, "times N"]
    d_w: Float[Tensor, "steps B"]
    d_l: Float[Tensor, "steps B"]
    gram: PairGram | None
    first: Float[Tensor, "steps N"] | None
    own: Float[Tensor, "steps N"] | None
    second: Float[Tensor, "steps N"] | None
    kernel: Float[Tensor, "N N"] | None

    @property
    def chosen(self) -> Float[Tensor, "times B"]:
        """Log-probabilities of the chosen responses."""
        return self.logps.chunk(2, -1)[0]

    @property
    def rejected(self) -> Float[Tensor, "times B"]:
        """Log-probabilities of the rejected responses."""
        return self.logps.chunk(2, -1)[1]


def train_on_pairs(
    model: nn.Module,
    pairs: PreferencePairs,
    objective: str,
    *,
    lr: float,
    steps: int,
    record_kernel: bool = False,
    record_curvature: bool = False,
    optimiser: Callable[[Any], torch.optim.Optimizer] | None = None,
    **objective_kwargs: Any,
) -> PreferenceRun:
    r"""Descend the mean loss of all pairs, and record how both log-probabilities move.

    Args:
        model: trained in place; its values at the start are the reference.
        pairs: preference pairs on the model's device.
        objective: one of `OBJECTIVES`, or "normalized" for the weights $1/\|g_w\|$, $1/\|g_l\|$ at every step.
        lr: step size of plain gradient descent.
        steps: at least 1.
        record_kernel: also record the tangent kernel of all responses at each step, and what it predicts.
        record_curvature: also record what Taylor's second term adds.
        optimiser: makes another optimiser from the parameters; the learning rate is then its own.
        **objective_kwargs: hyperparameters, as `margin_objective` takes them.

    Returns:
        Log-probabilities along the path, and what was asked to be recorded.

    Raises:
        ValueError: no step, and whatever `margin_objective` refuses.

    Source: own construction, for the experiments on Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> from lib.gradient_entanglement import CharTransformer, minimal_pairs
    >>> model = CharTransformer(5, width=4, inner=4, generator=torch.Generator().manual_seed(0)).double()
    >>> pairs = minimal_pairs(model, torch.tensor([[0, 1, 2]]), 1, -1)
    >>> run = train_on_pairs(model, pairs, "dpo", lr=0.1, steps=2)
    >>> bool((run.chosen - run.rejected).diff(dim=0).min() > 0)
    True
    """
    count = read_size("steps", steps, 1)
    rows, size = torch.cat([pairs.chosen, pairs.rejected]), len(pairs.chosen)
    descent = torch.optim.SGD(model.parameters(), lr=lr) if optimiser is None else optimiser(model.parameters())
    values, weights, grams, first, own, second = [], [], [], [], [], []
    start: Tensor | None = None
    for _ in range(count):
        now = response_logps(model, rows, pairs.prompt)
        values.append(now.detach())
        if record_kernel or objective == NORMALIZED:
            kernel = layerwise_kernel(model, lambda m, y: response_logps(m, y, pairs.prompt), rows)
            start = kernel if start is None else start
            diagonal = kernel.diagonal()
            gram = PairGram(diagonal[:size], kernel[:size, size:].diagonal(), diagonal[size:])
        if objective == NORMALIZED:
            d_w, d_l = normalized_weights(gram)
        else:
            d_w, d_l = _weights(objective, values[-1], values[0], rows.shape[1] - pairs.prompt, objective_kwargs)
        weights.append(torch.stack([d_w, d_l]))
        if record_kernel:
            grams.append(torch.stack([gram.ww, gram.wl, gram.ll]))
            first.append(torch.cat(kernel_step(kernel, d_w, d_l, torch.full_like(d_w[0], lr))))
            alone = (d_w * gram.ww - d_l * gram.wl, d_w * gram.wl - d_l * gram.ll)
            own.append(lr / size * torch.cat(alone))
        loss = (torch.cat([-d_w, d_l]) * now).sum() / size  # its gradient is that of the objective
        descent.zero_grad()
        loss.backward()
        if record_curvature:
            second.append(_second_order(model, rows, pairs.prompt, lr))
        descent.step()
    with torch.no_grad():
        values.append(response_logps(model, rows, pairs.prompt))
    d_w, d_l = torch.stack(weights, 1)
    return PreferenceRun(
        logps=torch.stack(values),
        d_w=d_w,
        d_l=d_l,
        gram=PairGram(*torch.stack(grams, 1)) if grams else None,
        first=torch.stack(first) if first else None,
        own=torch.stack(own) if own else None,
        second=torch.stack(second) if second else None,
        kernel=start,
    )


def pair_steps(
    model: nn.Module,
    pairs: PreferencePairs,
    d_w: Float[Tensor, " B"],
    d_l: Float[Tensor, " B"],
    lr: float,
) -> LogProbChanges:
    """What really happens to each pair's two log-probabilities when the model takes one step on this pair alone.

    Each pair starts from the same model, which is left as it is.

    Args:
        model: any module that `response_logps` can read.
        pairs: B preference pairs.
        d_w: weight of each chosen response, shape (B,).
        d_l: weight of each rejected response, shape (B,).
        lr: step size.

    Returns:
        Both changes, shape (B,).

    Source: own construction, for the experiments on Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> from lib.gradient_entanglement import CharTransformer, minimal_pairs
    >>> model = CharTransformer(5, width=4, inner=4, generator=torch.Generator().manual_seed(0)).double()
    >>> pairs = minimal_pairs(model, torch.tensor([[0, 1, 2]]), 1, -1)
    >>> moved = pair_steps(model, pairs, torch.ones(1).double(), torch.ones(1).double(), 1e-3)
    >>> bool(moved.margin > 0)
    True
    """
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    both = torch.stack([pairs.chosen, pairs.rejected], 1)

    def values(theta: dict[str, Tensor], rows: Tensor) -> Tensor:
        return response_logps(_At(model, theta), rows, pairs.prompt)

    def one(rows: Tensor, up: Tensor, down: Tensor) -> Tensor:
        def objective(theta: dict[str, Tensor]) -> Tensor:
            logp = values(theta, rows)
            return up * logp[0] - down * logp[1]

        direction = torch.func.grad(objective)(parameters)
        after = {name: value + lr * direction[name] for name, value in parameters.items()}
        return values(after, rows) - values(parameters, rows)

    moved = torch.func.vmap(one, chunk_size=64)(both, d_w, d_l)
    return LogProbChanges(moved[:, 0], moved[:, 1])


class _At(nn.Module):
    """A model at other parameters."""

    model: nn.Module

    def __init__(self, model: nn.Module, theta: dict[str, Tensor]) -> None:
        super().__init__()
        object.__setattr__(self, "model", model)  # not as a part: its parameters are not ours
        self.theta = theta

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits at the other parameters."""
        out: Tensor = functional_call(self.model, self.theta, (tokens,))
        return out


def _weights(
    objective: str, now: Tensor, reference: Tensor, length: int, objective_kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    (u, v), (ref_w, ref_l) = now.chunk(2), reference.chunk(2)
    known: dict[str, Any] = {"ref_w": ref_w, "ref_l": ref_l, "len_w": length, "len_l": length}
    found = margin_objective(objective, u, v, **known, **objective_kwargs)
    return found.d_w, found.d_l


def _second_order(model: nn.Module, rows: Tensor, prompt: int, lr: float) -> Tensor:
    """Change of all log-probabilities to second order, along minus the gradient that the parameters hold now.

    Derivatives along the step are central differences over a tenth of it: their own error is a hundredth of the next
    order's, at the price of two passes for all rows.
    """
    step = {}
    for name, value in model.named_parameters():
        step[name] = torch.zeros_like(value) if value.grad is None else -TENTH * lr * value.grad
    with torch.no_grad():
        values = []
        for sign in (-1, 0, 1):
            moved = {name: value + sign * step[name] for name, value in model.named_parameters()}
            values.append(response_logps(_At(model, moved), rows, prompt))
    behind, here, ahead = values
    return (ahead - behind) / (2 * TENTH) + (ahead - 2 * here + behind) / (2 * TENTH**2)

"""Training on preference pairs by plain gradient descent, with everything the theory wants to know recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lib.gradient_entanglement.gram import PairGram
from lib.gradient_entanglement.language import CharTransformer, PreferencePairs, response_logps
from lib.gradient_entanglement.layerwise import layerwise_kernel
from lib.gradient_entanglement.movement import normalized_weights
from lib.gradient_entanglement.objectives import margin_objective
from lib.gradient_entanglement.trajectory import kernel_step
from lib.shapes import Float

NORMALIZED = "normalized"


@dataclass(frozen=True)
class PreferenceRun:
    """A run of full-batch gradient descent on B pairs.

    `chosen` and `rejected` are log-probabilities before the first and after every step; `d_w` and `d_l` the weights of
    each step. With a recorded kernel, `gram` holds the inner products of each pair at each step, `predicted_chosen` and
    `predicted_rejected` the first-order change of each step, and `own_chosen` its part from the pair itself.
    """

    chosen: Float[Tensor, "times B"]
    rejected: Float[Tensor, "times B"]
    d_w: Float[Tensor, "steps B"]
    d_l: Float[Tensor, "steps B"]
    gram: PairGram | None
    predicted_chosen: Float[Tensor, "steps B"] | None
    predicted_rejected: Float[Tensor, "steps B"] | None
    own_chosen: Float[Tensor, "steps B"] | None
    kernel: Float[Tensor, "N N"] | None


def train_on_pairs(
    model: CharTransformer,
    pairs: PreferencePairs,
    objective: str,
    *,
    lr: float,
    steps: int,
    record_kernel: bool = False,
    optimiser: Callable[[Any], torch.optim.Optimizer] | None = None,
    **objective_kwargs: Any,
) -> PreferenceRun:
    r"""Descend the mean loss of all pairs, and record how both log-probabilities move.

    Args:
        model: trained in place; its values at the start are the reference.
        pairs: preference pairs on the model's device.
        objective: one of `OBJECTIVES`, or "normalized" for the weights $1/\|g_w\|$, $1/\|g_l\|$ at every step.
        lr: step size.
        steps: of plain gradient descent.
        record_kernel: also record the tangent kernel of all responses at each step, and what it predicts.
        optimiser: makes another optimiser from the parameters; the learning rate is then its own.
        **objective_kwargs: hyperparameters, as `margin_objective` takes them.

    Raises:
        ValueError: no step, and whatever `margin_objective` refuses.
    """
    if steps < 1:
        raise ValueError(f"steps: got {steps}, want at least 1")
    rows, size = torch.cat([pairs.chosen, pairs.rejected]), len(pairs.chosen)
    lengths = rows.shape[1] - pairs.prompt
    descent = torch.optim.SGD(model.parameters(), lr=lr) if optimiser is None else optimiser(model.parameters())
    with_kernel = record_kernel or objective == NORMALIZED
    values, weights, grams, moves, own, first = [], [], [], [], [], None
    reference: tuple[Tensor, Tensor] | None = None

    def logps(module: Any, tokens: Tensor) -> Tensor:
        return response_logps(module, tokens, pairs.prompt)

    for step in range(steps + 1):
        now = logps(model, rows)
        u, v = now.chunk(2)
        values.append(now.detach())
        if step == steps:
            break
        reference = reference or (u.detach(), v.detach())
        kernel = layerwise_kernel(model, logps, rows) if with_kernel else None
        if kernel is not None:
            first = kernel if first is None else first
            diagonal = kernel.diagonal()
            gram = PairGram(diagonal[:size], kernel[:size, size:].diagonal(), diagonal[size:])
        if objective == NORMALIZED:
            d_w, d_l = normalized_weights(gram)
        else:
            known = {"ref_w": reference[0], "ref_l": reference[1], "len_w": lengths, "len_l": lengths}
            found = margin_objective(objective, u.detach(), v.detach(), **known, **objective_kwargs)  # type: ignore[arg-type]
            d_w, d_l = found.d_w, found.d_l
        weights.append(torch.stack([d_w, d_l]))
        if kernel is not None:
            grams.append(torch.stack([gram.ww, gram.wl, gram.ll]))
            moves.append(torch.stack(kernel_step(kernel, d_w, d_l, torch.full_like(d_w[0], lr))))
            own.append(lr / size * (d_w * gram.ww - d_l * gram.wl))
        loss = (d_l * v - d_w * u).mean()  # its gradient is that of the objective
        descent.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        descent.step()
    chosen, rejected = torch.stack(values).chunk(2, -1)
    pushes = torch.stack(weights)
    moved = torch.stack(moves) if moves else None
    return PreferenceRun(
        chosen=chosen,
        rejected=rejected,
        d_w=pushes[:, 0],
        d_l=pushes[:, 1],
        gram=PairGram(*torch.stack(grams, 1)) if grams else None,
        predicted_chosen=None if moved is None else moved[:, 0],
        predicted_rejected=None if moved is None else moved[:, 1],
        own_chosen=torch.stack(own) if own else None,
        kernel=first,
    )

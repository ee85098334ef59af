"""A pass through a model as its layers see it: inputs and output gradients, example by example."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

KINDS = (nn.Linear, nn.Embedding, nn.LayerNorm)


@dataclass
class Trace:
    """One layer in one pass: for each call its input `x`, output `y`, the `node` that made it, and its gradient `g`."""

    layer: nn.Module
    x: list[Tensor]
    y: list[Tensor]
    node: list[Any]
    g: list[Tensor]


def trainable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that own trainable parameters, by name.

    Raises:
        ValueError: no trainable parameter, or one that belongs to another kind of layer.
    """
    found: dict[str, nn.Module] = {}
    for name, layer in model.named_modules():
        owned = [part for part, value in layer.named_parameters(recurse=False) if value.requires_grad]
        if not owned:
            continue
        odd = isinstance(layer, nn.Embedding) and (layer.max_norm is not None or layer.scale_grad_by_freq)
        if not isinstance(layer, KINDS) or odd:
            where = ".".join(part for part in (name, owned[0]) if part)
            raise ValueError(
                f"model: got the parameter {where} of a {type(layer).__name__}, want only those of plain Linear, "
                "Embedding and LayerNorm layers; pair_gram takes any model"
            )
        found[name] = layer
    if not found:
        raise ValueError("model: got no trainable parameter, want a model with differentiable parameters")
    return found


def traces(model: nn.Module, logp: Callable[[nn.Module, Tensor], Tensor], examples: Tensor) -> list[Trace]:
    """One pass forward and one back through all examples; nothing is written into the parameters' `.grad`."""
    layers = trainable_layers(model)
    record = {name: Trace(layer, [], [], [], []) for name, layer in layers.items()}

    def remember(trace: Trace) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            trace.x.append(inputs[0].detach())
            trace.y.append(output)
            trace.node.append(output.grad_fn)

        return hook

    handles = [layer.register_forward_hook(remember(record[name])) for name, layer in layers.items()]
    try:
        with torch.enable_grad():
            values = logp(model, examples)
            total = values.sum() if isinstance(values, Tensor) else values
    finally:
        for handle in handles:
            handle.remove()
    count = examples.shape[0]
    if not isinstance(values, Tensor) or tuple(values.shape) != (count,):
        got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"logp: got {got}, want one log-probability an example, shape ({count},)")
    if not values.requires_grad:
        raise ValueError("logp: got values that do not depend on the model's parameters, want them to")
    for name, trace in record.items():
        for y, node in zip(trace.y, trace.node, strict=True):
            if y.grad_fn is not node:
                raise ValueError(f"model: got an output of layer {name} changed in place, want it left as it is")
            if y.shape[0] != count:
                raise ValueError(
                    f"model: got an output of shape {tuple(y.shape)} from layer {name}, want examples on its first "
                    f"axis ({count}); expand positions over the batch before they are embedded"
                )
    _require_all_uses(record, values)
    outputs = [y for trace in record.values() for y in trace.y]
    gradients = iter(torch.autograd.grad(total, outputs, allow_unused=True))
    for trace in record.values():
        found = [next(gradients) for _ in trace.y]
        trace.g = [torch.zeros_like(y) if g is None else g for g, y in zip(found, trace.y, strict=True)]
        trace.y, trace.node = [], []
    return [trace for trace in record.values() if trace.g]


def _require_all_uses(record: dict[str, Trace], values: Tensor) -> None:
    """Raise if a parameter enters the values elsewhere than in its own layer (tied weights): a hook cannot see that."""
    uses: dict[int, int] = {}
    seen, stack = set(), [values.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            variable = getattr(following, "variable", None)
            if variable is not None:
                uses[id(variable)] = uses.get(id(variable), 0) + 1
            else:
                stack.append(following)
    for name, trace in record.items():
        for part, parameter in trace.layer.named_parameters(recurse=False):
            if uses.get(id(parameter), 0) > len(trace.y):
                raise ValueError(
                    f"model: got the parameter {name}.{part} used outside its layer (tied weights), want each used "
                    "in its layer only; pair_gram takes any model"
                )


def factors(trace: Trace) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Pairs `(x, g)` of shapes (N, T, a) and (N, T, b) such that an example's gradient is $\sum_tg_tx_t^\top$.

    A vector of parameters has one such pair with T = 1 and a = 1; calls of a shared layer are lined up along T.
    """
    layer = trace.layer
    if isinstance(layer, nn.Linear):
        x, g = _line_up(trace.x, 1), _line_up(trace.g, 1)
        if layer.weight.requires_grad:
            yield x, g
        if layer.bias is not None and layer.bias.requires_grad:
            yield _vector(g.sum(1))
    elif isinstance(layer, nn.Embedding):
        tokens, g = _line_up(trace.x, 0), _line_up(trace.g, 1)
        if layer.padding_idx is not None:
            g = g * (tokens != layer.padding_idx).unsqueeze(-1)
        yield tokens, g
    elif isinstance(layer, nn.LayerNorm):
        axes = len(layer.normalized_shape)
        x = _line_up([_normalised(x, layer) for x in trace.x], axes)
        g = _line_up(trace.g, axes)
        if layer.weight is not None and layer.weight.requires_grad:
            yield _vector((g * x).sum(1).flatten(1))
        if layer.bias is not None and layer.bias.requires_grad:
            yield _vector(g.sum(1).flatten(1))


def _normalised(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    return nn.functional.layer_norm(x, layer.normalized_shape, eps=layer.eps)


def _line_up(calls: list[Tensor], axes: int) -> Tensor:
    """All calls as one tensor (N, T, ...) whose last `axes` axes are the layer's own."""
    flat = [x.reshape(x.shape[0], -1, *x.shape[x.ndim - axes :]) if axes else x.reshape(x.shape[0], -1) for x in calls]
    return flat[0] if len(flat) == 1 else torch.cat(flat, 1)


def _vector(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """A gradient that is a vector of each example, as factors."""
    return torch.ones_like(gradient[:, :1, None]), gradient.unsqueeze(1)


def summed_gradient(x: Tensor, g: Tensor, rows: int) -> Tensor:
    """The gradient of each example in this layer, shape (N, rows * b); tokens are scattered into `rows` rows."""
    if x.is_floating_point():
        return (x.mT @ g).flatten(1)
    table = g.new_zeros(g.shape[0], rows, g.shape[-1])
    return table.scatter_add(1, x.unsqueeze(-1).expand_as(g), g).flatten(1)


def token_products(x: Tensor, other: Tensor) -> Tensor:
    """Inner products of the inputs at all pairs of positions; equal tokens have product one."""
    if x.is_floating_point():
        return x @ other.mT
    return x.unsqueeze(-1) == other.unsqueeze(-2)

"""Inner products of gradients layer by layer: all that a pass forward and a pass back leave behind is enough."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from lib.checks import ArrayLike, read_size, require_shape
from lib.gradient_entanglement.gram import PairGram, read_examples
from lib.gradient_entanglement.layers import Trace, factors, summed_gradient, token_products, traces
from lib.shapes import Float, Shaped

Model = Callable[[nn.Module, Tensor], Tensor]


def layerwise_pair_gram(
    model: nn.Module,
    logp: Model,
    chosen: Shaped[Tensor, "B ..."] | ArrayLike,
    rejected: Shaped[Tensor, "B ..."] | ArrayLike,
    *,
    chunk_size: int | None = None,
) -> PairGram:
    r"""Inner products of the gradients of B pairs, from one pass forward and back a batch.

    A linear layer $y_t=Ax_t+b$ has the gradient $\sum_t\delta_tx_t^\top$ with the output gradients $\delta_t$. Two
    examples therefore have the inner product
    $$ \Big\langle\sum_t\delta_tx_t^\top,\sum_s\delta'_sx_s'^\top\Big\rangle
    =\sum_{t,s}\langle x_t,x'_s\rangle\langle\delta_t,\delta'_s\rangle , $$
    a product of two Gram matrices: $T^2(d_{in}+d_{out})$ multiplications, while gradients of this layer cost
    $T\,d_{in}d_{out}$. Each layer takes the cheaper of the two, one layer at a time; the gradient of the model is never
    formed. An embedding is a linear layer whose inputs are one-hot.

    Args:
        model: a module all of whose trainable parameters belong to `Linear`, `Embedding` and `LayerNorm` layers, and
            in which examples do not meet each other; every such layer sees examples on its first axis.
        logp: a function of the model and examples (N, ...) that returns their log-probabilities, shape (N,).
        chosen: one example a row, shape (B, ...).
        rejected: the same, with B rows.
        chunk_size: pairs at a time; memory grows with it and not with B. All at once by default.

    Returns:
        `PairGram` of shape (B,).

    Raises:
        ValueError: another number of rows, no trainable parameter, one in another kind of layer or used outside its
            layer, values that are not one number an example, a chunk below 1.

    Source: own extension of Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828; products of Grams after
    Goodfellow (2015), arXiv 1510.01799.

    >>> head = nn.Linear(2, 1, bias=False).double()
    >>> x = torch.tensor([[1.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    >>> layerwise_pair_gram(head, lambda m, rows: m(rows).squeeze(-1), x[:1], x[1:]).wl
    tensor([3.], dtype=torch.float64)
    """
    win, lose = read_examples("chosen", chosen), read_examples("rejected", rejected)
    require_shape("rejected", lose, lose.shape == win.shape, f"{tuple(win.shape)} as chosen")
    parts = []
    for start, stop in _chunks(win.shape[0], chunk_size):
        both = torch.cat([win[start:stop], lose[start:stop]])
        count = stop - start
        layers = [_paired(trace, count) for trace in traces(model, logp, both)]
        parts.append(torch.stack(layers).sum(0))
    grams = torch.cat(parts)
    return PairGram(grams[:, 0, 0], grams[:, 0, 1], grams[:, 1, 1])


def layerwise_kernel(
    model: nn.Module,
    logp: Model,
    examples: Shaped[Tensor, "N ..."] | ArrayLike,
    *,
    chunk_size: int | None = None,
) -> Float[Tensor, "N N"]:
    r"""Tangent kernel of N examples, $\Theta_{ij}=\langle\nabla_\theta\ell_i,\nabla_\theta\ell_j\rangle$.

    Blocks of `chunk_size` examples are taken against each other, layer by layer as in `layerwise_pair_gram`. A block
    is passed through the model again for every block it meets, so that memory is bounded by two blocks and the N by N
    result.

    Args:
        model: as in `layerwise_pair_gram`.
        logp: a function of the model and examples (N, ...) that returns their log-probabilities, shape (N,).
        examples: one a row, shape (N, ...).
        chunk_size: examples of a block; all at once by default.

    Returns:
        Symmetric, shape (N, N).

    Raises:
        ValueError: as in `layerwise_pair_gram`.

    Source: own extension of Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> head = nn.Linear(2, 1, bias=False).double()
    >>> x = torch.tensor([[1.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    >>> layerwise_kernel(head, lambda m, rows: m(rows).squeeze(-1), x)
    tensor([[ 1.,  3.],
            [ 3., 25.]], dtype=torch.float64)
    """
    rows = read_examples("examples", examples)
    blocks = _chunks(rows.shape[0], chunk_size)
    grid: list[list[Tensor]] = [[] for _ in blocks]
    for i, (start, stop) in enumerate(blocks):
        own = traces(model, logp, rows[start:stop])
        for j, (first, last) in enumerate(blocks[: i + 1]):
            other = own if j == i else traces(model, logp, rows[first:last])
            grid[i].append(torch.stack([_crossed(a, b) for a, b in zip(own, other, strict=True)]).sum(0))
        del own
    full = [torch.cat([*grid[i], *(grid[j][i].mT for j in range(i + 1, len(blocks)))], -1) for i in range(len(blocks))]
    return torch.cat(full)


def _chunks(count: int, size: object) -> list[tuple[int, int]]:
    step = count if size is None else read_size("chunk_size", size, 1)
    edges = [*range(0, count, step), count]
    return list(pairwise(edges))


def _paired(trace: Trace, count: int) -> Tensor:
    """Gram of each of `count` pairs in one layer, its trace first chosen and then rejected; shape (count, 2, 2)."""
    total: Tensor | None = None
    table = trace.layer.num_embeddings if isinstance(trace.layer, nn.Embedding) else 0
    for x, g in factors(trace):
        length, width = g.shape[1], table or x.shape[-1]
        if length * (width + g.shape[-1]) * 3 <= 2 * width * g.shape[-1] and length > 1:
            part = _gram_sums(x, g, count)
        else:
            rows = summed_gradient(x, g, table).unflatten(0, (2, count)).transpose(0, 1)
            part = rows @ rows.mT
        total = part if total is None else total + part
    assert total is not None  # a traced layer has a trainable parameter
    return total


def _gram_sums(x: Tensor, g: Tensor, count: int) -> Tensor:
    """Sums over positions of the product of both Grams, for each pair."""
    inputs, outputs = x.split(count), g.split(count)
    ww, wl, ll = (
        (token_products(inputs[a], inputs[b]).to(g) * (outputs[a] @ outputs[b].mT)).sum((-1, -2))
        for a, b in ((0, 0), (0, 1), (1, 1))
    )
    grams: Tensor = torch.stack([ww, wl, wl, ll], -1).unflatten(-1, (2, 2))
    return grams


def _crossed(one: Trace, two: Trace) -> Tensor:
    """Inner products of all examples of one trace with all of another in one layer, shape (N, N')."""
    total: Tensor | None = None
    table = one.layer.num_embeddings if isinstance(one.layer, nn.Embedding) else 0
    for (x, g), (x2, g2) in zip(factors(one), factors(two), strict=True):
        length, width = g.shape[1], table or x.shape[-1]
        if length * length * (width + g.shape[-1]) < width * g.shape[-1]:
            inputs = x.flatten(0, 1), x2.flatten(0, 1)
            joined = token_products(*inputs).to(g) if x.is_floating_point() else (inputs[0][:, None] == inputs[1]).to(g)
            product = joined * (g.flatten(0, 1) @ g2.flatten(0, 1).mT)
            part = product.reshape(x.shape[0], length, x2.shape[0], -1).sum((1, 3))
        else:
            part = summed_gradient(x, g, table) @ summed_gradient(x2, g2, table).mT
        total = part if total is None else total + part
    assert total is not None
    return total

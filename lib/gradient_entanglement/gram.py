"""Inner products of the gradients of a pair: formed from gradients, or from a model given as a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lib.checks import (
    ArrayLike,
    as_float,
    broadcast_batch,
    read_finite,
    read_size,
    require,
    require_nonnegative,
    require_shape,
    through_numpy,
)
from lib.shapes import Float, Real, Shaped


@dataclass(frozen=True, init=False)
class PairGram:
    r"""`ww` $=\|g_w\|^2$, `wl` $=\langle g_w,g_l\rangle$ and `ll` $=\|g_l\|^2$ of each pair.

    Numbers and lists are welcome, and become float64; the three broadcast.

    Raises:
        ValueError: a number that is not finite, a negative square, shapes that do not broadcast.
    """

    ww: Float[Tensor, "*batch"]
    wl: Float[Tensor, "*batch"]
    ll: Float[Tensor, "*batch"]

    def __init__(
        self,
        ww: Real[Tensor, "*#batch"] | ArrayLike,
        wl: Real[Tensor, "*#batch"] | ArrayLike,
        ll: Real[Tensor, "*#batch"] | ArrayLike,
    ) -> None:
        given = (ww, wl, ll)
        like = next((x for x in given if isinstance(x, Tensor) and x.is_floating_point()), None)
        first, inner, second = (as_float(name, x, like=like) for name, x in zip(("ww", "wl", "ll"), given, strict=True))
        batch = broadcast_batch(ww=first.shape, wl=inner.shape, ll=second.shape)
        require_nonnegative("ww", first)
        require("wl", inner.isfinite(), "a finite number", inner)
        require_nonnegative("ll", second)
        for name, x in (("ww", first), ("wl", inner), ("ll", second)):
            object.__setattr__(self, name, x.expand(batch))

    @property
    def cosine(self) -> Float[Tensor, "*batch"]:
        """Cosine of the angle between the two gradients; NaN where one of them is zero."""
        return self.wl / (self.ww.sqrt() * self.ll.sqrt())


def gram_from_gradients(
    grad_w: Real[Tensor, "*#batch P"] | ArrayLike, grad_l: Real[Tensor, "*#batch P"] | ArrayLike
) -> PairGram:
    r"""The three inner products of two gradients.

    Args:
        grad_w: $g_w=\nabla_\theta\ell_w$, shape (*batch, P).
        grad_l: $g_l=\nabla_\theta\ell_l$, shape (*batch, P).

    Returns:
        `PairGram` of shape (*batch,).

    Raises:
        ValueError: shapes that do not fit, a number that is not finite.

    Source: Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> gram_from_gradients([1.0, 0.0], [3.0, 4.0]).cosine
    tensor(0.6000, dtype=torch.float64)
    """
    g_w = read_finite("grad_w", grad_w)
    g_l = read_finite("grad_l", grad_l, like=g_w)
    require_shape("grad_w", g_w, g_w.ndim >= 1, "(*batch, P)")
    require_shape("grad_l", g_l, g_l.ndim >= 1 and g_l.shape[-1] == g_w.shape[-1], f"(*batch, {g_w.shape[-1]})")
    broadcast_batch(grad_w=g_w.shape[:-1], grad_l=g_l.shape[:-1])
    return PairGram(g_w.square().sum(-1), (g_w * g_l).sum(-1), g_l.square().sum(-1))


def pair_gram(
    logp: Callable[[Any, Tensor], Tensor],
    params: Any,
    chosen: Shaped[Tensor, "B ..."] | ArrayLike,
    rejected: Shaped[Tensor, "B ..."] | ArrayLike,
    *,
    chunk_size: int | None = None,
) -> PairGram:
    r"""Inner products of the gradients of B pairs, for any differentiable function of parameters and one example.

    Gradients are taken by `torch.func.grad` under `torch.func.vmap`. For a model made of linear, embedding and
    normalisation layers `layerwise_pair_gram` is faster and forms no gradient of the model.

    Args:
        logp: $\ell(\theta,y)$, a function of the parameters and one example that returns a scalar tensor.
        params: $\theta$: a tensor, or dictionaries, lists and tuples of tensors.
        chosen: one example a row, shape (B, ...); whole numbers stay whole.
        rejected: the same for the other response, with B rows.
        chunk_size: most gradients held at a time, two a pair (at least one pair); all 2B by default.

    Returns:
        `PairGram` of shape (B,).

    Raises:
        ValueError: another number of rows, a `logp` that is no scalar, no floating parameter, a chunk below 1.

    Source: Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828.

    >>> pair_gram(lambda theta, y: (theta * y).sum(), torch.ones(2), [[1.0, 0.0]], [[3.0, 4.0]]).wl
    tensor([3.])
    """
    win, lose = read_examples("chosen", chosen), read_examples("rejected", rejected)
    require_shape("rejected", lose, lose.shape[0] == win.shape[0], f"({win.shape[0]}, ...), a row for each chosen one")
    _require_parameters(params)
    pairs = None if chunk_size is None else max(1, read_size("chunk_size", chunk_size, 1) // 2)

    def scalar(theta: Any, example: Tensor) -> Tensor:
        value = logp(theta, example)
        if not isinstance(value, Tensor) or value.ndim:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"logp: got {got}, want a scalar tensor")
        return value

    gradient = torch.func.grad(scalar)

    def products(one_w: Tensor, one_l: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        g_w, g_l = leaves(gradient(params, one_w)), leaves(gradient(params, one_l))
        return _dot(g_w, g_w), _dot(g_w, g_l), _dot(g_l, g_l)

    return PairGram(*torch.func.vmap(products, chunk_size=pairs)(win, lose))


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of nested dictionaries, lists and tuples, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, Mapping):
        return [leaf for value in tree.values() for leaf in leaves(value)]
    if isinstance(tree, list | tuple):
        return [leaf for value in tree for leaf in leaves(value)]
    raise ValueError(f"params: got a {type(tree).__name__}, want tensors in dictionaries, lists or tuples")


def _require_parameters(params: Any) -> None:
    found = leaves(params)
    if not found or not all(leaf.is_floating_point() for leaf in found):
        kinds = ", ".join(sorted({str(leaf.dtype) for leaf in found})) or "no tensor"
        raise ValueError(f"params: got {kinds}, want differentiable parameters (floating tensors)")


def _dot(first: list[Tensor], second: list[Tensor]) -> Tensor:
    products = [(x * y).sum() for x, y in zip(first, second, strict=True)]
    return torch.stack(products).sum()


def read_examples(name: str, value: Tensor | ArrayLike) -> Tensor:
    """Rows of examples; unlike `as_float` it leaves whole numbers, such as tokens, as they are."""
    try:
        rows = value if isinstance(value, Tensor) else through_numpy(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: got {type(value).__name__}, want numbers") from error
    require_shape(name, rows, rows.ndim >= 1 and rows.shape[0] >= 1, "(B, ...) with B >= 1")
    return rows

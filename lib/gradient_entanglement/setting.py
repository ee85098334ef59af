"""What several kernels read alike: tokens, masks, weights and step sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, read_finite, require, require_shape


def require_vocabulary(name: str, tokens: Tensor, size: int, unused: Tensor | None = None) -> None:
    """Raise unless every token that is used is one of `size`."""
    inside = (tokens >= 0) & (tokens < size)
    holds = inside if unused is None else inside | unused
    require(name, holds, f"whole numbers from 0 to {size - 1}", tokens)


def read_mask(name: str, mask: Tensor | ArrayLike | None, shape: torch.Size, like: Tensor) -> Tensor:
    """Weights of tokens, finite and not negative, shape `shape`: zero leaves a token out; all ones without a mask."""
    if mask is None:
        return torch.ones(shape, dtype=like.dtype, device=like.device)
    weights = mask.to(like) if isinstance(mask, Tensor) else as_float(name, mask, like=like)
    wanted = f"a shape that broadcasts to {tuple(shape)}"
    try:
        weights = weights.expand(shape)
    except RuntimeError as error:
        raise ValueError(f"{name}: got shape {tuple(weights.shape)}, want {wanted}") from error
    require(name, (weights >= 0) & weights.isfinite(), "a finite number >= 0", weights)
    return weights


def read_hidden(name: str, hidden: Tensor | ArrayLike, like: Tensor | None = None) -> Tensor:
    """Hidden states `(*batch, T, d)` of finite numbers."""
    states = read_finite(name, hidden, like=like)
    require_shape(name, states, states.ndim >= 2, "(*batch, T, d)")
    return states

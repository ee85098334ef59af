"""Logits, predictions and mixtures that several test files use."""

from __future__ import annotations

import numpy as np
import torch

from lib.temperature_scaling import IntervalMixture


def problem(seed: int, n: int = 200, k: int = 5, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax at another temperature."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k))
    labels = (z + rng.gumbel(size=(n, k))).argmax(-1)
    return scale * z, labels


def predictions(seed: int, n: int = 500, bias: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    confidence = rng.beta(2, 1, n)
    return confidence, (rng.random(n) < np.clip(confidence - bias, 0, 1)).astype(float)


def moved(mixture: IntervalMixture, device: str, dtype: torch.dtype = torch.float64) -> IntervalMixture:
    lower, upper, weight = (x.to(device, dtype) for x in (mixture.lower, mixture.upper, mixture.weight))
    return IntervalMixture(lower, upper, mixture.label.to(device), weight, mixture.n_classes)

"""The theory at 80 digits, from the paper's two equations and the paper's form of the risk: without `lib`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mpmath as mp
import numpy as np

DIGITS = 80


@dataclass(frozen=True)
class Exact:
    """Effective ridges, sums over modes and errors of one task, correct to double precision."""

    gamma: float
    kappa: float
    modes_learned: float
    modes_learned_squared: float
    test: float
    train: float


def exact(
    eigenvalues: Sequence[float] | np.ndarray,
    n: float,
    k: float,
    ridge: float,
    target_power: Sequence[float] | np.ndarray | None = None,
    noise_variance: float = 0.0,
) -> Exact:
    """Bisection of gamma (n - z)(k - z) = k delta (finite n; k may be infinite), then the paper's risk formula."""
    with mp.workdps(DIGITS):
        lam, delta, noise = [mp.mpf(float(x)) for x in eigenvalues], mp.mpf(float(ridge)), mp.mpf(float(noise_variance))
        power = [mp.mpf(float(x)) for x in (target_power if target_power is not None else [0.0] * len(lam))]
        endless = k == math.inf
        samples, width = mp.mpf(float(n)), mp.mpf(float(0 if endless else k))

        def learned(gamma: mp.mpf) -> mp.mpf:
            return mp.fsum(x / (x + gamma) for x in lam)

        def ridge_too_small(gamma: mp.mpf) -> bool:
            z = learned(gamma)
            if samples <= z or (not endless and width <= z):
                return True
            return bool(gamma * (samples - z) * (1 if endless else 1 - z / width) < delta)

        low, high = mp.mpf(-300), mp.mpf(300)
        for _ in range(int(DIGITS * 3.4)):
            middle = (low + high) / 2
            low, high = (middle, high) if ridge_too_small(mp.exp(middle)) else (low, middle)
        gamma = mp.exp(high)
        z, q = learned(gamma), mp.fsum((x / (x + gamma)) ** 2 for x in lam)
        if endless:
            kappa = gamma
        elif width > samples:
            kappa = gamma * (width - z) / width
        else:  # at ridge zero all features are used up: the width is what limits the fit
            kappa = delta / (samples - z) if delta > 0 else mp.mpf(0)
        part = mp.mpf(1) if endless else width / (width - q)
        bias = mp.fsum(
            (gamma / (x + gamma) - kappa * x / (x + gamma) ** 2 * part) * p for x, p in zip(lam, power, strict=True)
        )
        used = q if endless else (q * (width - 2 * z) + z**2) / (width - q)
        left = 1 - used / samples
        test = (bias + noise) / left if left > mp.mpf(10) ** (-DIGITS // 2) else mp.inf
        train = test * (1 - z / samples) ** 2
        return Exact(*(float(x) for x in (gamma, kappa, z, q, test, train)))

"""What every theory function is given: a spectrum, and sizes, ridge and noise that broadcast over a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, require, require_nonnegative, require_shape
from lib.shapes import Float


def read_eigenvalues(eigenvalues: Tensor | ArrayLike) -> Tensor:
    """Kernel eigenvalues as a tensor `(*batch, M)`: finite, none negative, not all zero."""
    spectrum = as_float("eigenvalues", eigenvalues)
    require_shape("eigenvalues", spectrum, spectrum.ndim > 0 and spectrum.numel() > 0, "(*batch, M) with M >= 1")
    require_nonnegative("eigenvalues", spectrum)
    largest = spectrum.amax(-1)
    require("eigenvalues", largest > 0, "at least one positive eigenvalue", largest)
    return spectrum


def read_power(target_power: Tensor | ArrayLike, spectrum: Tensor) -> Tensor:
    """Squared target coefficients as a tensor `(*batch, M)` with the M of the spectrum: finite, none negative."""
    power = as_float("target_power", target_power, like=spectrum)
    matches = power.ndim > 0 and power.shape[-1] == spectrum.shape[-1]
    require_shape("target_power", power, matches, f"(*batch, {spectrum.shape[-1]}), one entry an eigenvalue")
    require_nonnegative("target_power", power)
    return power


@dataclass(frozen=True)
class Sizes:
    """Samples `n` and features `k` of one common batch shape, and what stays finite when one of them is infinite."""

    n: Float[Tensor, "*batch"]
    k: Float[Tensor, "*batch"]
    smaller: Float[Tensor, "*batch"]  # m = min(n, k)
    samples_surplus: Float[Tensor, "*batch"]  # (n - k)_+, 0 where k is infinite, inf where n is
    features_surplus: Float[Tensor, "*batch"]  # (k - n)_+, 0 where n is infinite, inf where k is
    width_ratio_gap: Float[Tensor, "*batch"]  # chi = |1 - n/k|
    inverse_k: Float[Tensor, "*batch"]

    def detach(self) -> Sizes:
        """The same numbers without their gradient history."""
        return Sizes(*(getattr(self, name).detach() for name in self.__dataclass_fields__))


def read_sizes(n: Tensor | ArrayLike, k: Tensor | ArrayLike, like: Tensor) -> Sizes:
    """Sample and feature numbers, either of which may be infinite, on the device and in the dtype of `like`."""
    samples, features = as_float("n", n, like=like), as_float("k", k, like=like)
    require("n", samples > 0, "a positive number", samples)
    require("k", features > 0, "a positive number", features)
    batch = broadcast_batch(n=samples.shape, k=features.shape)
    samples, features = samples.expand(batch), features.expand(batch)
    no_samples_limit, no_features_limit = samples.isinf(), features.isinf()
    require("n, k", ~(no_samples_limit & no_features_limit), "at most one of them infinite", samples)

    # Infinities are replaced before arithmetic meets them: inf - inf and 0 * inf would poison values or gradients.
    finite_n = torch.where(no_samples_limit, torch.ones_like(samples), samples)
    finite_k = torch.where(no_features_limit, torch.ones_like(features), features)
    difference = finite_n - finite_k
    either = no_samples_limit | no_features_limit
    zero, infinity = torch.zeros_like(difference), torch.full_like(difference, torch.inf)
    # (|x| + x)/2 is exact, and its derivative at n = k is the 1/2 that the smooth sum z + b_min - min(n, k) needs
    more_samples = torch.where(either, zero, (difference.abs() + difference) / 2)
    more_features = torch.where(either, zero, (difference.abs() - difference) / 2)
    gap = torch.where(either, torch.ones_like(difference), difference.abs() / finite_k)
    return Sizes(
        n=samples,
        k=features,
        smaller=torch.where(
            no_samples_limit, finite_k, torch.where(no_features_limit, finite_n, torch.minimum(finite_n, finite_k))
        ),
        samples_surplus=torch.where(no_samples_limit, infinity, more_samples),
        features_surplus=torch.where(no_features_limit, infinity, more_features),
        width_ratio_gap=torch.where(no_samples_limit, infinity, gap),
        inverse_k=torch.where(no_features_limit, zero, 1 / finite_k),
    )


def read_ridge(ridge: Tensor | ArrayLike, like: Tensor) -> Tensor:
    """The ridge, zero or above; infinity is the limit of a predictor that is zero."""
    delta = as_float("ridge", ridge, like=like)
    require("ridge", delta >= 0, "a number >= 0", delta)
    return delta


def read_noise(noise_variance: Tensor | ArrayLike, like: Tensor) -> Tensor:
    """The label noise variance: finite, zero or above."""
    noise = as_float("noise_variance", noise_variance, like=like)
    require_nonnegative("noise_variance", noise)
    return noise

"""What theory says of naive Bayes: a sufficient number of samples, and its exact mean error on two Gaussian classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lib.checks import ArrayLike, as_float, broadcast_batch, read_size, require, shared_kind
from lib.h_consistency.setting import read_number
from lib.shapes import Float, Real

ANGLES, RADII, REACH = 201, 121, 10.0  # nodes in both polar coordinates; half a window in standard deviations
CHUNK = 500  # integrals at once, some 100 MiB in float64 each array


def nb_sample_bound(
    num_features: int, num_classes: int, margin: float | int, floor: float | int, failure: float | int
) -> float:
    r"""Samples per class that suffice for naive Bayes to come near its limit.

    $$8\,\frac{\log(2d_{\rm f}C/\delta_{\rm f})}{(\tau_{\rm m}\vartheta_{\min})^2}$$

    With so many in each class, binary features and equal known priors, with probability at least $1-\delta_{\rm f}$ the
    error exceeds its limit by at most $\Pr(0<\text{margin}\le\tau_{\rm m}d_{\rm f})$.

    Args:
        num_features: $d_{\rm f}\ge1$.
        num_classes: $C\ge2$.
        margin: $\tau_{\rm m}$, the margin per feature that may be lost, in (0, 2].
        floor: $\vartheta_{\min}$, all probabilities of features lie in [floor, 1 - floor]; in (0, 0.5].
        failure: $\delta_{\rm f}$, in (0, 1).

    Returns:
        A number, not rounded.

    Raises:
        ValueError: an argument outside its range.

    Source: own derivation, :prf:ref:`hc-nb-log`; the order log of the features is that of Ng and Jordan (2002).

    >>> round(nb_sample_bound(100, 3, 0.5, 0.2, 0.05))
    7514
    """
    features, classes = read_size("num_features", num_features, 1), read_size("num_classes", num_classes, 2)
    tau = read_number("margin", margin, "0 < margin <= 2", above=0, top=2)
    low = read_number("floor", floor, "0 < floor <= 0.5", above=0, top=0.5)
    rate = read_number("failure", failure, "0 < failure < 1", above=0, top=math.nextafter(1, 0))
    return 8 * math.log(2 * features * classes / rate) / (tau * low) ** 2


def nb_expected_error(
    separation: Real[Tensor, "*#batch"] | ArrayLike,
    num_features: Real[Tensor, "*#batch"] | ArrayLike,
    num_samples: Real[Tensor, "*#batch"] | ArrayLike,
    exact: bool = True,
) -> Float[Tensor, "*batch"]:
    r"""Mean error of the nearest-mean rule on two Gaussian classes with identity covariance.

    The rule depends on its sample through the angle between the true and the estimated difference of means and through
    the midpoint alone. In polar coordinates $(\rho,\psi)$ of (component along the truth, length across), in units of
    $2/\sqrt n$ and with $\kappa=D_{\rm M}\sqrt n/2$, the density is proportional to
    $\rho^{d_{\rm f}-1}\sin^{d_{\rm f}-2}\psi\;e^{-(\rho^2-2\kappa\rho\cos\psi+\kappa^2)/2}$, and the error is
    $\mathrm{tail}\big(\frac{D_{\rm M}\cos\psi}{2\sqrt{1+1/n}}\big)$.

    Args:
        separation: $D_{\rm M}\ge0$, distance of both means in standard deviations.
        num_features: $d_{\rm f}\ge2$; real numbers are welcome.
        num_samples: $n\ge2$, of both classes together, half in each.
        exact: False for the limit of many features,
            $\mathrm{tail}\big(D_{\rm M}^2/(2\sqrt{D_{\rm M}^2+4d_{\rm f}/n})\big)$.

    Returns:
        The common shape of the first three; in (0, 0.5].

    Raises:
        ValueError: a negative separation, fewer than two features or samples, or shapes that do not broadcast.

    Source: own derivation, :prf:ref:`hc-nb-exact`; the limit is that of Raudys.

    >>> nb_expected_error(2.0, 30, 20), nb_expected_error(2.0, 30, 20, exact=False)
    (tensor(0.2693, dtype=torch.float64), tensor(0.2635, dtype=torch.float64))
    """
    like = shared_kind(separation, num_features, num_samples)
    distance = as_float("separation", separation, like=like)
    features, samples = (
        as_float("num_features", num_features, like=like),
        as_float("num_samples", num_samples, like=like),
    )
    require("separation", (distance >= 0) & distance.isfinite(), "a finite number >= 0", distance)
    require("num_features", (features >= 2) & features.isfinite(), "a finite number >= 2", features)
    require("num_samples", (samples >= 2) & samples.isfinite(), "a finite number >= 2", samples)
    batch = broadcast_batch(separation=distance.shape, num_features=features.shape, num_samples=samples.shape)
    if not exact:
        reduced = distance.square() / (2 * (distance.square() + 4 * features / samples).sqrt())
        simple: Tensor = torch.special.ndtr(-reduced)
        return simple.expand(batch)
    columns = [x.expand(batch).reshape(-1, 1, 1).split(CHUNK) for x in (distance, features, samples)]
    return torch.cat([_mean_error(*part) for part in zip(*columns, strict=True)]).reshape(batch)


def _mean_error(distance: Tensor, features: Tensor, samples: Tensor) -> Tensor:
    """The integral over angle and radius, for columns of shape `(count, 1, 1)`."""
    kappa = distance * samples.sqrt() / 2
    length = (kappa.square() + features - 1).sqrt()  # where the radius concentrates
    centre = torch.atan2((features - 1.5).sqrt(), kappa)
    psi, step = _window((centre - REACH / length).clamp_min(0), (centre + REACH / length).clamp_max(math.pi), ANGLES)
    rho, radial = _window((length - REACH).clamp_min(0), length + REACH, RADII)
    psi, step = psi.mT, step.mT
    across, along = psi.sin().clamp_min(1e-30), psi.cos()  # rounding may lead beyond pi
    log_density = torch.xlogy(features - 2, across) + torch.xlogy(features - 1, rho)
    log_density = log_density - ((rho - kappa * along).square() + (kappa * across).square()) / 2
    mass = (log_density - log_density.amax((-2, -1), keepdim=True)).exp() * step * radial
    error = torch.special.ndtr(-distance * along / (2 * (1 + 1 / samples).sqrt()))
    mean: Tensor = (mass * error).sum((-2, -1)) / mass.sum((-2, -1))
    return mean


def _window(low: Tensor, high: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Nodes of an interval and their weights, on a last axis: trapezoid rule after a double-exponential map."""
    s = torch.linspace(-3.0, 3.0, count, dtype=low.dtype, device=low.device)
    inner = math.pi / 2 * s.sinh()
    half = (high - low) / 2
    weight = s.cosh() / inner.cosh().square()
    return low + 2 * half * torch.sigmoid(2 * inner), half * weight

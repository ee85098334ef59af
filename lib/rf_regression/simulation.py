"""Random-feature ridge regression itself: Gaussian data, Gaussian features, a fit, and its exact test error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import ArrayLike, read_single, read_size, require_shape
from lib.rf_regression.setting import read_eigenvalues, read_noise, read_power, read_ridge
from lib.shapes import Float, Real

BUDGET = 1 << 22  # random numbers held at a time: 32 MB in float64


@dataclass(frozen=True)
class SimulatedRisk:
    """Mean errors over the trials, and the standard errors of these means (NaN for a single trial)."""

    test: Float[Tensor, "*batch"]
    train: Float[Tensor, "*batch"]
    test_stderr: Float[Tensor, "*batch"]
    train_stderr: Float[Tensor, "*batch"]


def simulate_rf_ridge(
    eigenvalues: Real[Tensor, " M"] | ArrayLike,
    target_power: Real[Tensor, " M"] | ArrayLike,
    n: Real[Tensor, ""] | ArrayLike,
    k: Real[Tensor, ""] | ArrayLike,
    ridge: Real[Tensor, "*batch"] | ArrayLike,
    noise_variance: Real[Tensor, ""] | ArrayLike = 0.0,
    *,
    num_trials: int,
    generator: torch.Generator,
) -> SimulatedRisk:
    r"""Fit random-feature ridge regressions and measure their errors; no theory enters.

    Each trial draws data $X\in\mathbb R^{n\times M}$, weights $\Xi\in\mathbb R^{M\times k}$ and label noise, all
    standard normal, forms features $Z=XF$ with $F=\Lambda^{1/2}\Xi/\sqrt k$ and labels $y=Xv+\sigma\epsilon$, and fits
    $\hat c=(Z^\top Z+\delta)^{-1}Z^\top y$ (at $\delta=0$ by the pseudo-inverse). With $\hat\beta=F\hat c$ the error on
    a fresh sample is exactly $|\hat\beta-v|^2+\sigma^2$, so no test sample is drawn. One singular value decomposition
    serves all ridges. Infinitely many features are the kernel itself: $F=\Lambda^{1/2}$.

    Args:
        eigenvalues: $\lambda_i$, shape (M,).
        target_power: $v_i^2$, shape (M,); the coefficients are their square roots.
        n: training samples.
        k: random features, or `math.inf`.
        ridge: $\delta$, any number of ridges to which every draw is fitted, shape (*batch,).
        noise_variance: $\sigma^2$ of the labels; the test error includes it.
        num_trials: independent draws to average over.
        generator: source of all randomness; its device is where the work is done.

    Returns:
        All of shape (*batch,).

    Raises:
        ValueError: a negative or NaN ridge, eigenvalue, power or noise, n, k or num_trials below 1 or not whole.

    Source: Simon, Karkada, Ghosh and Belkin (ICLR 2024), arXiv 2311.14646 (Gaussian random features).

    >>> draw = torch.Generator().manual_seed(0)
    >>> risk = simulate_rf_ridge([1.0] * 20, [0.05] * 20, 40, float("inf"), 0.0, 1.0, num_trials=400, generator=draw)
    >>> bool((risk.test - 40 / (40 - 20 - 1)).abs() < 4 * risk.test_stderr)  # Gaussian least squares
    True
    """
    spectrum = read_eigenvalues(eigenvalues).to(generator.device)
    power = read_power(target_power, spectrum)
    require_shape("eigenvalues", spectrum, spectrum.ndim == 1, "(M,)")
    require_shape("target_power", power, power.ndim == 1, "(M,)")
    delta, noise = read_ridge(ridge, like=spectrum), read_noise(noise_variance, like=spectrum)
    require_shape("noise_variance", noise, noise.ndim == 0, "a single number")
    if n == math.inf and k == math.inf:
        raise ValueError("n and k: got both infinite, want at least one finite")
    samples, num_trials = _read_count("n", n), read_size("num_trials", num_trials, 1)
    width = None if k == math.inf else _read_count("k", k)
    modes, count = spectrum.shape[0], width or spectrum.shape[0]
    draws, decomposition = modes * (samples + (width or 0) + delta.numel()), 3 * samples * count  # of one trial
    together = max(1, min(num_trials, BUDGET // (draws + decomposition)))
    tests, trains = [], []
    for start in range(0, num_trials, together):
        trials = min(together, num_trials - start)
        test, train = _trials(spectrum, power.sqrt(), samples, width, delta.flatten(), noise, trials, generator)
        tests.append(test)
        trains.append(train)
    (test, test_error), (train, train_error) = (_mean_and_error(torch.cat(parts)) for parts in (tests, trains))
    return SimulatedRisk(*(x.reshape(delta.shape) for x in (test, train, test_error, train_error)))


def _read_count(name: str, value: object) -> int:
    number = read_single(name, value, "a whole number >= 1")
    if not 1 <= number < math.inf or number != int(number):
        raise ValueError(f"{name}: got {value!r}, want a whole number >= 1")
    return int(number)


def _mean_and_error(samples: Tensor) -> tuple[Tensor, Tensor]:
    count = samples.shape[0]
    if count == 1:
        return samples.squeeze(0), torch.full_like(samples.squeeze(0), torch.nan)
    return samples.mean(0), samples.std(0) / math.sqrt(count)


def _trials(
    spectrum: Tensor,
    target: Tensor,
    n: int,
    k: int | None,
    ridge: Tensor,
    noise: Tensor,
    trials: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Test and train errors of all trials and ridges, each `(trials, R)`."""
    num_modes, root = spectrum.shape[0], spectrum.sqrt()

    def draw(*shape: int) -> Tensor:
        return torch.randn(trials, *shape, generator=generator, dtype=root.dtype, device=root.device)

    labels = noise.sqrt() * draw(n, 1)
    if k is None:
        data = draw(n, num_modes)
        labels = labels + (data @ target).unsqueeze(-1)
        weights, train = _fit(data * root, labels, ridge)
        return (root.unsqueeze(-1) * weights - target.unsqueeze(-1)).square().sum(-2) + noise, train

    # Modes come in blocks. If one block holds them all its weights are kept; otherwise they are drawn again from the
    # same state of the generator when the fit is done, because all of them together may not fit into memory.
    block = max(1, BUDGET // (trials * (n + k + ridge.shape[0])))
    blocks = [slice(start, min(start + block, num_modes)) for start in range(0, num_modes, block)]
    state = generator.get_state()
    features, projection = labels.new_zeros(trials, n, k), root.new_zeros(0)
    for part in blocks:
        data, projection = draw(n, part.stop - part.start), draw(part.stop - part.start, k)
        projection = projection * (root[part] / math.sqrt(k)).unsqueeze(-1)
        features = torch.baddbmm(features, data, projection)
        labels = labels + (data @ target[part]).unsqueeze(-1)
    weights, train = _fit(features, labels, ridge)

    error = torch.zeros_like(train)
    if len(blocks) > 1:
        generator.set_state(state)
    for part in blocks:
        if len(blocks) > 1:
            draw(n, part.stop - part.start)
            projection = draw(part.stop - part.start, k) * (root[part] / math.sqrt(k)).unsqueeze(-1)
        error = error + (projection @ weights - target[part].unsqueeze(-1)).square().sum(-2)
    return error + noise, train


def _fit(features: Tensor, labels: Tensor, ridge: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression weights `(trials, k, R)` and train errors `(trials, R)` for all ridges at once."""
    left, singular, right = torch.linalg.svd(features, full_matrices=False)
    cut = singular.amax(-1, keepdim=True) * max(features.shape[-2:]) * torch.finfo(singular.dtype).eps
    # at ridge 0 directions below rounding error carry no information: the pseudo-inverse leaves them out
    present = (singular > cut).unsqueeze(-1) | (ridge > 0)
    square = singular.square().unsqueeze(-1) + ridge
    square = torch.where(present, square, torch.ones_like(square))
    seen = left.mT @ labels  # (trials, r, 1)
    weights = right.mT @ torch.where(present, singular.unsqueeze(-1) / square * seen, torch.zeros_like(square))
    shrunk = torch.where(present, singular.square().unsqueeze(-1) / square, torch.zeros_like(square))
    return weights, (labels - left @ (shrunk * seen)).square().mean(-2)

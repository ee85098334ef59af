"""The chapter's quantities by their definitions, in numpy and scipy, one number after the other: without `lib`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import integrate, optimize, special, stats

Array = np.ndarray


def interpolator_table(overlap: float, n_classes: int, group_size: int) -> Array:
    """P(label = row, prediction = column): equal in a private region, independent within the group in a common one."""
    table = np.zeros((n_classes, n_classes))
    for y in range(n_classes):
        table[y, y] += (1 - overlap) / n_classes
        first = y - y % group_size
        table[y, first : first + group_size] += overlap / (n_classes * group_size)
    return table


def confidence_nll(confidence: float, error: float, n_classes: int) -> float:
    """Expected -log p of a prediction that gives its top class `confidence` and all others the same rest."""
    rest = (1 - confidence) / (n_classes - 1)
    return -float(special.xlogy(1 - error, confidence) + special.xlogy(error, rest))


@dataclass(frozen=True)
class Risks:
    """What `overlap_risks` returns, from the table of labels and predictions."""

    error: float
    bayes_nll: float
    uniform_nll: float
    scaled_nll: float
    recalibrated_nll: float
    scaled_logit_gap: float


def risks(overlap: float, n_classes: int, group_size: int) -> Risks:
    """The best temperature by a search over the logit gap, conditional entropies by summation."""
    table = interpolator_table(overlap, n_classes, group_size)
    error = float(1 - np.trace(table))

    def nll(gap: float) -> float:
        correct, wrong = 1 / (1 + (n_classes - 1) * math.exp(-gap)), math.exp(-gap)
        return -math.log(correct) - error * math.log(wrong)

    slope = [optimize.approx_fprime(np.array([g]), lambda x: nll(float(x[0])), 1e-7)[0] for g in (0.0, 40.0)]
    gap = math.inf if slope[1] <= 0 else 0.0
    if slope[0] < -1e-6 and slope[1] > 0:
        found = optimize.minimize_scalar(nll, bounds=(0, 40), method="bounded", options={"xatol": 1e-10})
        gap = float(found.x)
    given = table / table.sum(0)
    posterior = np.array([[1.0] + [0.0] * (group_size - 1), [1 / group_size] * group_size])
    entropy = special.entr(posterior).sum(1)
    return Risks(
        error,
        float((1 - overlap) * entropy[0] + overlap * entropy[1]),
        math.log(n_classes),
        0.0 if gap == math.inf else nll(gap),
        float((table.sum(0) * special.entr(given).sum(0)).sum()),
        gap,
    )


def lower_bound(error: float, n_classes: float, gap_ratio: float) -> float:
    """The smallest value over t >= 0 of log(1 + (k - 1) e^(-rho t)) + eps t, by a search."""

    def value(t: float) -> float:
        return math.log1p((n_classes - 1) * math.exp(-gap_ratio * t)) + error * t

    far = 60.0 / gap_ratio
    found = optimize.minimize_scalar(value, bounds=(0, far), method="bounded", options={"xatol": 1e-12})
    return min(value(0.0), float(found.fun), value(far))


@dataclass(frozen=True)
class Pieces:
    """Uniform pieces [lower, upper] with a label and a weight."""

    lower: Array
    upper: Array
    label: Array
    weight: Array
    n_classes: int

    def density(self, x: float) -> Array:
        """P(Y = y) p(x | y) for each class."""
        joint = np.zeros(self.n_classes)
        for a, b, y, w in zip(self.lower, self.upper, self.label, self.weight, strict=True):
            joint[y] += w / (b - a) * (a <= x <= b)
        return joint


def pieces(overlap: float, n_classes: int, group_size: int = 2, spacing: float = 3.0) -> Pieces:
    """The common region of a group is [c, c + alpha]; pairs go on to both sides, more classes to the right."""
    rows: list[tuple[float, float, int, float]] = []
    for y in range(n_classes):
        place, c = y % group_size, spacing * (y // group_size)
        if group_size == 2:
            start = c + place * (1 - overlap)
            rows.append((start, start + 1, y, 1 / n_classes))
            continue
        own = c + overlap + place * (1 - overlap)
        rows.append((c, c + overlap, y, overlap / n_classes))
        rows.append((own, own + 1 - overlap, y, (1 - overlap) / n_classes))
    kept = [row for row in rows if row[3] > 0]
    lower, upper, label, weight = (np.array(x) for x in zip(*kept, strict=True))
    return Pieces(lower, upper, label, weight, n_classes)


def mixup_intervals(mixture: Pieces, z: float, alpha: float, nodes: int = 20_000) -> Array:
    """E[lambda 1{Y_1} + (1 - lambda) 1{Y_2} | Z = z] by the midpoint rule in the quantiles of lambda."""
    lam = stats.beta.ppf((np.arange(nodes) + 0.5) / nodes, alpha, alpha)
    lam = np.clip(lam, 1e-15, 1 - 1e-15)
    top, bottom = np.zeros(mixture.n_classes), 0.0
    rows = list(zip(mixture.lower, mixture.upper, mixture.label, mixture.weight, strict=True))
    for a, b, y, w in rows:
        for c, d, other, v in rows:
            width = np.minimum(lam * b, z - (1 - lam) * c) - np.maximum(lam * a, z - (1 - lam) * d)
            density = w * v * np.clip(width, 0, None) / (lam * (1 - lam) * (b - a) * (d - c))
            top[y] += (lam * density).mean()
            top[other] += ((1 - lam) * density).mean()
            bottom += density.mean()
    return top / bottom


def mixup_gaussian(x: Array, means: Array, sigma: float, prior: Array, alpha: float) -> Array:
    """The same for isotropic Gaussian classes, by adaptive quadrature in lambda, scaled by the largest density."""
    k, d = means.shape

    def log_density(lam: float, i: int, j: int) -> float:
        variance = sigma**2 * (lam**2 + (1 - lam) ** 2)
        away = x - lam * means[i] - (1 - lam) * means[j]
        return float(-0.5 * d * math.log(variance) - 0.5 * (away @ away) / variance)

    grid = np.linspace(1e-6, 1 - 1e-6, 401)
    best = max(log_density(t, i, j) for t in grid for i in range(k) for j in range(k))
    top = np.zeros(k)
    for i in range(k):
        for j in range(k):

            def moment(power: int, start: float, end: float, i: int = i, j: int = j) -> float:
                def integrand(t: float) -> float:
                    share = t if power else 1 - t
                    return math.exp(log_density(t, i, j) - best) * share * float((t * (1 - t)) ** (alpha - 1))

                return float(integrate.quad(integrand, start, end, epsabs=1e-13, epsrel=1e-11, limit=200)[0])

            for power, y in ((1, i), (0, j)):
                panels = ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1))
                top[y] += prior[i] * prior[j] * sum(moment(power, *ends) for ends in panels)
    probs: Array = top / top.sum()
    return probs


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    return np.asarray(special.softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=-1))


def nll_at(beta: float, logits: Array, labels: Array) -> float:
    """Mean negative log-likelihood of softmax(beta z)."""
    logp = special.log_softmax(beta * np.asarray(logits, dtype=np.float64), axis=-1)
    return float(-logp[np.arange(len(labels)), labels].mean())


def nll_slope(beta: float, logits: Array, labels: Array) -> float:
    """Its derivative in beta: the mean of E_p[z] - z_y."""
    z = np.asarray(logits, dtype=np.float64)
    p = special.softmax(beta * z, axis=-1)
    return float(((p * z).sum(-1) - z[np.arange(len(labels)), labels]).mean())


def temperature(logits: Array, labels: Array, bounds: tuple[float, float] = (1e-3, 1e3)) -> float:
    """The root of the slope by Brent's method, or the bound beyond which it lies."""
    low, high = 1 / bounds[1], 1 / bounds[0]
    if nll_slope(low, logits, labels) >= 0:
        return bounds[1]
    if nll_slope(high, logits, labels) <= 0:
        return bounds[0]
    root = optimize.brentq(lambda s: nll_slope(math.exp(s), logits, labels), math.log(low), math.log(high), xtol=1e-14)
    return math.exp(-root)


def binned_error(
    confidence: Sequence[float] | Array,
    outcome: Sequence[float] | Array,
    n_bins: int = 15,
    bins: str = "width",
    norm: float | str = 1,
    debias: bool = False,
) -> float:
    """Bin after bin, as the papers define it: (i/B, (i + 1)/B] with 0 in the first, or equal parts of the sorted."""
    conf, hit = np.asarray(confidence, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    if bins == "width":
        edges = [i / n_bins for i in range(n_bins + 1)]
        members = [np.flatnonzero((conf > a) & (conf <= b)) for a, b in itertools.pairwise(edges)]
        members[0] = np.flatnonzero(conf <= edges[1])
    else:
        members = np.array_split(np.argsort(conf, kind="stable"), n_bins)
    members = [m for m in members if len(m)]
    gaps = np.array([abs(conf[m].mean() - hit[m].mean()) for m in members])
    share = np.array([len(m) / len(conf) for m in members])
    if norm == "max":
        return float(gaps.max())
    if norm == "mean":
        return float(gaps.mean())
    if norm == 1:
        return float((share * gaps).sum())
    squares = gaps**2
    if debias:
        squares = squares - np.array(
            [hit[m].mean() * (1 - hit[m].mean()) / (len(m) - 1) if len(m) > 1 else 0.0 for m in members]
        )
    return math.sqrt(max(float((share * squares).sum()), 0.0))


def smooth_error_at(confidence: Array, outcome: Array, bandwidth: float) -> float:
    """L1 norm on [0, 1] of the residuals spread by the Gaussian kernel reflected at 0 and 1, summed over images."""
    f, y = np.asarray(confidence, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    t = (np.arange(20_000) + 0.5) / 20_000
    reach = math.ceil(5 * bandwidth) + 1
    spread = np.zeros_like(t)
    for fi, yi in zip(f, y, strict=True):
        for whole in range(-reach, reach + 1):
            for image in (2 * whole + fi, 2 * whole - fi):
                spread += (yi - fi) * np.exp(-0.5 * ((t - image) / bandwidth) ** 2)
    spread /= len(f) * bandwidth * math.sqrt(2 * math.pi)
    return float(np.abs(spread).mean())


def smooth_error(confidence: Array, outcome: Array) -> float:
    """The bandwidth at which the smoothed error equals the bandwidth."""

    def excess(bandwidth: float) -> float:
        return smooth_error_at(confidence, outcome, bandwidth) - bandwidth

    return float(optimize.brentq(excess, 1e-3, 1.0, xtol=1e-7))


def kl_parts(probs: Array, posterior: Array, group: Array, weight: Array | None = None) -> tuple[float, float, float]:
    """Total, calibration and grouping part of E KL(posterior || probs), group by group."""
    w = np.full(len(probs), 1.0) if weight is None else np.asarray(weight, dtype=np.float64)
    w = w / w.sum()
    total = float((w * special.rel_entr(posterior, probs).sum(-1)).sum())
    calibration = grouping = 0.0
    for g in np.unique(group):
        inside = group == g
        mass = w[inside].sum()
        if mass == 0:
            continue
        mean = (w[inside][:, None] * posterior[inside]).sum(0) / mass
        calibration += mass * special.rel_entr(mean, probs[inside][0]).sum()
        grouping += float((w[inside] * special.rel_entr(posterior[inside], mean[None]).sum(-1)).sum())
    return total, float(calibration), float(grouping)

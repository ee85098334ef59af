"""Neural collapse from its definitions: plain loops in numpy, scipy and mpmath, without a line of `lib`."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import mpmath
import numpy as np
import torch
from scipy import linalg, optimize, special

Array = np.ndarray


# Features near the collapse, and its metrics


@dataclass(frozen=True)
class Layer:
    """Features with their labels, and a head."""

    features: Array
    labels: Array
    weight: Array
    bias: Array


def layer(seed: int, counts: list[int], dim: int, noise: float = 1.0, offset: float = 2.0) -> Layer:
    """Noisy classes of the given sizes around random means, in random order, and a head that is right now and then."""
    rng = np.random.default_rng(seed)
    classes = len(counts)
    means = rng.normal(size=(classes, dim)) + offset * rng.normal(size=dim)
    labels = rng.permutation(np.repeat(np.arange(classes), counts))
    features = means[labels] + noise * rng.normal(size=(len(labels), dim))
    return Layer(features, labels, means + rng.normal(size=means.shape), rng.normal(size=classes))


def class_means(x: Layer) -> Array:
    """One mean a class."""
    return np.stack([x.features[x.labels == k].mean(0) for k in range(len(x.weight))])


def metrics(x: Layer) -> dict[str, float]:
    """The five metrics: outer products sample by sample, scipy's pseudoinverse, and loops over pairs of classes."""
    classes, count = len(x.weight), len(x.labels)
    means = class_means(x)
    centred = means - means.mean(0)
    within = sum(np.outer(h - means[y], h - means[y]) for h, y in zip(x.features, x.labels, strict=True)) / count
    between = sum(np.outer(row, row) for row in centred) / classes
    lengths = np.array([math.sqrt(row @ row) for row in centred])
    angles = [
        abs(centred[k] @ centred[j] / (lengths[k] * lengths[j]) + 1 / (classes - 1))
        for k, j in itertools.permutations(range(classes), 2)
    ]
    apart = x.weight / linalg.norm(x.weight) - centred / linalg.norm(centred)
    differ = 0
    for h in x.features:
        scores = [w @ h + b for w, b in zip(x.weight, x.bias, strict=True)]
        distances = [((h - mean) ** 2).sum() for mean in means]
        differ += int(np.argmax(scores) != np.argmin(distances))
    return {
        "nc1": np.trace(within @ linalg.pinv(between, rtol=1e-12)) / classes,
        "nc2_norm": lengths.std() / lengths.mean(),
        "nc2_angle": float(np.mean(angles)),
        "nc3": (apart**2).sum(),
        "nc4": differ / count,
    }


# The two losses and what they pull on


def binary_kl(student: Array, teacher: Array, temperature: float, variant: str = "plain") -> float:
    """Mean over samples of T^2 times the sum over classes of the Kullback-Leibler divergence of two coins."""
    total = 0.0
    for z, tau in zip(student.ravel(), teacher.ravel(), strict=True):
        target, got = (tau, z) if variant == "plain" else (0.0, z - tau)
        heads = special.rel_entr(special.expit(target / temperature), special.expit(got / temperature))
        tails = special.rel_entr(special.expit(-target / temperature), special.expit(-got / temperature))
        total += temperature**2 * (heads + tails)
    return float(total / len(student))


def precise_binary_kl(
    student: float, teacher: float, temperature: float, variant: str = "plain", step: float = 0
) -> mpmath.mpf:
    """One class of one sample, for logits of any size: digits enough that no exponential is lost."""
    with mpmath.workdps(60 + int((abs(student) + abs(teacher)) / temperature)):
        z, tau, heat = mpmath.mpf(student) + step, mpmath.mpf(teacher), mpmath.mpf(temperature)
        target, got = (tau, z) if variant == "plain" else (mpmath.mpf(0), z - tau)
        p, q = (1 / (1 + mpmath.exp(-x / heat)) for x in (target, got))
        return heat**2 * (p * mpmath.log(p / q) + (1 - p) * mpmath.log((1 - p) / (1 - q)))


def precise_binary_kl_residual(student: float, teacher: float, temperature: float, variant: str = "plain") -> float:
    """Its derivative in the student's logit, as a central difference with digits to spare."""
    with mpmath.workdps(60 + int((abs(student) + abs(teacher)) / temperature)):
        step = mpmath.mpf(10) ** -20
        above, below = (precise_binary_kl(student, teacher, temperature, variant, sign * step) for sign in (1, -1))
        return float((above - below) / (2 * step))


def cross_entropy_residual(logits: Array, labels: Array) -> Array:
    """Softmax minus the indicator of the label."""
    residual: Array = special.softmax(logits, -1)
    residual[np.arange(len(labels)), labels] -= 1
    return residual


def gradients(residual: Array, features: Array, weight: Array) -> tuple[Array, Array]:
    """The chain rule through logits W h, summed sample by sample and class by class."""
    on_weight, on_features = np.zeros_like(weight), np.zeros_like(features)
    for i, k in np.ndindex(residual.shape):
        on_weight[k] += residual[i, k] * features[i] / len(residual)
        on_features[i] += residual[i, k] * weight[k] / len(residual)
    return on_weight, on_features


def pull_push(residual: Array, labels: Array, features: Array) -> tuple[Array, Array]:
    """Forces on each row of the head: from samples of its class, and from all others."""
    pull, push = (np.zeros((residual.shape[1], features.shape[1])) for _ in range(2))
    for i, k in np.ndindex(residual.shape):
        side = pull if labels[i] == k else push
        side[k] -= residual[i, k] * features[i] / len(residual)
    return pull, push


# The collapsed layer


def simplex(classes: int, dim: int, rng: np.random.Generator | None = None) -> Array:
    """Unit vectors to the corners of a simplex, from the QR factors of the centred indicators, turned at random."""
    basis = linalg.svd(np.eye(classes) - 1 / classes)[0][:, : classes - 1]
    corners = np.zeros((classes, dim))
    corners[:, : classes - 1] = basis * math.sqrt(classes / (classes - 1))
    return corners if rng is None else corners @ linalg.qr(rng.normal(size=(dim, dim)))[0]


@dataclass(frozen=True)
class Collapsed:
    """Gradients at a collapsed layer by automatic differentiation, one sample a class: the setting of the theorem."""

    ce: float
    logit: float
    common: float
    cosine: float
    feature_cosine: float


def collapsed(
    student_gap: float,
    teacher_gap: float,
    classes: int,
    temperature: float,
    student_offset: float = 0.0,
    teacher_offset: float = 0.0,
    mean_ratio: float = 0.0,
) -> Collapsed:
    """Class means on a simplex around a mean m, a head with exactly the wanted logits, both losses differentiated."""
    rng = np.random.default_rng(0)
    dim = classes + 3
    spread = simplex(classes, dim, rng) * 1.7
    middle = rng.normal(size=dim)
    middle *= math.sqrt(mean_ratio * (spread**2).sum() / classes / (middle @ middle))
    centre = np.eye(classes) - 1 / classes
    features = torch.tensor(spread + middle, requires_grad=True)
    wanted = student_gap * centre + student_offset
    if mean_ratio:
        head = linalg.lstsq(spread + middle, wanted)[0].T
        weight = torch.tensor(head, requires_grad=True)
        logits = features @ weight.mT
    else:  # a centred layer has no direction for a common shift: it comes as a bias
        weight = torch.tensor((linalg.pinv(spread) @ (student_gap * centre)).T, requires_grad=True)
        logits = features @ weight.mT + student_offset
    assert np.abs(logits.detach().numpy() - wanted).max() < 1e-9
    teacher = torch.tensor(teacher_gap * centre + teacher_offset)
    cross = torch.nn.functional.cross_entropy(logits, torch.arange(classes))
    p, q = torch.sigmoid(teacher / temperature), torch.sigmoid(logits / temperature)
    p_not, q_not = torch.sigmoid(-teacher / temperature), torch.sigmoid(-logits / temperature)
    distil = temperature**2 * (p * (p / q).log() + p_not * (p_not / q_not).log()).sum(-1).mean()
    pairs = [torch.autograd.grad(loss, (weight, features), retain_graph=True) for loss in (cross, distil)]
    (ce_w, ce_h), (kl_w, kl_h) = ([g.numpy() for g in pair] for pair in pairs)
    along = (spread**2).sum()
    return Collapsed(
        ce=float(-(ce_w * spread).sum() / along),
        logit=float((kl_w * spread).sum() / along),
        common=float((kl_w @ middle).mean() / (middle @ middle)) if mean_ratio else math.nan,
        cosine=_cosine(ce_w, kl_w),
        feature_cosine=_cosine(ce_h, kl_h),
    )


def _cosine(x: Array, y: Array) -> float:
    return float((x * y).sum() / (linalg.norm(x) * linalg.norm(y)))


def conflict_gap(
    teacher_gap: float, classes: int, temperature: float, student_offset: float = 0.0, teacher_offset: float = 0.0
) -> float:
    """The student's gap with the teacher's difference of sigmoids, by bisection with digits for any saturation."""
    reach = abs(teacher_gap) + classes * (abs(student_offset) + abs(teacher_offset)) + 1
    with mpmath.workdps(60 + int((abs(teacher_gap) + abs(student_offset) + abs(teacher_offset)) / temperature)):
        heat, b_s, b_t = (mpmath.mpf(x) for x in (temperature, student_offset, teacher_offset))
        goal = _coins(mpmath.mpf(teacher_gap), classes, heat, b_t)
        low, high = mpmath.mpf(0), mpmath.mpf(4 * reach + 50 * classes * temperature)
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if _coins(middle, classes, heat, b_s) < goal else (low, middle)
        return float(low)


def _coins(gap: mpmath.mpf, classes: int, heat: mpmath.mpf, offset: mpmath.mpf) -> mpmath.mpf:
    true, other = ((classes - 1) * gap / classes + offset, -gap / classes + offset)
    return 1 / (1 + mpmath.exp(-true / heat)) - 1 / (1 + mpmath.exp(-other / heat))


# The penalised model


def ufm_gap(classes: int, per_class: float, lambda_w: float, lambda_h: float) -> tuple[float, float]:
    """Gap and loss of the best collapsed solution: a minimum on a line, found without its derivative's root."""
    c = math.sqrt(per_class * lambda_w * lambda_h)

    def loss(s: float) -> float:
        return math.log1p((classes - 1) * math.exp(-s)) + c * (classes - 1) * s

    best = optimize.minimize_scalar(loss, bounds=(0, 60), method="bounded", options={"xatol": 1e-12})
    return float(best.x), float(best.fun)


def ufm_by_descent(labels: Array, classes: int, lambda_w: float, lambda_h: float, seed: int = 0) -> tuple[Array, Array]:
    """The whole problem from random features and head, by L-BFGS: head and features at the end."""
    rng, count, dim = np.random.default_rng(seed), len(labels), classes + 1
    onehot = np.eye(classes)[labels]

    def value(flat: Array) -> tuple[float, Array]:
        W, H = np.split(flat.reshape(-1, dim), [classes])
        logits = H @ W.T
        R = (special.softmax(logits, -1) - onehot) / count
        loss = (special.logsumexp(logits, -1) - logits[np.arange(count), labels]).mean()
        loss += lambda_w / 2 * (W**2).sum() + lambda_h / 2 * (H**2).sum()
        return loss, np.concatenate([R.T @ H + lambda_w * W, R @ W + lambda_h * H]).ravel()

    W, H = _descend(value, rng.normal(size=(classes + count) * dim) * 0.3, dim, [classes])
    return W, H


def _descend(value: object, start: Array, dim: int, cuts: list[int]) -> tuple[Array, ...]:
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-16, "gtol": 1e-12, "maxcor": 30}
    for _ in range(3):  # restarts drop the line search's stale curvature
        start = optimize.minimize(value, start, jac=True, method="L-BFGS-B", options=options).x
    return tuple(np.split(start.reshape(-1, dim), cuts))


def flow_time(gap: float, initial_gap: float, classes: int, per_class: float) -> float:
    """The separated equation ds/dt = 2 s / (sqrt(n) (e^s + K - 1)), integrated with 30 digits."""
    with mpmath.workdps(30):
        integral = mpmath.quad(lambda s: (mpmath.exp(s) + classes - 1) / s, mpmath.linspace(initial_gap, gap, 12))
        return float(mpmath.sqrt(per_class) / 2 * integral)


# Distillation on one head or two


@dataclass(frozen=True)
class Distilled:
    """A setting of distillation in the penalised model, with a symmetric teacher."""

    classes: int
    per_class: int
    lambda_w: float
    lambda_h: float
    teacher_gap: float
    temperature: float
    alpha: float

    @property
    def c(self) -> float:
        """The price of the logits' nuclear norm."""
        return math.sqrt(self.per_class * self.lambda_w * self.lambda_h)

    def cross(self, s: float) -> float:
        """Cross-entropy at gap s."""
        return math.log1p((self.classes - 1) * math.exp(-s))

    def coins(self, s: float) -> float:
        """The binary loss of one sample at gap s, without a common shift."""
        K, total = self.classes, 0.0
        for share, many in (((K - 1) / K, 1), (-1 / K, K - 1)):
            total += many * binary_kl(np.array([[share * s]]), np.array([[share * self.teacher_gap]]), self.temperature)
        return self.alpha * total


def one_head(x: Distilled) -> float:
    """The best gap when one head carries both losses."""
    price = x.c * (x.classes - 1)
    best = optimize.minimize_scalar(
        lambda s: x.cross(s) + x.coins(s) + price * s,
        bounds=(0, 4 * x.teacher_gap + 40),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return float(best.x)


def two_heads(x: Distilled) -> tuple[float, float]:
    """The best gaps of two heads over shared features: the nuclear norm of both blocks is that of their length."""
    price = x.c * (x.classes - 1)

    def value(s: Array) -> float:
        return x.cross(s[0]) + x.coins(s[1]) + price * math.hypot(s[0], s[1])

    starts = [(a, b) for a in (0.3, 5.0) for b in (0.3, 5.0)]
    options = {"xatol": 1e-10, "fatol": 1e-15, "maxiter": 4000, "maxfev": 4000}
    ends = [optimize.minimize(value, s, method="Nelder-Mead", bounds=[(0, 60)] * 2, options=options) for s in starts]
    best = min(ends, key=lambda end: float(end.fun))
    return (float(best.x[0]), float(best.x[1])) if best.fun < value(np.zeros(2)) else (0.0, 0.0)


def offset_ratio(x: Distilled, gap: float) -> float:
    """The pull of the binary loss on a common shift of all logits, as a share of what the penalty holds back."""
    K, T = x.classes, x.temperature
    R = [
        T * (special.expit(share * gap / T) - special.expit(share * x.teacher_gap / T))
        for share in ((K - 1) / K, *[-1 / K] * (K - 1))
    ]
    return float(x.alpha * abs(sum(R)) / (x.c * K))


def distilled_by_descent(x: Distilled, heads: int, seed: int = 0) -> tuple[float, float]:
    """Gaps of the main and the auxiliary head from the whole problem, by L-BFGS from a random start."""
    K, T = x.classes, x.temperature
    rng, dim, count = np.random.default_rng(seed), K + 1, K * x.per_class
    labels = np.repeat(np.arange(K), x.per_class)
    onehot = np.eye(K)[labels]
    teacher = x.teacher_gap * (onehot - 1 / K)

    def value(flat: Array) -> tuple[float, Array]:
        *V, H = np.split(flat.reshape(-1, dim), [K * (i + 1) for i in range(heads)])
        main, aux = H @ V[0].T, H @ V[-1].T
        target, got = special.expit(teacher / T), special.expit(aux / T)
        loss = (special.logsumexp(main, -1) - main[np.arange(count), labels]).mean()
        coins = target * (np.log(target) + np.logaddexp(0, -aux / T))
        coins += special.expit(-teacher / T) * (np.log(special.expit(-teacher / T)) + np.logaddexp(0, aux / T))
        loss += x.alpha * T**2 * coins.sum() / count
        loss += x.lambda_w / 2 * sum((v**2).sum() for v in V) + x.lambda_h / 2 * (H**2).sum()
        R = [(special.softmax(main, -1) - onehot) / count, x.alpha * T * (got - target) / count]
        slopes = [x.lambda_w * v for v in V]
        slopes[0] = slopes[0] + R[0].T @ H
        slopes[-1] = slopes[-1] + R[1].T @ H
        return loss, np.concatenate([*slopes, x.lambda_h * H + R[0] @ V[0] + R[1] @ V[-1]]).ravel()

    start = rng.normal(size=(heads * K + count) * dim) * 0.3
    *V, H = _descend(value, start, dim, [K * (i + 1) for i in range(heads)])
    means = H.reshape(K, x.per_class, dim).mean(1)
    gaps = []
    for v in (V[0], V[-1]):
        logits = means @ v.T
        own = np.diag(logits).mean()
        gaps.append(float(own - (logits.sum() - np.trace(logits)) / (K * (K - 1))))
    return gaps[0], gaps[1]


# Classes of different sizes


def margins_by_descent(counts: list[int], lambda_w: float, lambda_h: float) -> Array:
    """Probability of a class minus that of the others of its size, for each class, from the whole problem."""
    labels = np.repeat(np.arange(len(counts)), counts)
    W, H = ufm_by_descent(labels, len(counts), lambda_w, lambda_h)
    found = []
    for k, size in enumerate(counts):
        p = special.softmax(H[labels == k].mean(0) @ W.T)
        found.append(p[k] - p[[j for j in range(len(counts)) if j != k and counts[j] == size]].mean())
    return np.array(found)

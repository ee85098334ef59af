"""The primer's statements, confronted with numbers that were found in another way."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import comb, log, pi, sqrt
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, optimize, special, stats

ROOT = Path(__file__).resolve().parent.parent
PRIMER = (ROOT / "book" / "primer.md").read_text(encoding="utf-8")
RNG = np.random.default_rng(0)


def test_every_section_says_where_the_book_uses_it() -> None:
    sections = re.split(r"^## ", PRIMER, flags=re.MULTILINE)[1:]
    tools = [section for section in sections if not section.startswith(("Exercises", "Further"))]
    assert len(tools) == 6
    for section in tools:
        assert re.search(r"^\*\*Used in\*\*", section, re.MULTILINE), section[:40]


def test_curvature_of_log_sum_exp_is_a_variance() -> None:
    o, u, h = RNG.normal(size=6), RNG.normal(size=6), 1e-3
    curvature = sum(c * special.logsumexp(o + k * h * u) for c, k in ((1, -1), (-2, 0), (1, 1))) / h**2
    p = special.softmax(o)
    assert curvature == pytest.approx(p @ u**2 - (p @ u) ** 2, rel=1e-5)


def test_entropy_falls_with_the_inverse_temperature_as_stated() -> None:
    o, beta, h = RNG.normal(size=5), 1.7, 1e-4
    p = special.softmax(beta * o)
    slope = (stats.entropy(special.softmax((beta + h) * o)) - stats.entropy(special.softmax((beta - h) * o))) / (2 * h)
    assert slope == pytest.approx(-beta * (p @ o**2 - (p @ o) ** 2), rel=1e-6)


def test_log_sum_exp_is_the_conjugate_of_entropy() -> None:
    o = RNG.normal(size=4)
    found = optimize.minimize(
        lambda u: -(u @ o) - special.entr(u).sum(),
        np.full(4, 0.25),
        bounds=[(1e-9, 1)] * 4,
        constraints={"type": "eq", "fun": lambda u: u.sum() - 1},
        options={"ftol": 1e-14},
    )
    assert -found.fun == pytest.approx(special.logsumexp(o), abs=1e-8)


def test_a_constraint_has_a_price() -> None:
    draw = np.random.default_rng(0)  # of its own: other draws need not bind
    corners, a, b = draw.normal(size=(30, 3)), draw.normal(size=3), draw.normal(size=3)
    b *= np.sign(corners[(corners @ a).argmax()] @ b)  # the best corner is not allowed
    primal = optimize.linprog(  # weights of the corners
        -(corners @ a), A_ub=(corners @ b)[None], b_ub=[0.0], A_eq=np.ones((1, 30)), b_eq=[1.0]
    )
    dual = optimize.minimize_scalar(lambda t: (corners @ (a - t * b)).max(), bounds=(0, 100), method="bounded")
    assert -primal.fun < (corners @ a).max() - 1e-3  # the constraint binds
    assert -primal.fun == pytest.approx(dual.fun, abs=1e-3)


def test_ridge_and_nuclear_norm() -> None:
    A, y, ridge = RNG.normal(size=(7, 4)), RNG.normal(size=7), 0.3
    U, s, Qt = np.linalg.svd(A, full_matrices=False)
    fit = A @ np.linalg.solve(A.T @ A + ridge * np.eye(4), A.T @ y)
    np.testing.assert_allclose(U.T @ fit, s**2 / (s**2 + ridge) * (U.T @ y), rtol=1e-10)
    G, x = np.linalg.inv(np.cov(RNG.normal(size=(4, 20)))), RNG.normal(size=4)
    t = x @ G @ x
    assert x @ np.linalg.inv(np.linalg.inv(G) + np.outer(x, x)) @ x == pytest.approx(t / (1 + t))
    mixed = RNG.normal(size=(4, 4))
    H, W = (U * np.sqrt(s)) @ mixed, (Qt.T * np.sqrt(s)) @ np.linalg.inv(mixed).T
    np.testing.assert_allclose(H @ W.T, A, atol=1e-10)
    assert ((H**2).sum() + (W**2).sum()) / 2 > s.sum()


@pytest.mark.parametrize("ratio", [0.25, 0.8, 2.5])
def test_random_spectrum_has_the_stated_density_and_trace(ratio: float) -> None:
    low, high = (1 - sqrt(ratio)) ** 2, (1 + sqrt(ratio)) ** 2

    def mean(f: Callable[[float], float]) -> float:
        part = integrate.quad(
            lambda x: f(x) * sqrt((high - x) * (x - low)) / (2 * pi * ratio * x), low, high, limit=200
        )[0]
        return float(part) + max(0.0, 1 - 1 / ratio) * f(0.0)

    ridge = 0.2
    root = max(np.roots([ratio * ridge, 1 - ratio + ridge, -1]))
    assert mean(lambda _: 1.0) == pytest.approx(1, abs=1e-6)
    assert mean(lambda x: x) == pytest.approx(1, abs=1e-6)
    assert mean(lambda x: 1 / (x + ridge)) == pytest.approx(root, rel=1e-6)
    modes = 1000
    X = RNG.normal(size=(round(ratio * modes), modes))
    spectrum = np.linalg.eigvalsh(X @ X.T / modes)
    assert (1 / (spectrum + ridge)).mean() == pytest.approx(root, rel=0.01)


def test_difference_of_returns_is_a_sum_of_advantages() -> None:
    S, A, discount = 4, 3, 0.8
    P, R, start = RNG.dirichlet(np.ones(S), size=(S, A)), RNG.normal(size=(S, A)), RNG.dirichlet(np.ones(S))
    old, new = RNG.dirichlet(np.ones(A), size=(2, S))

    def value(policy: np.ndarray) -> np.ndarray:
        P_pi, R_pi = np.einsum("sa,sat->st", policy, P), (policy * R).sum(1)
        return np.asarray(np.linalg.solve(np.eye(S) - discount * P_pi, R_pi))

    visits, now = np.zeros((S, A)), start
    for step in range(300):
        visits += discount**step * now[:, None] * new
        now = np.einsum("s,sa,sat->t", now, new, P)
    advantage = R + discount * P @ value(old) - value(old)[:, None]
    assert start @ (value(new) - value(old)) == pytest.approx((visits * advantage).sum())


@pytest.mark.parametrize(("coins", "throws"), [(1, 738), (1000, 2120)])
def test_samples_for_coins_are_what_hoeffding_asks_for(coins: int, throws: int) -> None:
    assert throws == int(np.ceil(log(2 * coins / 0.05) / (2 * 0.05**2)))
    assert f"{throws:,} throws" in PRIMER or f"so {throws}, for" in PRIMER
    missed = sum(comb(throws, k) for k in range(throws + 1) if abs(k / throws - 0.5) > 0.05) / 2**throws
    assert coins * missed < 0.05


def test_largest_of_many_gaussians_stays_below_its_bound() -> None:
    largest = RNG.normal(size=(2000, 500)).max(1).mean()
    assert 0.8 * sqrt(2 * log(500)) < largest < sqrt(2 * log(500))


def test_gaussian_moments() -> None:
    B = RNG.normal(size=(3, 3))
    S, A = B @ B.T, B + B.T
    nodes, weights = special.roots_hermitenorm(6)  # exact for polynomials up to degree 11
    z = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1).reshape(-1, 3)
    w = np.einsum("i,j,k->ijk", weights, weights, weights).ravel() / (2 * pi) ** 1.5
    x = z @ B.T
    form = np.einsum("ni,ij,nj->n", x, A, x)
    assert w @ form == pytest.approx(np.trace(A @ S))
    assert w @ form**2 - (w @ form) ** 2 == pytest.approx(2 * np.trace(A @ S @ A @ S))
    stein = w @ (x * (form * x[:, 0])[:, None])  # f = x'Ax x_0
    gradient = 2 * w @ (x @ A * x[:, :1]) + (w @ form) * np.eye(3)[0]
    np.testing.assert_allclose(stein, S @ gradient, rtol=1e-9)
    assert np.abs(RNG.normal(size=10**6)).mean() == pytest.approx(sqrt(2 / pi), abs=4 / 1000)


def test_small_noise_moves_a_mean_by_half_the_curvature() -> None:
    n, theta, v = 400, 0.4, 0.7  # f = sin, bounded, with a known Gaussian mean
    exact = np.sin(theta) * np.exp(-v / (2 * n))
    assert exact == pytest.approx(np.sin(theta) - np.sin(theta) * v / (2 * n), abs=1e-6)

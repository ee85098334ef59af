"""Batches of fits and transforms of losses: ours against scikit-learn and scipy, one thread, agreement proved first.

Run `python benchmarks/bench_h_consistency.py`. The peers take one data set, or one value, after the other. For logistic
regression each solver of scikit-learn gets the loosest tolerance at which its objective is within 1e-8 of the minimum
(on an eighth of the data sets). Times are those of the processor, which on one thread a busy machine changes little;
ratios are medians of runs in turn, with the smallest and the largest, and above 1 where ours is faster.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import scipy
import sklearn
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bench_starc import REPEATS, race, resident, seconds
from lib.h_consistency import calibration_gap, fit_bernoulli_nb, fit_gaussian_nb, fit_logistic, margin_transform

CLASSES, EXCESS = 3, 1e-8  # of the objective of a peer
DESIGNS = ("paper", "isotropic", "noise")
SOLVERS = {"lbfgs": (1e-5, 1e-6, 1e-7, 1e-8), "newton-cg": (1e-5, 1e-6, 1e-7), "newton-cholesky": (1e-4, 1e-5, 1e-6)}
LOSSES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[float], float]]] = {
    "exponential": (lambda u: (-u).exp(), lambda u: math.exp(-u)),
    "logistic": (lambda u: torch.log1p((-u).exp()), lambda u: math.log1p(math.exp(-u))),
    "squared hinge": (lambda u: (1 - u).clamp_min(0).square(), lambda u: max(0.0, 1 - u) ** 2),
}


def data_sets(design: str, count: int, n: int, d: int) -> tuple[Tensor, Tensor]:
    """Gaussian classes with means -1, 1, 2 in all features (half of them for "isotropic", none for "noise").

    In the design of the paper half of the features have a variance of d.
    """
    source = torch.Generator().manual_seed(0)
    y = torch.arange(n) % CLASSES
    x = torch.randn(count, n, d, generator=source, dtype=torch.float64)
    if design == "paper":
        x[..., : d // 2] *= math.sqrt(d)
    centre = (
        torch.tensor([-1.0, 1.0, 2.0], dtype=torch.float64) * {"paper": 1.0, "isotropic": 0.5, "noise": 0.0}[design]
    )
    return x + centre[y].unsqueeze(-1), y.expand(count, n)


def objectives(fits: list[LogisticRegression], x: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """Mean loss plus penalty of every fit."""
    values = []
    for fit, rows, labels in zip(fits, x, y, strict=False):  # the first ones
        o = fit.decision_function(rows)
        loss = np.mean(logsumexp(o, axis=-1) - o[np.arange(len(labels)), labels])
        values.append(loss + ridge / 2 * (fit.coef_**2).sum())
    return np.array(values)


def loop(peer: Callable[[], Any], x: np.ndarray, y: np.ndarray) -> list[Any]:
    return [peer().fit(a, b) for a, b in zip(x, y, strict=True)]


def logistic() -> None:
    print(
        f"\n1. fit_logistic, C = {CLASSES}, ridge = 1 / n: against a loop over scikit-learn's fit within {EXCESS:.0e}"
    )
    for design in DESIGNS:
        for count, n, d, bar in ((256, 64, 64, 4.0), (8, 64, 400, 0.0), (8, 256, 64, 0.0), (1, 64, 64, 0.0)):
            x, y = data_sets(design, count, n, d)
            rows, labels = x.numpy(), y.numpy()
            ours = partial(fit_logistic, x, y, CLASSES, 1 / n)
            found = ours()
            if not found.gradient_norm.max() < 1e-6:
                raise AssertionError(f"fit_logistic: gradient {found.gradient_norm.max():.1e}, want below 1e-6")
            some = max(1, count // 8)
            for solver, tolerances in SOLVERS.items():
                if solver == "newton-cholesky" and d > n:
                    continue  # forms a Hessian of all features: minutes
                for tol in tolerances:
                    peer = partial(LogisticRegression, solver=solver, tol=tol, max_iter=10_000)
                    values = objectives(loop(peer, rows[:some], labels[:some]), rows, labels, 1 / n)
                    excess = float((values - found.objective[:some].numpy()).max())
                    if excess < EXCESS:
                        break
                if not -1e-12 < excess < EXCESS:
                    raise AssertionError(f"{solver} differs from our minimum by {excess:.1e}")
                what = f"{design:9} {count:3} x ({n}, {d}) {solver} {tol:.0e}"
                race(what, ours, partial(loop, peer, rows, labels), abs(excess), bar)


def naive_bayes() -> None:
    print(f"\n2. naive Bayes, C = {CLASSES}: against a loop over scikit-learn's fit")
    print("   (GaussianNB has variances for each class: means are compared, and so are times)")
    for count, n, d, bar in ((256, 64, 64, 10.0), (256, 1000, 64, 0.0), (1, 64, 64, 0.0)):
        x, y = data_sets("isotropic", count, n, d)
        rows, labels = x.numpy(), y.numpy()
        for ours, peer, given in (
            (fit_gaussian_nb, GaussianNB, (x, rows)),
            (fit_bernoulli_nb, BernoulliNB, ((x > 0).double(), (rows > 0) * 1.0)),
        ):
            fit = partial(ours, given[0], y, CLASSES)
            peers = partial(loop, peer, given[1], labels)
            theirs = [f.theta_ if peer is GaussianNB else np.exp(f.feature_log_prob_) for f in peers()]
            error = float(np.abs(fit().mean.numpy() - np.stack(theirs)).max())
            if not error < 1e-12:
                raise AssertionError(f"means differ by {error:.1e}")
            race(f"{peer.__name__:11} {count} x ({n}, {d})", fit, peers, error, bar)


def scipy_loop(loss: Callable[[float], float], t: np.ndarray) -> np.ndarray:
    """The transform one value after the other, by Brent's method within bounds."""
    found = []
    for x in t.tolist():
        best = minimize_scalar(
            lambda u, x=x: (1 + x) / 2 * loss(u) + (1 - x) / 2 * loss(-u), bounds=(0, 20), method="bounded"
        )
        found.append(loss(0.0) - best.fun)
    return np.array(found)


def transforms() -> None:
    count, share = 100_000, 50
    print(f"\n3. margin_transform of {count:,} values: scipy's minimize_scalar takes 1 in {share}, time is multiplied")
    t = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for name, (loss, plain) in LOSSES.items():
        ours = partial(margin_transform, loss, t)
        few = t[: count // share].numpy()
        error = float(np.abs(ours()[: len(few)].numpy() - scipy_loop(plain, few)).max())
        if not error < 1e-8:
            raise AssertionError(f"{name}: the two sides differ by {error:.1e}")
        us, them = zip(
            *((seconds(ours), share * seconds(partial(scipy_loop, plain, few))) for _ in range(REPEATS)), strict=True
        )
        ratios = [b / a for a, b in zip(us, them, strict=True)]
        print(
            f"{name:<20} ours {median(us):6.3f} s   scipy {median(them):6.2f} s   {median(ratios):5.1f} x "
            f"({min(ratios):.1f} to {max(ratios):.1f})   differ by {error:.0e}   bar 15 x: "
            f"{'met' if median(ratios) >= 15 else 'MISSED'}",
            flush=True,
        )


def gaps() -> None:
    print("\n4. calibration_gap of 100,000 distributions on 10 classes, one label each")
    source = torch.Generator().manual_seed(0)
    p = torch.rand(100_000, 10, generator=source, dtype=torch.float64) ** 3
    p = p / p.sum(-1, keepdim=True)
    for bound in (1.0, math.inf):
        times = [seconds(partial(calibration_gap, p, 0, bound)) for _ in range(REPEATS)]
        print(f"bound {bound}: {median(times):.3f} s ({min(times):.3f} to {max(times):.3f})", flush=True)


MEMORY = {"fit_logistic": 300.0, "fit_gaussian_nb": 100.0}  # MiB above the input that a batch may take


def memory() -> None:
    print("\n5. peak memory above the input: 4,000 subsets (0/1 weights) of a pool of 2,000 samples with 64 features;")
    print("   as copies they would take 3.8 GiB, with an axis of classes 11.4 GiB")
    for name, bar in MEMORY.items():
        call = [sys.executable, __file__, "--peak-memory", name]
        used = float(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
        print(f"   {name:<16} {used:.0f} MiB   bar {bar:.0f} MiB: {'met' if used < bar else 'MISSED'}", flush=True)


def peak_memory(name: str) -> None:
    """In a process of its own: memory that the call adds to its input."""
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn(2000, 64, generator=source, dtype=torch.float64), torch.arange(2000) % CLASSES
    weight = (torch.rand(4000, 2000, generator=source, dtype=torch.float64) < 0.05).double()
    weight[:, :CLASSES] = 1
    call = partial(fit_logistic, ridge=0.01, num_steps=1) if name == "fit_logistic" else fit_gaussian_nb
    call(x[:9], y[:9], CLASSES)  # loads what the first call loads
    before = resident("VmHWM")
    call(x, y, CLASSES, sample_weight=weight)
    print(resident("VmHWM") - before)


def main() -> None:
    """Agreement, times, memory."""
    versions = {"torch": torch, "scipy": scipy, "numpy": np, "scikit-learn": sklearn}
    print(", ".join(f"{k} {v.__version__}" for k, v in versions.items()), "; one thread on both sides", sep="")
    print(f"ratios: median of {REPEATS} runs in turn (smallest to largest)")
    warnings.simplefilter("ignore", ConvergenceWarning)  # a loose tolerance is what the race is about
    for section in (logistic, naive_bayes, transforms, gaps, memory):
        section()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--peak-memory" in sys.argv:
        peak_memory(sys.argv[-1])
    else:
        main()

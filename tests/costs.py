"""The calls whose costs are recorded in `costs.json`: a few key kernels a chapter, small enough to count in a second.

`python -m tests.costs` records them anew, after a change that is meant to cost more (or less).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.counts import Counts, count
from lib import gradient_entanglement as ge
from lib import grokking as gk
from lib import h_consistency as hc
from lib import neural_collapse as nc
from lib import rf_regression as rf
from lib import starc
from lib import temperature_scaling as ts

RECORD = Path(__file__).with_suffix(".json")
FEW, MANY = 5, 40  # elements of a batch
Call = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A kernel's call for a number of elements; `batch` where these are a batch that no loop in Python may visit."""

    make: Callable[[int], Call]
    batch: bool = True


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def batch(count: int, few: Tensor) -> Tensor:
    """A few elements over and over: a solver that stops when all are done makes as many steps for a larger batch."""
    return few.repeat(count // len(few), *[1] * (few.ndim - 1))


def distributions(*shape: int) -> Tensor:
    p = uniform(*shape) + 0.1
    return p / p.sum(-1, keepdim=True)


def ridges(kernel: Callable[..., Any], with_power: bool) -> Callable[[int], Call]:
    """Points of a grid, on one spectrum."""
    spectrum, power = rf.powerlaw_task(200, 1.5, 1.5)
    task = (spectrum, power) if with_power else (spectrum,)

    def make(points: int) -> Call:
        n, k, ridge = 20 + 180 * uniform(points), 20 + 180 * uniform(points, seed=1), 0.01 + uniform(points, seed=2)
        return partial(kernel, *task, n, k, ridge)

    return make


def trials(count: int) -> Call:
    source = torch.Generator().manual_seed(0)
    return partial(
        rf.simulate_rf_ridge, *rf.powerlaw_task(60, 1.5, 1.5), 20, 30, [0.1], num_trials=count, generator=source
    )


def processes(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two rewards for each of several decision processes."""
    first, second = (batch(count, normal(FEW, 6, 3, 6, seed=seed)) for seed in (0, 1))
    dynamics = starc.random_mdp(6, 3, batch=(FEW,), generator=torch.Generator().manual_seed(2))
    return first, second, batch(count, dynamics)


def canonical(method: str) -> Callable[[int], Call]:
    def make(count: int) -> Call:
        reward, _, dynamics = processes(count)
        return partial(starc.canonicalise, reward, dynamics, 0.9, method)

    return make


def sparse(count: int) -> Call:
    """Six sweeps: rounding decides how many more there would be."""
    probs = distributions(50, 2, 4)
    following = (uniform(50, 2, 4, seed=1) * 50).long()
    return partial(starc.sparse_val_canonical, batch(count, normal(FEW, 50, 2, 4)), following, probs, 0.9, sweeps=6)


def transformer(count: int) -> tuple[ge.CharTransformer, Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    model = ge.CharTransformer(29, generator=source).double()
    chosen, rejected = torch.randint(29, (2, count, 12), generator=source)
    return model, chosen, rejected


def logps(model: torch.nn.Module, rows: Tensor) -> Tensor:
    return ge.response_logps(model, rows, 6)


def layerwise(count: int) -> Call:
    model, chosen, rejected = transformer(count)
    return partial(ge.layerwise_pair_gram, model, logps, chosen, rejected)


def all_pairs(count: int) -> Call:
    model, chosen, _ = transformer(count)
    return partial(ge.layerwise_kernel, model, logps, chosen)


def tokens(count: int) -> Call:
    target = torch.arange(count * 4).reshape(count, 4) % 11
    first, second = ((normal(count, 4, 8, seed=s), normal(count, 4, 11, seed=s + 2), target) for s in (0, 1))
    return partial(ge.token_gram, *first, *second)


def features(count: int, classes: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return normal(8 * count, 16), torch.arange(8 * count) % classes, normal(classes, 16, seed=1), normal(classes)


def optima(count: int) -> Call:
    weights, gap = 1e-4 + 1e-3 * uniform(count), 1 + 5 * uniform(count, seed=1)
    return partial(nc.distilled_optimum, 10, 20, weights, weights, gap, 2.0, 0.5, heads=2)


def data_sets(count: int) -> tuple[Tensor, Tensor]:
    labels = (torch.arange(24) % 3).expand(count, 24)
    return batch(count, normal(FEW, 24, 5)) + labels.unsqueeze(-1), labels


def temperature(count: int) -> Call:
    logits = 2 * normal(count, 30, 4)
    return partial(ts.fit_temperature, logits, (logits + normal(count, 30, 4, seed=1)).argmax(-1))


def calibration(count: int) -> Call:
    confidence = uniform(count, 50)
    return partial(ts.binned_calibration_error, confidence, confidence > 0.4)


def replicates(count: int) -> Call:
    confidence, source = uniform(200), torch.Generator().manual_seed(0)
    return partial(ts.bootstrap_calibration_error, confidence, confidence > 0.4, replicates=count, generator=source)


def mean_field(count: int) -> Call:
    overlap, m = torch.eye(2, dtype=torch.float64), torch.tensor([0.25, -0.25], dtype=torch.float64)
    scale, source = 0.5 + uniform(count), torch.Generator().manual_seed(0)
    return partial(gk.dmft, overlap, m, scale, 0.25, 2.0, 0.2, steps=6, samples=80, generator=source)


def wide_networks(count: int) -> Call:
    X, scale = normal(count, 12, 6, seed=1) / 6**0.5, 0.5 + uniform(count)
    return partial(gk.moment_step, *gk.moments(normal(count, 5, 6)), X, normal(count, 12), scale, 0.2, 0.3)


def narrow_networks(count: int) -> Call:
    X, scale = normal(count, 12, 6, seed=1) / 6**0.5, 0.5 + uniform(count)
    return partial(gk.train, normal(count, 5, 6), X, normal(6), scale, 0.2, 0.1, 4)


CASES: dict[str, Case] = {
    "rf_regression.solve_effective_ridge": Case(ridges(rf.solve_effective_ridge, with_power=False)),
    "rf_regression.rf_risk": Case(ridges(rf.rf_risk, with_power=True)),
    "rf_regression.simulate_rf_ridge": Case(trials),
    "starc.canonicalise val": Case(canonical("val")),
    "starc.canonicalise minimal": Case(canonical("minimal")),
    "starc.worst_case_regret": Case(lambda count: partial(starc.worst_case_regret, *processes(count), 0.9)),
    "starc.sparse_val_canonical": Case(sparse),
    "gradient_entanglement.layerwise_pair_gram": Case(layerwise),
    "gradient_entanglement.layerwise_kernel": Case(all_pairs),
    "gradient_entanglement.token_gram": Case(tokens),
    "grokking.dmft": Case(mean_field),
    "grokking.lazy_curve": Case(lambda count: partial(gk.lazy_curve, 1 + uniform(count), 0.3, 0.2, 8)),
    "grokking.moment_step": Case(wide_networks),
    "grokking.train": Case(narrow_networks),
    "neural_collapse.collapse_metrics": Case(lambda count: partial(nc.collapse_metrics, *features(count))),
    "neural_collapse.distilled_optimum": Case(optima),
    "temperature_scaling.fit_temperature": Case(temperature),
    "temperature_scaling.binned_calibration_error": Case(calibration),
    "temperature_scaling.bootstrap_calibration_error": Case(replicates),
    "h_consistency.fit_logistic": Case(lambda count: partial(hc.fit_logistic, *data_sets(count), 3, 0.05)),
    "h_consistency.fit_gaussian_nb": Case(lambda count: partial(hc.fit_gaussian_nb, *data_sets(count), 3)),
    "h_consistency.margin_transform": Case(
        lambda count: partial(hc.margin_transform, lambda u: (-u).exp(), uniform(count))
    ),
    "h_consistency.calibration_gap": Case(lambda count: partial(hc.calibration_gap, distributions(count, 4), 0, 1.0)),
}


@cache
def measure(name: str, elements: int) -> Counts:
    """Counts of a case, after one call that loads what a first call loads."""
    CASES[name].make(FEW)()
    return count(CASES[name].make(elements))


def record() -> None:
    """Write what all cases cost now."""
    found = {name: measure(name, MANY) for name in sorted(CASES)}
    costs = {name: {"operators": counts.operators, "peak": counts.peak} for name, counts in found.items()}
    RECORD.write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()

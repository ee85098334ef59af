"""Calibration errors, temperature fits, bootstrap: ours against torchmetrics, netcal, LBFGS, agreement proved first.

Run `make bench CHAPTERS=temperature_scaling`. The peers torchmetrics and netcal are no part of the environment:
`pip install torchmetrics` and `pip install netcal` (without its dependencies it is enough); a missing one is said to be
missing. All start from float32 logits: torchmetrics takes them as they are, netcal gets their softmax.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Call, Growth, Race, apart, optional, run
from lib.temperature_scaling import (
    TemperatureFit,
    binned_calibration_error,
    bootstrap_calibration_error,
    fit_temperature,
    top_label,
)

ROWS, CLASSES, BINS = 1_000_000, 100, 15
HOT = 3.0  # the logits are this much too large
MEMORY = 200 * 1e6 / 2**20  # 200 MB beyond the input
LARGE = f"{ROWS:,} x {CLASSES} logits, float32"


def problem(rows: int) -> tuple[Tensor, Tensor]:
    """Logits in float32, filled block by block, and labels from their softmax at temperature 3."""
    source = torch.Generator().manual_seed(0)
    logits, labels = torch.empty(rows, CLASSES), torch.empty(rows, dtype=torch.int64)
    for part, truth in zip(logits.split(20_000), labels.split(20_000), strict=True):
        part.normal_(generator=source).mul_(2)
        noise = torch.empty_like(part).exponential_(generator=source).log_()
        truth.copy_((part - noise).argmax(-1))
        part.mul_(HOT)
    return logits, labels


def ece(logits: Tensor, labels: Tensor) -> Tensor:
    return binned_calibration_error(*top_label(logits, labels), n_bins=BINS)


def defined(logits: Tensor, labels: Tensor) -> float:
    """The definition bin by bin in numpy, on confidences in float64."""
    confidence = np.concatenate([part.double().softmax(-1).amax(-1).numpy() for part in logits.split(20_000)])
    gap, found = confidence - (logits.argmax(-1) == labels).double().numpy(), 0.0
    for i in range(BINS):
        found += abs(gap[(confidence > i / BINS) & (confidence <= (i + 1) / BINS)].sum())
    return found / len(gap)


def lbfgs(logits: Tensor, labels: Tensor) -> float:
    """Temperature by torch's LBFGS with a strong Wolfe search, as converged as its precision allows."""
    temperature = torch.ones((), requires_grad=True)
    search = torch.optim.LBFGS(
        [temperature], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-10, tolerance_change=1e-12
    )

    def closure() -> Tensor:
        search.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits / temperature, labels)
        loss.backward()
        return loss

    search.step(closure)
    return temperature.item()


def exact(logits: Tensor, labels: Tensor, temperature: float) -> tuple[float, float]:
    """NLL and its slope in 1/T, all in float64 and without our code."""
    nll = slope = 0.0
    for part, truth in zip(logits.split(20_000), labels.split(20_000), strict=True):
        z = part.double()
        own = z.gather(-1, truth.unsqueeze(-1)).squeeze(-1)
        logp = (z / temperature).log_softmax(-1)
        nll -= logp.gather(-1, truth.unsqueeze(-1)).sum().item()
        slope += ((logp.exp() * z).sum(-1) - own).sum().item()
    return nll / len(logits), slope / len(logits)


def definitions() -> Iterator[Race]:
    """20,000 x 10: every norm against the peers that share the definition."""
    logits, labels = torch.randn(20_000, 10, generator=torch.Generator().manual_seed(3)), torch.arange(20_000) % 10
    pair = top_label(logits, labels)
    metrics, netcal = optional("torchmetrics.functional.classification"), optional("netcal.metrics")
    norms: dict[str, int | str] = {"l1": 1, "l2": 2, "max": "max"}
    measures: dict[str, int | str] = {"ECE": 1, "MCE": "max", "ACE": "mean"}
    size = "20,000 x 10, norm {}"
    for name, norm in norms.items() if metrics else ():
        yield Race(
            "binned_calibration_error",
            size.format(norm),
            partial(error_of_logits, logits, labels, norm),
            "torchmetrics",
            partial(metrics.multiclass_calibration_error, logits, labels, 10, BINS, name),
            limit=1e-4,
        )
    for name, norm in measures.items() if netcal else ():
        yield Race(
            "binned_calibration_error",
            size.format(norm) + ", probabilities given",
            partial(binned_calibration_error, *pair, norm=norm),
            "netcal",
            partial(getattr(netcal, name)(BINS).measure, pair[0].numpy(), pair[1].numpy()),
            limit=1e-5,
        )


def error_of_logits(logits: Tensor, labels: Tensor, norm: int | str) -> Tensor:
    return binned_calibration_error(*top_label(logits, labels), norm=norm)


def calibration(logits: Tensor, labels: Tensor) -> Iterator[Race]:
    """Top-label ECE in 15 bins; torchmetrics adds a million numbers in float32, hence its limit."""
    ours, truth = partial(ece, logits, labels), labels.numpy()
    metrics, netcal = optional("torchmetrics.functional.classification"), optional("netcal.metrics")
    kernel = "binned_calibration_error"
    yield Race(kernel, LARGE, ours, "its definition in numpy", partial(defined, logits, labels), limit=1e-6, repeats=1)
    if metrics:
        theirs = partial(metrics.multiclass_calibration_error, logits, labels, CLASSES, BINS, "l1", validate_args=False)
        yield Race(kernel, LARGE, ours, "torchmetrics", theirs, limit=1e-2, at_least=5, memory=MEMORY, repeats=3)
    if netcal:
        measure = netcal.ECE(BINS).measure
        whole = partial(from_logits, measure, logits, truth)
        yield Race(kernel, LARGE, ours, "netcal", whole, limit=1e-5, at_least=5, repeats=3)


def from_logits(measure: Callable[..., float], logits: Tensor, truth: np.ndarray) -> float:
    return measure(logits.softmax(-1).numpy(), truth)


def temperature(logits: Tensor, labels: Tensor) -> Iterator[Race]:
    """Against LBFGS: gradient below 1e-10 where ours stops, and no larger loss."""

    def difference(fit: TemperatureFit, theirs: float) -> float:
        (loss, _), (other, _) = (exact(logits, labels, value) for value in (fit.temperature.item(), theirs))
        if not abs(fit.gradient.item()) < 1e-10 or not loss <= other + 1e-15:
            raise AssertionError(f"gradient {fit.gradient.item():.1e}, loss above the peer's by {loss - other:.1e}")
        return abs(fit.temperature.item() - theirs)

    yield Race(
        "fit_temperature",
        LARGE,
        partial(fit_temperature, logits, labels),
        "LBFGS, strong Wolfe search",
        partial(lbfgs, logits, labels),
        agree=difference,
        limit=1e-3,
        at_least=7,
        memory=MEMORY,
        repeats=3,
    )


def logits_and_labels(count: int, rows: int, classes: int) -> tuple[Tensor, Tensor]:
    """Sets of logits that are 2.5 times too large."""
    source = torch.Generator().manual_seed(1)
    logits = torch.randn(count, rows, classes, dtype=torch.float64, generator=source)
    noise = torch.empty_like(logits).exponential_(generator=source).log()
    return 2.5 * logits, (logits - noise).argmax(-1)


def small() -> Iterator[Race]:
    """256 fits in one call, against a loop over our own function."""
    for rows, classes, bar in ((100, 10, 20.0), (30, 3, 20.0), (1000, 10, None)):
        logits, labels = logits_and_labels(256, rows, classes)
        yield Race(
            "fit_temperature",
            f"256 sets of {rows:,} x {classes}, float64",
            partial(fit_temperature, logits, labels),
            "loop over our own",
            partial(one_by_one, logits, labels),
            agree=lambda ours, peer: apart(ours.temperature, peer),
            limit=1e-8,
            at_least=bar,
            repeats=3,
        )


def one_by_one(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([fit_temperature(z, y).temperature for z, y in zip(logits, labels, strict=True)])


def bootstrap() -> Iterator[Race]:
    """1,000 replicates of the ECE of 10,000 points, against a loop over samples in numpy (equal in the mean)."""
    source = torch.Generator().manual_seed(2)
    confidence = torch.rand(10_000, dtype=torch.float64, generator=source)
    outcome = torch.rand(10_000, dtype=torch.float64, generator=source) < confidence * 0.9
    f, y = confidence.numpy(), outcome.double().numpy()
    bins = np.clip(np.ceil(f * BINS).astype(int) - 1, 0, BINS - 1)

    def loop() -> np.ndarray:
        rng, found = np.random.default_rng(0), np.empty(1000)
        for i in range(1000):
            drawn = rng.integers(len(f), size=len(f))
            found[i] = np.abs(np.bincount(bins[drawn], (f - y)[drawn], BINS)).sum() / len(f)
        return found

    def errors_of_mean(ours: Tensor, theirs: np.ndarray) -> float:
        return float(abs(ours.mean() - theirs.mean()) / (theirs.std() * (2 / 1000) ** 0.5))

    size = "1,000 replicates of 10,000 points, {}"
    ours = partial(bootstrap_calibration_error, confidence, outcome, generator=source)
    kernel = "bootstrap_calibration_error"
    yield Race(
        kernel,
        size.format("bins of equal width"),
        ours,
        "numpy loop (limit in standard errors)",
        loop,
        agree=errors_of_mean,
        limit=4.5,
        within=5,
        repeats=3,
    )
    yield Race(kernel, size.format("bins of equal mass"), partial(ours, bins="mass"), within=5, repeats=3)


def races() -> Iterator[Race]:
    for section in (definitions, small, bootstrap):
        yield from section()
    logits, labels = problem(ROWS)
    for part in (calibration, temperature):
        yield from part(logits, labels)


def growths() -> Iterator[Growth]:
    """Against sets in a batch, and rows of one set."""
    yield Growth(
        "fit_temperature",
        "sets of 100 x 10",
        (10, 100, 1_000, 10_000),
        lambda n: partial(fit_temperature, *logits_and_labels(n, 100, 10)),
        (1, 1),
        "1 for each set its own fit",
        batch=True,
    )

    def errors(count: int) -> Call:
        source = torch.Generator().manual_seed(2)
        confidence = torch.rand(count, 200, dtype=torch.float64, generator=source)
        return partial(binned_calibration_error, confidence, confidence < 0.5)

    sizes, rows = (10, 100, 1_000, 10_000), (1_000, 10_000, 100_000)
    yield Growth(
        "binned_calibration_error", "sets of 200", sizes, errors, (1, 1), "1 for each set its own bins", batch=True
    )
    logits, labels = problem(rows[-1])
    for name, call in (("fit_temperature", fit_temperature), ("binned_calibration_error", ece)):
        yield Growth(
            name,
            f"rows of {CLASSES} logits, float32",
            rows,
            lambda n, call=call: partial(call, logits[:n], labels[:n]),  # type: ignore[misc]
            (1, 1),
            "1: a fixed number of passes over the rows",
        )


if __name__ == "__main__":
    run(__file__, races, growths, ("torchmetrics", "netcal"))

"""Calibration errors, temperature fits, bootstrap: ours against torchmetrics, netcal, LBFGS, agreement proved first.

Run `python benchmarks/bench_temperature_scaling.py`. The peers torchmetrics and netcal are no part of the environment:
`pip install torchmetrics` and `pip install netcal` (without its dependencies it is enough); a missing one is said to be
missing. All start from float32 logits: torchmetrics takes them as they are, netcal gets their softmax (timed with and
without it). Times are those of the processor on one thread; ratios are medians of runs in turn, with the smallest and
the largest, and above 1 where ours is faster. `--rows` makes the large problem smaller.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from time import process_time
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.temperature_scaling import (
    binned_calibration_error,
    bootstrap_calibration_error,
    fit_temperature,
    top_label,
)

REPEATS = 5
ROWS, CLASSES, BINS = 1_000_000, 100, 15
HOT = 3.0  # the logits are this much too large
MEMORY = 200  # MB beyond the input


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


def peer(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ImportError as error:
        print(f"   {name.split('.')[0]} is missing ({error}): not compared")
        return None


def seconds(call: Callable[[], object], at_least: float = 0.02) -> float:
    """Time of one call, from as many in a row as fill 20 ms."""
    start, count = process_time(), 0
    while count == 0 or process_time() - start < at_least:
        call()
        count += 1
    return (process_time() - start) / count


def same(ours: float, theirs: float, limit: float) -> float:
    """The difference, proved to be below `limit`."""
    error = abs(ours - theirs)
    if not error <= limit:
        raise AssertionError(f"the two sides differ by {error:.1e}, more than {limit:.0e}")
    return error


def short(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def race(
    what: str, ours: Callable[[], object], theirs: Callable[[], object], bar: float = 0.0, repeats: int = REPEATS
) -> None:
    """Time both in turn, so that a busy machine hits both, and print the verdict."""
    us, them = zip(*((seconds(ours), seconds(theirs)) for _ in range(repeats)), strict=True)
    ratios = [b / a for a, b in zip(us, them, strict=True)]
    ratio, spread = median(ratios), f"({short(min(ratios))} to {short(max(ratios))})"
    verdict = f"   bar {bar:g} x: {'met' if ratio >= bar else 'MISSED'}" if bar else ""
    print(
        f"   {what:<44} ours {median(us) * 1e3:8.2f} ms   peer {median(them) * 1e3:8.2f} ms   "
        f"{short(ratio):>6} x {spread}{verdict}",
        flush=True,
    )


def ece(logits: Tensor, labels: Tensor) -> Tensor:
    return binned_calibration_error(*top_label(logits, labels), n_bins=BINS)


def defined(logits: Tensor, labels: Tensor) -> float:
    """The definition bin by bin in numpy, on confidences in float64."""
    confidence = np.concatenate([part.double().softmax(-1).amax(-1).numpy() for part in logits.split(20_000)])
    gap, found = confidence - (logits.argmax(-1) == labels).double().numpy(), 0.0
    for i in range(BINS):
        found += abs(gap[(confidence > i / BINS) & (confidence <= (i + 1) / BINS)].sum())
    return found / len(gap)


def agreement() -> None:
    print("\n1. definitions, 20,000 x 10: largest difference from the peers that share them")
    logits, labels = torch.randn(20_000, 10, generator=torch.Generator().manual_seed(3)), torch.arange(20_000) % 10
    pair, metrics, netcal = top_label(logits, labels), peer("torchmetrics.functional.classification"), peer("netcal")
    if metrics:
        norms: dict[str, int | str] = {"l1": 1, "l2": 2, "max": "max"}
        for name, norm in norms.items():
            theirs = metrics.multiclass_calibration_error(logits, labels, 10, BINS, name).item()
            print(
                f"   torchmetrics {name:<4} {same(binned_calibration_error(*pair, norm=norm).item(), theirs, 1e-5):.0e}"
            )
    if netcal:
        measures: dict[str, int | str] = {"ECE": 1, "MCE": "max", "ACE": "mean"}
        for name, norm in measures.items():
            theirs = getattr(import_module("netcal.metrics"), name)(BINS).measure(pair[0].numpy(), pair[1].numpy())
            print(f"   netcal {name:<10} {same(binned_calibration_error(*pair, norm=norm).item(), theirs, 1e-6):.0e}")


def calibration(logits: Tensor, labels: Tensor) -> None:
    print(f"\n5. top-label ECE, {BINS} bins, {len(logits):,} x {CLASSES} float32 logits")
    ours = partial(ece, logits, labels)
    print(f"   the definition in float64 differs by {same(ours().item(), defined(logits, labels), 1e-6):.0e}")
    metrics = peer("torchmetrics.functional.classification")
    if metrics:
        theirs = partial(metrics.multiclass_calibration_error, logits, labels, CLASSES, BINS, "l1", validate_args=False)
        print(f"   torchmetrics, which adds in float32, differs by {same(ours().item(), theirs().item(), 1e-3):.0e}")
        race("torchmetrics", ours, theirs, 5)
    netcal = peer("netcal.metrics")
    if netcal:
        measure, truth = netcal.ECE(BINS).measure, labels.numpy()
        probs = logits.softmax(-1).numpy()
        print(f"   netcal differs by {same(ours().item(), measure(probs, truth), 1e-6):.0e}")
        race("netcal", ours, lambda: measure(logits.softmax(-1).numpy(), truth), 5)
        race("netcal, probabilities given to it (not to us)", ours, lambda: measure(probs, truth))


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


def temperature(logits: Tensor, labels: Tensor) -> None:
    print(f"\n6. temperature, {len(logits):,} x {CLASSES} float32 logits, against LBFGS with strong Wolfe search")
    fit, theirs = (
        fit_temperature(logits.double()[:1], labels[:1]),
        lbfgs(logits, labels),
    )  # the first loads what it loads
    fit = fit_temperature(logits, labels)
    rows = {"ours": fit.temperature.item(), "LBFGS": theirs}
    found = {name: exact(logits, labels, value) for name, value in rows.items()}
    for name, (nll, slope) in found.items():
        print(f"   {name:<6} T {rows[name]:.9g}   NLL {nll:.15g}   gradient {slope:.1e} (of the float32 T, in float64)")
    print(f"   ours reports gradient {fit.gradient.item():.1e}   bar 1e-10: {verdict(abs(fit.gradient.item()), 1e-10)}")
    print(f"   NLL above that of LBFGS by {found['ours'][0] - found['LBFGS'][0]:.1e}   bar 0: ", end="")
    print("met" if found["ours"][0] <= found["LBFGS"][0] + 1e-15 else "MISSED")
    same(rows["ours"], theirs, 1e-3)
    race("LBFGS", partial(fit_temperature, logits, labels), partial(lbfgs, logits, labels), 7, repeats=3)


def verdict(value: float, bar: float) -> str:
    return "met" if value < bar else "MISSED"


def small() -> None:
    print("\n2. 256 small fits in one call, against a loop over our own function (float64)")
    for rows, classes, bar in ((100, 10, 20), (30, 3, 20), (1000, 10, 0)):
        source = torch.Generator().manual_seed(1)
        logits = torch.randn(256, rows, classes, dtype=torch.float64, generator=source)
        noise = torch.empty_like(logits).exponential_(generator=source).log()
        labels, logits = (logits - noise).argmax(-1), 2.5 * logits
        ours = partial(fit_temperature, logits, labels)

        def loop(logits: Tensor = logits, labels: Tensor = labels) -> Tensor:
            pairs = zip(logits, labels, strict=True)
            return torch.stack([fit_temperature(z, y).temperature for z, y in pairs])

        torch.testing.assert_close(ours().temperature, loop(), rtol=1e-8, atol=0)
        race(f"256 fits of {rows} x {classes}", ours, loop, bar)


def bootstrap() -> None:
    print("\n3. 1,000 bootstrap replicates of the ECE of 10,000 points, against a loop over samples in numpy")
    source = torch.Generator().manual_seed(2)
    confidence = torch.rand(10_000, dtype=torch.float64, generator=source)
    outcome = torch.rand(10_000, dtype=torch.float64, generator=source) < confidence * 0.9
    f, y = confidence.numpy(), outcome.double().numpy()
    bins = np.clip(np.ceil(f * BINS).astype(int) - 1, 0, BINS - 1)

    def loop() -> np.ndarray:
        rng, found = np.random.default_rng(0), np.empty(1000)
        for i in range(1000):
            drawn = rng.integers(len(f), size=len(f))
            gap = np.bincount(bins[drawn], (f - y)[drawn], BINS)
            found[i] = np.abs(gap).sum() / len(f)
        return found

    for kind in ("width", "mass"):
        ours = partial(bootstrap_calibration_error, confidence, outcome, bins=kind, generator=source)
        times = [seconds(ours) for _ in range(3)]
        print(f"   {kind}: {median(times):.2f} s   bar 5 s: {verdict(max(times), 5)}")
        if kind == "width":
            got, want = ours(), loop()
            limit = 5 * want.std() / 1000**0.5
            print(f"   mean differs by {same(got.mean().item(), want.mean(), limit):.0e}, limit 5 standard errors")
            race("numpy", ours, loop)


def resident(what: str) -> float:
    """Resident memory of this process in MB, VmRSS now or VmHWM at its peak (Linux)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(what))
    return int(line.split()[1]) * 1024 / 1e6


def memory(rows: int) -> None:
    print(f"\n4. peak memory beyond the input, {rows:,} x {CLASSES} float32 logits")
    for name in ("ece", "fit_temperature"):
        call = [sys.executable, __file__, "--peak-memory", name, "--rows", str(rows)]
        used = float(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
        print(f"   {name:<16} {used:4.0f} MB   bar {MEMORY} MB: {verdict(used, MEMORY)}", flush=True)


def peak_memory(name: str, rows: int) -> None:
    """In a process of its own: memory that the call adds to its input."""
    calls: dict[str, Callable[[Tensor, Tensor], object]] = {"ece": ece, "fit_temperature": fit_temperature}
    call = calls[name]
    call(*problem(2_000))  # loads what the first call loads
    logits, labels = problem(rows)
    with suppress(OSError):  # where it is forbidden, the peak of making the input counts too
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = resident("VmRSS")
    call(logits, labels)
    print(resident("VmHWM") - before)


def main() -> None:
    """Agreement, times, memory."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, default=ROWS)
    arguments.add_argument("--peak-memory", default="")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    if given.peak_memory:
        peak_memory(given.peak_memory, given.rows)
        return
    print(f"torch {torch.__version__}, numpy {np.__version__}; one thread on all sides")
    print(f"ratios: median of {REPEATS} runs in turn (smallest to largest); LBFGS of 3")
    agreement()
    small()
    bootstrap()
    memory(given.rows)
    logits, labels = problem(given.rows)
    calibration(logits, labels)
    temperature(logits, labels)


if __name__ == "__main__":
    main()

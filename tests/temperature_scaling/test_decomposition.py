"""The split of a divergence, group by group."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.temperature_scaling import (
    kl_decomposition,
    overlap_risks,
)

from . import oracle


@pytest.mark.parametrize("weighted", [False, True])
def test_the_split_is_that_of_each_group(weighted: bool, device: str) -> None:
    rng = np.random.default_rng(0)
    group = np.array([0, 0, 1, 1, 1, 3, 3, 0])
    level = rng.dirichlet(np.ones(3), size=4)
    p, posterior = level[group], rng.dirichlet(np.ones(3), size=8)
    posterior[0] = [1, 0, 0]
    weight = rng.random(8) if weighted else None
    q, pi, g = (torch.tensor(x, device=device) for x in (p, posterior, group))
    got = kl_decomposition(q, pi, g, 4, None if weight is None else torch.tensor(weight, device=device))
    for mine, want in zip(
        (got.total, got.calibration, got.grouping), oracle.kl_parts(p, posterior, group, weight), strict=True
    ):
        assert mine.item() == pytest.approx(want, rel=1e-12)
    assert (got.calibration + got.grouping).item() == pytest.approx(got.total.item(), rel=1e-12)


@pytest.mark.parametrize(("overlap", "k", "m"), [(0.4, 10, 2), (0.6, 12, 3), (0.9, 2, 2)])
def test_the_split_of_the_overlap_model_is_exact(overlap: float, k: int, m: int) -> None:
    risks, rows = overlap_risks(overlap, k, group_size=m), []
    confidence = 1 - risks.error.item()
    for guess in range(k):
        p = np.where(np.arange(k) == guess, confidence, (1 - confidence) / (k - 1))
        block = (np.arange(k) // m == guess // m) / m
        rows += [(p, np.eye(k)[guess], guess, 1 - overlap), (p, block, guess, overlap)]
    p, posterior, group, weight = (np.array(x) for x in zip(*rows, strict=True))
    got = kl_decomposition(p, posterior, group, k, weight)
    assert got.calibration.item() == pytest.approx(risks.calibration_gap.item(), rel=1e-10, abs=1e-13)
    assert got.grouping.item() == pytest.approx(risks.grouping_gap.item(), rel=1e-12)
    assert got.total.item() == pytest.approx((risks.scaled_nll - risks.bayes_nll).item(), rel=1e-12)


def test_the_split_of_a_batch_is_the_loop() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(3, size=(2, 5, 9))
    level, posterior = rng.dirichlet(np.ones(4), size=(2, 5, 3)), rng.dirichlet(np.ones(4), size=(2, 5, 9))
    p = np.take_along_axis(level, group[..., None], axis=-2)
    weight = rng.random((2, 5, 9))
    got = kl_decomposition(p, posterior, group, 3, weight)
    for i in np.ndindex(2, 5):
        want = oracle.kl_parts(p[i], posterior[i], group[i], weight[i])
        for name, value in zip(("total", "calibration", "grouping"), want, strict=True):
            assert getattr(got, name).shape == (2, 5)
            assert getattr(got, name)[i].item() == pytest.approx(value, rel=1e-11)


def test_a_certain_prediction_that_may_be_wrong_costs_infinitely_much() -> None:
    got = kl_decomposition([[1.0, 0.0]], [[0.5, 0.5]], [0], 1)
    assert (got.total.item(), got.calibration.item(), got.grouping.item()) == (math.inf, math.inf, 0)
    right = kl_decomposition([[1.0, 0.0]], [[1.0, 0.0]], [0], 2)
    assert (right.total.item(), right.calibration.item(), right.grouping.item()) == (0, 0, 0)


def test_rows_and_groups_without_mass_count_nothing() -> None:
    p, posterior = [[0.4, 0.6], [1.0, 0.0], [0.3, 0.7]], [[0.5, 0.5], [0.5, 0.5], [0.2, 0.8]]
    got = kl_decomposition(p, posterior, [0, 1, 2], 4, [1.0, 0.0, 3.0])
    want = kl_decomposition(p[::2], posterior[::2], [0, 2], 4, [1.0, 3.0])
    assert (got.total, got.calibration, got.grouping) == (want.total, want.calibration, want.grouping)
    assert got.total.isfinite()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"probs": [[0.5, 0.6]] * 2}, "probs"),
        ({"posterior": [[0.5, 0.6]] * 2}, "posterior"),
        ({"posterior": [[0.5, 0.3, 0.2]] * 2}, "posterior"),
        ({"group": [0, 2]}, "group"),
        ({"group": [0, -1]}, "group"),
        ({"group": [0.0, 1.0]}, "group"),
        ({"group": [0]}, "group"),
        ({"n_groups": 0}, "n_groups"),
        ({"weight": [1.0, -1.0]}, "weight"),
        ({"weight": [0.0, 0.0]}, "weight"),
        ({"weight": [1.0, math.nan]}, "weight"),
        ({"weight": [1.0]}, "weight"),
    ],
)
def test_what_is_wrong_with_a_split_is_named(change: dict[str, object], name: str) -> None:
    arguments = {"probs": [[0.4, 0.6]] * 2, "posterior": [[0.5, 0.5]] * 2, "group": [0, 1], "n_groups": 2}
    with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
        kl_decomposition(**arguments | change)  # type: ignore[arg-type]

"""What key kernels cost, in operators and bytes, which no busy machine changes: it may not grow unnoticed."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.counts import count
from tests.costs import CASES, FEW, MANY, RECORD, measure

RECORDED = json.loads(RECORD.read_text(encoding="utf-8"))
SLACK = 1.1


def test_every_case_is_recorded_and_every_benchmarked_chapter_has_cases() -> None:
    assert sorted(CASES) == sorted(RECORDED), "run: python -m tests.costs"
    chapters = {path.stem for path in (RECORD.parent.parent / "lib").iterdir() if (path / "__init__.py").exists()}
    benchmarked = {path.stem for path in (RECORD.parent.parent / "benchmarks" / "results").glob("*.json")}
    assert chapters & benchmarked <= {name.split(".")[0] for name in CASES} <= chapters


@pytest.mark.parametrize("name", sorted(CASES))
def test_costs_have_not_grown(name: str) -> None:
    found, recorded = measure(name, MANY), RECORDED[name]
    for what, now in (("operators", found.operators), ("peak", found.peak)):
        assert now <= SLACK * recorded[what], (
            f"{name}: {what} {now:,}, recorded {recorded[what]:,}; if that is meant, run: python -m tests.costs"
        )


@pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if case.batch))
def test_no_loop_in_python_visits_the_elements_of_a_batch(name: str) -> None:
    assert measure(name, FEW).operators == measure(name, MANY).operators


def test_a_loop_over_a_batch_would_be_seen() -> None:
    rows = torch.rand(6, 3)
    whole, loop = count(lambda: rows.exp().sum()), count(lambda: torch.stack([row.exp() for row in rows]).sum())
    assert whole.operators == 2
    assert loop.operators > 6


def test_counts_are_those_of_the_definition() -> None:
    a, b = torch.rand(5, 7, dtype=torch.float64), torch.rand(7, 11, dtype=torch.float64)
    found = count(lambda: (a @ b).exp())
    assert found.flops64 == 2 * 5 * 7 * 11
    assert found.flops32 == 0
    assert found.curved64 == 5 * 11
    assert found.operators == 2
    assert found.least == 8 * (5 * 7 + 7 * 11 + 5 * 11)
    assert found.moved == 8 * (5 * 7 + 7 * 11 + 3 * 5 * 11)
    assert found.peak == 8 * 2 * 5 * 11
    assert count(lambda: torch.linalg.solve(b @ b.T, a.T[:, 0])).flops64 == 2 * 7 * 11 * 7 + round(
        2 / 3 * 7**3 + 2 * 7**2
    )


def test_inputs_are_read_and_not_held_also_through_a_view_or_from_numpy() -> None:
    x = torch.rand(100, 50, dtype=torch.float64)
    found = count(lambda: x.T.exp())
    assert (found.least, found.peak) == (2 * x.nbytes, x.nbytes)
    assert count(lambda: torch.as_tensor(x.numpy()).exp()).least == 2 * x.nbytes


def test_what_is_released_is_not_held() -> None:
    x = torch.rand(100, dtype=torch.float64)

    def chain() -> torch.Tensor:
        y = x
        for _ in range(10):
            y = y + 1
        return y

    assert count(chain).peak == 2 * x.nbytes

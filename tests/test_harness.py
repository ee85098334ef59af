"""The harness of the benchmarks: what it refuses, what it finds, and what the recorded runs must hold."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import harness, machine, stamps
from benchmarks.counts import Rates
from benchmarks.harness import Growth, Race, apart
from tools import performance

RATES = Rates(copy=1e10, product64=1e10, product32=2e10, curved64=1e9, curved32=2e9, operators=1e6, views=1e6)
RECORDED = sorted(path for path in harness.RESULTS.glob("*.json") if path.stem not in performance.OTHERS)
X = torch.linspace(0, 1, 1000, dtype=torch.float64)


def busy(milliseconds: float) -> float:
    end = time.process_time() + milliseconds / 1e3
    while time.process_time() < end:
        pass
    return 1.0


def test_a_ratio_is_the_peers_time_over_ours_and_a_part_of_the_work_is_extrapolated() -> None:
    whole = harness.race(Race("k", "s", lambda: busy(30), "peer", lambda: busy(60), repeats=2), RATES)
    assert whole["ratio"] == pytest.approx(2, rel=0.2)
    assert not whole["extrapolated"]
    part = harness.race(
        Race("k", "s", lambda: busy(30), "peer", lambda: busy(60), share=0.1, rest=lambda: busy(30), repeats=2), RATES
    )
    assert part["ratio"] == pytest.approx(21, rel=0.2)
    assert part["extrapolated"]


def test_sides_that_differ_are_not_timed() -> None:
    with pytest.raises(AssertionError, match=r"k, s: differs from peer by 1\.0e-03"):
        harness.race(Race("k", "s", lambda: 1.001, "peer", lambda: 1.0), RATES)
    with pytest.raises(AssertionError, match="differs from peer by nan"):
        harness.race(Race("k", "s", lambda: math.nan, "peer", lambda: 1.0), RATES)


def test_bars_are_judged_and_a_reason_is_kept_only_where_one_is_missed() -> None:
    def judged(**bars: Any) -> dict[str, Any]:
        given = Race("k", "s", X.exp, "peer", lambda: X.exp() * busy(5), reason="it is small", repeats=2, **bars)
        return harness.race(given, RATES)

    met = judged(at_least=1.5, within=1, memory=50)
    assert [bar["met"] for bar in met["bars"].values()] == [True, True, True]
    assert met["reason"] == ""
    assert judged(at_least=1e9)["bars"]["at_least"] == {"bar": 1e9, "met": False}
    assert judged(within=1e-12)["reason"] == "it is small"


def test_the_limit_is_what_takes_longest_on_this_machine() -> None:
    found = harness.race(Race("k", "s", X.exp, repeats=2), RATES)
    assert found["counts"]["curved64"] == 1000
    floors = {"memory": 2 * X.nbytes / 1e10, "exponentials": 1000 / 1e9, "operators": 1 / 1e6}
    assert found["bound"] == max(floors, key=lambda name: floors[name])
    assert found["reached"] == pytest.approx(max(floors.values()) / found["seconds"])


def test_answers_may_have_parts() -> None:
    assert apart((X, X), (X.numpy(), X.numpy())) == 0
    assert apart(RATES, RATES) == 0
    assert apart((X, X + 1), (X, X)) == pytest.approx(1)
    with pytest.raises(AssertionError, match="ours has 2 parts and the peer 1"):
        apart((X, X), X)


def test_growth_finds_the_exponent_and_a_rise() -> None:
    def quadratic(size: int) -> harness.Call:
        return lambda: busy((size / 100) ** 2)

    found = harness.growth(Growth("k", "rows", (100, 200, 400), quadratic, (2, 2), "2", batch=True, reason="pairs"))
    assert found["exponent"] == pytest.approx(2, abs=0.1)
    assert found["rise"] == pytest.approx(4, rel=0.2)
    assert found["reason"] == "pairs"


def test_peak_memory_is_that_of_the_call() -> None:
    result, used = machine.with_peak(lambda: torch.ones(2**22, dtype=torch.float64).sum())
    assert result == 2**22
    if used is not None:
        assert 0.9 * 2**25 < used < 1.5 * 2**25


def test_a_run_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(machine, "rates", lambda: RATES)

    def races() -> Iterator[Race]:
        yield Race("exp", "1,000 numbers", X.exp, "log1p", lambda: X.exp().log().exp(), limit=1e-9, repeats=2)

    harness.run("bench_apple.py", races, lambda: ())
    written = json.loads((tmp_path / "results" / "apple.json").read_text(encoding="utf-8"))
    assert written["chapter"] == "apple"
    assert written["rates"] == asdict(RATES)
    assert written["races"][0]["kernel"] == "exp"
    assert written["machine"]["threads"] == 1
    assert written["machine"]["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_run_has_a_reason_for_every_bar_that_it_missed(path: Path) -> None:
    recorded = json.loads(path.read_text(encoding="utf-8"))
    assert recorded["chapter"] == path.stem
    assert recorded["machine"]["threads"] == 1
    for race in recorded["races"]:
        missed = [name for name, bar in race["bars"].items() if not bar["met"]]
        assert not missed or race["reason"], f"{race['kernel']}, {race['size']}: {missed}"
    for series in recorded["growth"]:
        assert series.get("rise", 0) <= 1.5 or series["reason"], f"{series['kernel']} against {series['axis']}"


def test_stamps_are_read_from_what_builds_and_tests_leave() -> None:
    log = "apple: executed in 20 s, 400 MiB\npear: executed in 31 s, 500 MiB\nThe book is built in 90 s. Open"
    assert [row[1:] for row in stamps.of_book(log)] == [
        ["all of it", "90 s"],
        ["executing pear", "31 s"],
        ["executing apple", "20 s"],
    ]
    case = '<testcase classname="tests.starc.test_epic" time="{}"/>'
    rows = stamps.of_tests("<testsuites>" + case.format(2.4) + case.format(1.2) + "</testsuites>")
    assert [row[1:] for row in rows] == [["all tests, added up", "4 s"], ["tests.starc.test_epic", "4 s"]]

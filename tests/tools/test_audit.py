"""The audit: fresh seeds, how often each claim holds, and what counts as not holding."""

from __future__ import annotations

import json

import pytest

from tools import audit, parallel
from tools.audit import Tally
from tools.options import Options
from tools.problems import Problem

from .conftest import Toy

CLAIMS = """
import os
from IPython.display import display
def claim(id, margin):
    record = dict(id=id, chapter='apple', passed=margin >= 0, margin=margin)
    display({'text/plain': id}, raw=True, metadata={'claim': record})
assert os.environ['CLAIMS_ON_FAILURE'] == 'record'
claim('steady', 0.5)
claim('shaky', seed % 2 - 0.25)
assert seed % 5, 'divisible by five'
"""


def test_seeds_are_fresh_or_reproducible() -> None:
    assert audit.fresh_seeds(4, None) != audit.fresh_seeds(4, None)
    assert audit.fresh_seeds(4, 3) == audit.fresh_seeds(4, 3)
    assert len(set(audit.fresh_seeds(1000, None))) == 1000


def test_a_claim_that_a_run_did_not_make_did_not_hold_there() -> None:
    def record(id: str, margin: float | None, passed: bool) -> dict[str, object]:
        return {"id": id, "margin": margin, "passed": passed}

    points = [("x", 1), ("y", 1), ("x", 2), ("y", 2)]
    records = {
        ("x", 1): [record("a", 0.3, True), record("b", None, True)],
        ("x", 2): [record("a", -0.1, False)],
        ("y", 1): [record("c", 0.2, True)],
    }
    assert audit.tally(points, records) == [
        Tally("x", "a", 2, 1, -0.1, 2),
        Tally("x", "b", 2, 1, None, None),
        Tally("y", "c", 2, 1, 0.2, 1),
    ]


def test_the_table_reads_well() -> None:
    lines = audit.table([Tally("x", "a-long-name", 5, 5, 0.51234, 77), Tally("x", "b", 5, 4, None, None)]).splitlines()
    assert lines[0].split() == ["claim", "holds", "worst", "margin", "at", "seed"]
    assert lines[1].split() == ["a-long-name", "5/5", "100", "%", "0.512", "77"]
    assert lines[2].split() == ["b", "4/5", "80", "%", "-", "-"]
    assert len({len(line) for line in lines[1:]}) <= 2


@pytest.mark.filterwarnings("default")  # of dask's own threads and sockets
def test_failures_are_counted_and_a_broken_run_is_named(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.chapter("apple", CLAIMS)
    monkeypatch.setattr(audit, "fresh_seeds", lambda count, _seed: [2, 3, 5][:count])
    with pytest.raises(Problem, match="audit failed: 2 of 2 claims below 100 %, 1 runs broke"):
        audit.audit(toy.root, Options(chapters=("apple",), seeds=3), workers=2)
    said = capsys.readouterr()
    assert "seeds: 2, 3, 5" in said.out
    assert "apple broke with seed 5: chapters/apple.ipynb, code cell 3" in said.err
    report = json.loads((toy.root / "build/audit.json").read_text())
    assert report["seeds"] == [2, 3, 5]
    assert [(line["id"], line["passed"], line["worst_margin"], line["worst_seed"]) for line in report["claims"]] == [
        ("steady", 2, 0.5, 2),
        ("shaky", 1, -0.25, 2),
    ]
    assert report["broken"][0]["seed"] == 5
    assert not toy.executed("apple").exists(), "an audit leaves the book alone"


def test_an_audit_without_failures_says_so(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "claims_of", lambda *_: [{"id": "a", "margin": 0.1, "passed": True}])
    audit.audit(toy.root, Options(chapters=("pear",), seeds=2, seed=4), workers=0)
    assert capsys.readouterr().out.endswith("all 1 claims held with all 2 seeds\n")


def test_cores_are_those_we_may_use() -> None:
    assert parallel.cores() >= 1

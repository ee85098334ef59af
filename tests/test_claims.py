"""The ledger refuses what cannot fail, what fails, and what is not a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import sympy as sp
import torch

from lib.claims import ClaimError, begin, bound, claim, collect, identity, ordering, records


@pytest.fixture(autouse=True)
def _fresh() -> None:
    begin("toy", seed=3, scale="laptop", device="cpu")


def test_a_claim_within_its_tolerance_is_recorded_with_all_its_facts() -> None:
    claim("a", "One is one", predicted=[1.0, 2.0], measured=[1.01, 2.03], rtol=0.02, rival={"double": [2.0, 4.0]})
    (record,) = records()
    assert record["passed"] is True
    assert (record["chapter"], record["seed"], record["scale"], record["device"]) == ("toy", 3, "laptop", "cpu")
    assert record["measured"] == 2.03  # 0.03 / 0.04 is worse than 0.01 / 0.02
    assert record["error"] == pytest.approx(0.03)
    assert record["tolerance"] == pytest.approx(0.04)
    assert record["margin"] == pytest.approx(0.25)
    assert record["points"] == 2
    assert record["rivals"]["double"]["rejected"] is True
    assert set(record["versions"]) == {"python", "numpy", "scipy", "torch", "sympy"}


def test_the_three_tolerances_add_up() -> None:
    facts: dict[str, Any] = {"stderr": 0.1, "sigmas": 3.0, "rtol": 0.05, "atol": 0.01}
    claim("inside", "Off by 0.355", predicted=1.0, measured=1.355, **facts)
    with pytest.raises(ClaimError, match="off at 1 of 1 points"):
        claim("outside", "Off by 0.365", predicted=1.0, measured=1.365, **facts)


@pytest.mark.parametrize("measured", [np.nan, np.inf, [1.0, np.nan], []])
def test_nan_infinity_and_nothing_never_pass(measured: Any) -> None:
    with pytest.raises(ClaimError, match=r"not finite|nothing was compared"):
        claim("a", "Not a number", predicted=measured, measured=measured, rtol=1.0)
    with pytest.raises(ClaimError, match=r"not finite|nothing was compared"):
        bound("b", "Not a number", value=measured, upper=1e9)
    with pytest.raises(ClaimError, match=r"not finite|nothing was compared"):
        ordering("c", "Not a number", values=np.atleast_1d(measured), direction="rising")
    with pytest.raises(ClaimError, match=r"not finite|nothing was compared"):
        identity("d", "Not a number", left=measured, right=measured, rtol=1e-9)


@pytest.mark.parametrize("rival", [1.04, [1.0, 1.05]])
def test_a_rival_that_the_data_do_not_reject_fails_the_claim(rival: Any) -> None:
    with pytest.raises(ClaimError, match="rival 'close' is not rejected"):
        claim("a", "Too lax", predicted=1.0, measured=1.0, rtol=0.1, rival={"close": rival})


def test_a_rival_without_a_finite_number_is_not_taken_as_rejected() -> None:
    with pytest.raises(ClaimError, match="predicts no finite number"):
        claim("a", "A rival of NaN", predicted=1.0, measured=1.0, rtol=0.1, rival={"broken": np.nan})
    with pytest.raises(ClaimError, match="rival 'empty' is not rejected"):
        ordering("b", "An empty rival", values=[1, 2], direction="rising", rival={"empty": [1.0]})


def test_an_id_can_be_used_once_only() -> None:
    claim("a", "First", predicted=1.0, measured=1.0, rtol=0.1)
    with pytest.raises(ClaimError, match="a: this id is taken by the claim 'First'"):
        claim("a", "First", predicted=1.0, measured=1.0, rtol=0.1)


@pytest.mark.parametrize("name", ["", "Upper", "with space", "1st", "a_b"])
def test_an_id_has_one_form(name: str) -> None:
    with pytest.raises(ValueError, match="id: got"):
        claim(name, "Any", predicted=1.0, measured=1.0, rtol=0.1)


def test_a_failed_claim_is_written_down_before_it_raises(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ClaimError):
        claim("a", "Two is three", predicted=3.0, measured=2.0, rtol=0.1)
    assert records()[0]["passed"] is False
    assert records()[0]["margin"] < 0
    assert "✗ a: Two is three [off at 1 of 1 points]" in capsys.readouterr().out


def test_an_audit_records_failures_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAIMS_ON_FAILURE", "record")
    claim("a", "Two is three", predicted=3.0, measured=2.0, rtol=0.1)
    claim("b", "A lax one", predicted=1.0, measured=1.0, rtol=0.1, rival={"near": 1.05})
    assert [(r["passed"], r["margin"] < 0) for r in records()] == [(False, True), (False, True)]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "tolerance: got none"),
        ({"sigmas": 3.0}, "stderr and sigmas"),
        ({"stderr": 0.1}, "stderr and sigmas"),
        ({"rtol": -0.1}, "rtol: got -0.1, want a finite number >= 0"),
        ({"atol": np.inf}, "atol: got inf"),
        ({"stderr": -1.0, "sigmas": 2.0}, "stderr: got -1, want numbers >= 0"),
        ({"rtol": 0.1, "rival": {"odd": [1.0, 2.0, 3.0]}}, r"rival 'odd' \(3,\), measured \(2,\)"),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        claim("a", "Any", predicted=[1.0, 1.0], measured=[1.0, 1.0], **facts)
    with pytest.raises(ValueError, match="predicted: got str, want real numbers"):
        claim("b", "Any", predicted="one", measured=1.0, rtol=0.1)


def test_tensors_of_any_dtype_are_compared() -> None:
    claim("a", "Tensors", predicted=torch.ones(3), measured=torch.ones(3, dtype=torch.float64), atol=1e-9)
    assert records()[0]["points"] == 3


def test_a_bound_shows_its_tightest_point_and_counts_violations() -> None:
    bound("up", "Below", value=[1.0, 1.9], upper=[2.0, 2.0], rival={"lower bound": 1.5})
    assert (records()[0]["measured"], records()[0]["margin"]) == (1.9, pytest.approx(0.05))
    bound("down", "Above", value=[1.0, 1.9], lower=0.5, rival={"higher": 1.5})
    assert records()[1]["margin"] == pytest.approx(1.0)
    with pytest.raises(ClaimError, match="violated at 1 of 2 points"):
        bound("bad", "Violated", value=[1.0, 3.0], upper=2.0)
    with pytest.raises(ClaimError, match="rival 'higher' is not rejected"):
        bound("lax", "Rival holds too", value=1.0, upper=2.0, rival={"higher": 3.0})
    with pytest.raises(ValueError, match="upper and lower"):
        bound("both", "Both", value=1.0, upper=2.0, lower=0.0)


def test_a_bound_forgives_only_the_rounding_it_names() -> None:
    bound("rounding", "A hair above", value=1 + 1e-13, upper=1.0, rtol=1e-12)
    assert records()[0]["margin"] >= 0
    with pytest.raises(ClaimError):
        bound("strict", "A hair above", value=1 + 1e-13, upper=1.0)


def test_an_ordering_is_strict_and_goes_along_every_axis_named() -> None:
    grid = np.add.outer(np.arange(3.0), np.arange(4.0))
    ordering("both", "Rises both ways", values=grid, direction="rising", axis=(0, 1), rival={"falls": -grid})
    assert records()[0]["points"] == 2 * 4 + 3 * 3
    with pytest.raises(ClaimError, match="1 of 2 steps go the other way"):
        ordering("flat", "A plateau", values=[3, 2, 2], direction="falling")
    with pytest.raises(ClaimError, match="rival 'also falls' is not rejected"):
        ordering("lax", "Rival falls too", values=[2, 1], direction="falling", rival={"also falls": [3, 2]})
    with pytest.raises(ValueError, match="axis: got 2"):
        ordering("axis", "No such axis", values=[1, 2], direction="rising", axis=2)
    with pytest.raises(ValueError, match="direction: got 'up'"):
        ordering("direction", "Which way", values=[1, 2], direction="up")


def test_an_identity_is_symbolic_or_numerical() -> None:
    x, y = sp.symbols("x y")
    identity("one", "Squares", left=[(x + y) ** 2, x], right=[x**2 + 2 * x * y + y**2, x], rival={"no": [x**2, x]})
    identity("two", "Numbers", left=[1.0, 2.0], right=[1.0, 2.0 + 1e-15], rtol=1e-14, rival={"no": [1.0, 2.1]})
    assert all(record["passed"] for record in records())
    with pytest.raises(ClaimError, match="1 of 1 differ"):
        identity("wrong", "Squares", left=(x + y) ** 2, right=x**2 + y**2)
    with pytest.raises(ClaimError, match="rival 'same' is not rejected"):
        identity("lax", "Rival the same", left=x, right=x, rival={"same": x})
    with pytest.raises(ClaimError, match="nothing was compared"):
        identity("none", "Nothing", left=[], right=[])
    with pytest.raises(ValueError, match="got 1 expressions, want 2"):
        identity("odd", "Lengths", left=[x, y], right=x)


def test_a_session_needs_a_seed_and_a_scale() -> None:
    with pytest.raises(ValueError, match="seed: got -1"):
        begin("toy", seed=-1, scale="laptop", device="cpu")
    with pytest.raises(ValueError, match="scale: got 'huge'"):
        begin("toy", seed=0, scale="huge", device="cpu")


def test_collect_reads_the_metadata_of_outputs_and_names_a_broken_file(tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell("claim(...)")
    data = {"text/plain": "row"}
    cell.outputs = [nbformat.v4.new_output("display_data", data, metadata={"claim": {"id": "a", "passed": True}})]
    cell.outputs.append(nbformat.v4.new_output("stream", text="other"))
    path = tmp_path / "toy.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_markdown_cell("text")]), path)
    assert collect(path) == [{"id": "a", "passed": True}]
    path.write_text("no notebook")
    with pytest.raises(ValueError, match=r"toy\.ipynb, which is no notebook"):
        collect(path)


def test_a_record_is_plain_python_that_json_can_hold() -> None:
    import json

    claim("a", "Tensors", predicted=torch.ones(3), measured=np.ones(3), atol=1e-9, rival={"r": torch.zeros(3)})
    bound("b", "Bound", value=np.float32(1.0), upper=torch.tensor(2.0), rival={"r": 0.5})
    ordering("c", "Order", values=torch.arange(3), direction="rising", rival={"r": [1, 0]})
    assert json.loads(json.dumps(records(), allow_nan=False)) == records()

"""Execution of one chapter: what comes out, what a failure says, and that nothing half-made is left or believed."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tools import execute
from tools.parallel import HERE

from .conftest import Toy


def command(toy: Toy, chapter: str, parameters: Mapping[str, int | str]) -> list[str]:
    """The command line with which the build executes a chapter."""
    given = ["--root", str(toy.root), "--parameters", json.dumps(parameters)]
    return [sys.executable, "-m", "tools.execute", chapter, *given]


def run(toy: Toy, chapter: str = "apple", **parameters: int | str) -> subprocess.CompletedProcess[str]:
    """Execute a chapter as the build does."""
    return subprocess.run(command(toy, chapter, parameters), cwd=HERE, capture_output=True, text=True, check=False)


def printed(path: Path) -> list[str]:
    """All that the cells of an executed chapter printed."""
    outputs = [output for cell in json.loads(path.read_text())["cells"] for output in cell.get("outputs", [])]
    return [output["text"] for output in outputs if output["output_type"] == "stream"]


def injected(path: Path) -> list[str]:
    """The cells that papermill added."""
    cells = json.loads(path.read_text())["cells"]
    return [cell["source"] for cell in cells if "injected-parameters" in cell["metadata"].get("tags", [])]


def test_default_run_injects_nothing_and_writes_only_its_result(toy: Toy) -> None:
    toy.chapter("apple", "open('notes.txt', 'w').write('x')\nimport os; print('here', os.getcwd())")
    before = {path: path.read_bytes() for path in toy.root.rglob("*") if path.is_file()}
    done = run(toy, seed=1)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["cell 1 4", "cell 2 4", "cell 3 4", "cell 4 4"]
    result = toy.executed("apple")
    assert injected(result) == []
    assert str(toy.root / "build") in printed(result)[0]
    after = {path: path.read_bytes() for path in toy.root.rglob("*") if path.is_file()}
    assert set(after) - set(before) == {result, execute.record(result)}
    assert {path: after[path] for path in before} == before


def test_the_record_tells_what_it_was_made_from_and_what_it_took(toy: Toy) -> None:
    toy.chapter("apple", "print('seed', seed)\nballast = bytearray(200_000_000)")
    assert run(toy, seed=7).returncode == 0
    result = toy.executed("apple")
    assert printed(result) == ["seed 7\n"]
    assert injected(result) == ["# Parameters\nseed = 7\n"]
    assert "papermill" not in result.read_text(), "times and paths of this machine"
    last = execute.last_run(result)
    assert last is not None
    assert last.parameters == {"seed": 7, "scale": "laptop", "device": "auto"}
    assert 0.1 < last.seconds < 60
    assert 200e6 < last.peak_memory < 1000e6
    assert execute.current(toy.root, "apple", {"seed": 7}, result) == last
    assert execute.current(toy.root, "apple", {}, result) is None
    (toy.root / "lib/apple/core.py").write_text("new = 1\n")
    assert execute.current(toy.root, "apple", {"seed": 7}, result) is None


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("\nratio = 1 / 0\nprint(ratio)", 'code cell 3 ("ratio = 1 / 0"): ZeroDivisionError: division by zero'),
        ("import os; os._exit(3)", 'code cell 3 ("import os; os._exit(3)"): DeadKernelError: Kernel died'),
    ],
    ids=["error", "dead kernel"],
)
def test_a_failing_cell_is_named_with_chapter_and_error(cell: str, says: str, toy: Toy) -> None:
    toy.chapter("apple", cell, "print('never')")
    done = run(toy, seed=5)
    assert done.returncode == 1
    assert done.stderr == f"chapters/apple.ipynb, {says}\n"
    assert list((toy.root / "build/executed").iterdir()) == []


def test_a_bad_notebook_is_named_before_a_kernel_starts(toy: Toy) -> None:
    path = toy.chapter("apple")
    notebook = json.loads(path.read_text())
    notebook["cells"][0]["cell_type"] = "poem"
    path.write_text(json.dumps(notebook))
    done = run(toy)
    assert done.returncode == 1
    assert done.stderr.startswith("chapters/apple.ipynb: is no valid notebook (")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "kill"])
def test_an_interruption_leaves_nothing_half_made(number: signal.Signals, toy: Toy) -> None:
    toy.chapter("apple", "import time; time.sleep(60)")
    process = subprocess.Popen(command(toy, "apple", {}), cwd=HERE, text=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert any(line == "cell 4 4\n" for line in process.stdout)
    process.send_signal(number)
    start = time.monotonic()
    process.communicate(timeout=30)
    assert time.monotonic() - start < 20
    assert process.returncode == 130
    assert list((toy.root / "build/executed").iterdir()) == []


def test_a_result_that_was_cut_off_or_mixed_up_is_none(toy: Toy) -> None:
    result = toy.executed("apple")
    result.parent.mkdir(parents=True)
    whole = '{"cells": []}'
    facts = {"fingerprint": "f", "sha256": "", "seconds": 1.0, "peak_memory": 1, "parameters": {}}
    facts["sha256"] = hashlib.sha256(whole.encode()).hexdigest()
    result.write_text(whole)
    assert execute.last_run(result) is None, "without a record"
    execute.record(result).write_text(json.dumps(facts))
    assert execute.last_run(result) is not None
    result.write_text(whole[:-1])
    assert execute.last_run(result) is None
    result.write_text(whole)
    for broken in (json.dumps(facts)[:-5], "[]", "{}"):
        execute.record(result).write_text(broken)
        assert execute.last_run(result) is None

"""Sweeps: every point answered once, in this process, by local workers, by a cluster, and when a worker is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.sweeps import SweepError, sweep

pytestmark = pytest.mark.filterwarnings("default")  # of dask's own threads and sockets, when workers are killed
LOCAL = [0, 2]


def square(point: tuple[int, int]) -> int:
    number, seed = point
    return number**2 + seed


def fragile(number: int) -> float:
    if number == 2:
        raise OverflowError("two is too much")
    return 1 / number


@pytest.mark.parametrize("workers", LOCAL)
def test_answers_are_keyed_by_point_and_in_its_order(workers: int) -> None:
    points = [(number, seed) for number in (3, 1, 2) for seed in (1, 0)]
    answers = sweep(square, points, workers=workers, progress=False)
    assert list(answers.items()) == [(point, square(point)) for point in points]


@pytest.mark.parametrize("workers", LOCAL)
def test_a_point_that_raises_is_named_and_loses_no_other(workers: int) -> None:
    with pytest.raises(
        SweepError, match=r"^2 of 4 points failed: 0: ZeroDivisionError: .*; 2: OverflowError: two"
    ) as error:
        sweep(fragile, [4, 0, 2, 1], workers=workers, progress=False)
    assert error.value.values == {4: 0.25, 1: 1.0}
    assert list(error.value.errors) == [0, 2]


def test_nothing_lost_and_nothing_counted_twice_when_a_worker_is_killed(tmp_path: Path) -> None:
    def point_that_kills_once(point: int) -> tuple[int, int]:
        (tmp_path / f"{point}-{os.getpid()}-{time.time_ns()}").touch()
        time.sleep(0.1)
        killed = tmp_path / "killed"
        if point == 5 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return point, os.getpid()

    points = list(range(12))
    answers = sweep(point_that_kills_once, points, workers=2, progress=False)
    assert list(answers) == points
    assert [point for point, _ in answers.values()] == points
    assert (tmp_path / "killed").exists()
    tries = [path.name.split("-")[0] for path in tmp_path.iterdir() if path.name != "killed"]
    assert tries.count("5") == 2
    assert len(tries) > len(points), "computed more often than counted"


def test_a_point_that_kills_every_worker_is_an_error_and_loses_no_other() -> None:
    def deadly(point: int) -> int:
        if point == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.5)  # dask takes half a minute to end a cluster whose workers are just starting again
        return point

    with pytest.raises(SweepError, match="1: KilledWorker") as error:
        sweep(deadly, list(range(8)), workers=2, retries=1, progress=False)
    assert error.value.values == {point: point for point in range(8) if point != 1}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A scheduler with one worker, started from the command line as on a cluster."""
    file = tmp_path / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    commands = (
        ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)],
        ["worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--no-nanny"],
    )
    log = (tmp_path / "log").open("w")
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "dask", *command], env=environment, cwd=tmp_path, stdout=log, stderr=log
        )
        for command in commands
    ]
    try:
        from distributed import Client

        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        with Client(scheduler_file=str(file)) as client:
            yield client.scheduler.address
    finally:
        for process in reversed(started):  # a worker that loses its scheduler while it ends may hang
            process.terminate()
            process.wait(timeout=30)
        log.close()


def test_a_cluster_gives_the_same_answers(cluster: str) -> None:
    def unseen(point: int) -> int:  # of a module that the workers cannot import
        return point + 1

    assert sweep(unseen, [3, 4], scheduler=cluster, progress=False) == {3: 4, 4: 5}


def test_no_scheduler_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.sweeps.PATIENCE", 0.5)
    with pytest.raises(ConnectionError, match=r"scheduler: got tcp://127\.0\.0\.1:9, where no scheduler answers"):
        sweep(square, [(1, 1)], scheduler="tcp://127.0.0.1:9", progress=False)


def test_without_dask_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r'pip install "executable-theory\[sweeps\]"'):
        sweep(square, [(1, 1)], progress=False)
    assert sweep(square, [(1, 1)], workers=0, progress=False) == {(1, 1): 2}


def test_a_line_per_finished_point_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SweepError):
        sweep(fragile, [1, 0], workers=0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "1/2 1: 0.0 s"
    assert lines[1].startswith("2/2 0: ZeroDivisionError")


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="points: got 7 more than once"):
        sweep(fragile, [7, 8, 7])
    with pytest.raises(ValueError, match="workers: got -1, want"):
        sweep(fragile, [7], workers=-1)
    with pytest.raises(ValueError, match="retries: got -2, want"):
        sweep(fragile, [7], retries=-2)


@pytest.mark.parametrize("workers", LOCAL)
def test_no_points_no_answers(workers: int) -> None:
    assert sweep(square, [], workers=workers) == {}

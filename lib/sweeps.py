"""Sweeps over parameters and seeds that may outgrow one process or one machine, through dask.distributed.

A sweep calls one function at many points. The points are spread over worker processes of this machine, or over a
cluster whose scheduler has an address; the call and the answer are the same. What a lost worker was computing, or had
computed and not yet handed over, is computed again; every point is answered exactly once.

Needs the packages of `pip install "executable-theory[sweeps]"`, and loads them only for a sweep that uses workers.
"""

from __future__ import annotations

import functools
import pickle
import sys
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["SweepError", "sweep"]

Point = TypeVar("Point", bound=Hashable)
Value = TypeVar("Value")

PATIENCE = 30.0  # seconds for a scheduler to answer and for its first worker to be there


class SweepError(RuntimeError):
    """Some points failed. `values` has the answers of all others, `errors` the message of each that failed."""

    def __init__(self, values: Mapping[Any, Any], errors: Mapping[Any, str]) -> None:
        super().__init__(values, errors)
        self.values, self.errors = dict(values), dict(errors)

    def __str__(self) -> str:
        """Which points failed, and with what."""
        listed = "; ".join(f"{point!r}: {message}" for point, message in self.errors.items())
        return f"{len(self.errors)} of {len(self.errors) + len(self.values)} points failed: {listed}"


@dataclass(frozen=True)
class _Answer(Generic[Value]):
    """What one call gave: a value, or the message of its error; and the seconds it took."""

    value: Value | None
    error: str
    seconds: float


def sweep(
    function: Callable[[Point], Value],
    points: Iterable[Point],
    *,
    scheduler: str | None = None,
    workers: int = 2,
    retries: int = 2,
    progress: bool = True,
) -> dict[Point, Value]:
    """Call `function` at every point and return its values, keyed by point and in the order of the points.

    A point must decide its value alone (put the seed into it): it may be computed twice when a worker is lost, and only
    one of the two results is returned. An exception at a point is final, because a second call would raise it again.
    A script that sweeps over workers must do so below `if __name__ == "__main__":`, because they import it.

    Args:
        function: called with one point; function, point and value must survive pickling (a function defined in a
            notebook or a script does). It runs in other processes: what it prints or changes stays there.
        points: hashable and all different: a seed, or a tuple such as (n, k, seed).
        scheduler: address of a running scheduler (``"tcp://host:8786"``) whose workers can import what `function`
            imports; None starts worker processes on this machine and ends them afterwards.
        workers: number of those processes, one thread each; 0 computes in this process, one point after the other and
            without dask, which is the way to debug. Without effect if `scheduler` is given.
        retries: how often a point is tried again after the worker that computed it died. Without effect if `scheduler`
            is given: a cluster has its own setting, `distributed.scheduler.allowed-failures`.
        progress: whether to show a bar on a terminal, or a line per finished point where stderr is none.

    Returns:
        The value of every point.

    Raises:
        SweepError: at least one point raised, or killed its workers; carries the values of all others.
        ValueError: two points are equal, or a number of workers or retries is negative.
        ConnectionError: no scheduler answers at the address, or it has no worker.
        ImportError: dask is not installed.

    >>> def square(point):
    ...     n, seed = point
    ...     return n**2 + seed
    >>> sweep(square, [(n, seed) for n in (2, 3) for seed in (0, 1)], workers=0, progress=False)
    {(2, 0): 4, (2, 1): 5, (3, 0): 9, (3, 1): 10}
    """
    points = list(points)
    repeated = [point for point, times in Counter(points).items() if times > 1]
    if repeated:
        raise ValueError(f"points: got {repeated[0]!r} more than once, want every point once")
    for name, number in (("workers", workers), ("retries", retries)):
        if number < 0:
            raise ValueError(f"{name}: got {number}, want a whole number >= 0")
    if scheduler is None and workers == 0:
        finished: Iterator[tuple[Point, _Answer[Value]]] = ((point, _call(function, point)) for point in points)
    else:
        finished = _distributed(function, points, scheduler, min(workers, len(points)), retries)
    answers: dict[Point, _Answer[Value]] = {}
    with _reporter(len(points), progress) as report:
        for point, answer in finished:
            answers[point] = answer
            report(point, answer)
    errors = {point: answers[point].error for point in points if answers[point].error}
    values: dict[Point, Any] = {point: answers[point].value for point in points if point not in errors}
    if errors:
        raise SweepError(values, errors)
    return values


def _call(function: Callable[[Point], Value], point: Point) -> _Answer[Value]:
    """The function at a point; an error becomes its message, which travels where the exception might not."""
    start = time.perf_counter()
    try:
        value, error = function(point), ""
    except Exception as raised:
        value, error = None, f"{type(raised).__name__}: {raised}"
    return _Answer(value, error, time.perf_counter() - start)


def _call_pickled(function: bytes, point: Point) -> _Answer[Any]:
    return _call(pickle.loads(function), point)


def _distributed(
    function: Callable[[Point], Value], points: list[Point], scheduler: str | None, workers: int, retries: int
) -> Iterator[tuple[Point, _Answer[Value]]]:
    """The answers of all points as they come in, each once."""
    if not points:
        return
    try:
        import cloudpickle
        import dask
        from distributed import Client, KilledWorker, LocalCluster, as_completed
    except ImportError as error:
        message = f'a sweep over workers needs dask ({error}): pip install "executable-theory[sweeps]", or workers=0'
        raise ImportError(message) from error
    # The function is pickled here and not by dask, which sends it by name where it can, also when it was registered to
    # be sent by value because the workers have not got its module.
    call = functools.partial(_call_pickled, cloudpickle.dumps(function))
    with ExitStack() as stack:
        if scheduler is None:
            stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": retries}))
            options = {"n_workers": workers, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
            client = stack.enter_context(Client(stack.enter_context(LocalCluster(**options))))
        else:
            client = stack.enter_context(_connect(Client, scheduler))

        def answers(batch: list[Point]) -> Iterator[tuple[Point, _Answer[Value] | None]]:
            keys = [f"point-{i}-{time.time_ns()}" for i in range(len(batch))]  # never a result of an earlier sweep
            point_of = dict(zip(keys, batch, strict=True))
            for future in as_completed(client.map(call, batch, key=keys, pure=False)):
                try:
                    yield point_of[future.key], future.result()
                except KilledWorker:
                    yield point_of[future.key], None
                except Exception as error:  # not the function's own: for instance a value that cannot be pickled
                    message = f"{type(error).__name__}: {' '.join(str(error).split())}"
                    yield point_of[future.key], _Answer(None, message, 0.0)

        killed = []
        for point, answer in answers(points):
            if answer is None:
                killed.append(point)
            else:
                yield point, answer
        # dask blames a death on all points that wait at the worker; alone, a point answers for itself only.
        for suspect in killed:
            for point, answer in answers([suspect]):
                yield point, answer or _Answer(None, "KilledWorker: every worker that tried it died", 0.0)


def _connect(client_type: Callable[..., Any], address: str) -> Any:
    try:
        client = client_type(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise ConnectionError(f"scheduler: got {address}, where no scheduler answers ({error})") from error
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as error:
        client.close()
        raise ConnectionError(f"scheduler: got {address}, which has no worker; start one there") from error
    return client


@contextmanager
def _reporter(total: int, progress: bool) -> Iterator[Callable[[Any, _Answer[Any]], None]]:
    """A function that is told of every finished point: a bar on a terminal, elsewhere a line each, or nothing."""
    if not progress:
        yield lambda _point, _answer: None
    elif sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, unit="point") as bar:
            yield lambda _point, _answer: bar.update()
    else:
        done = 0

        def line(point: Any, answer: _Answer[Any]) -> None:
            nonlocal done
            done += 1
            print(f"{done}/{total} {point!r}: {answer.error or f'{answer.seconds:.1f} s'}", file=sys.stderr, flush=True)

        yield line

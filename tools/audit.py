"""`make audit SEEDS=5`: execute the chapters with fresh seeds and tell how often each claim holds."""

from __future__ import annotations

import functools
import json
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cloudpickle

import tools
from lib.sweeps import SweepError, sweep

from . import execute, notebooks, options, parallel, stage
from .options import Options
from .problems import Problem, finish

LARGEST = 10**6  # seeds that a person can type
Point = tuple[str, int]  # chapter and seed
Record = dict[str, Any]


@dataclass(frozen=True)
class Tally:
    """How one claim fared over all seeds."""

    chapter: str
    id: str
    runs: int
    passed: int
    worst_margin: float | None
    worst_seed: int | None

    @property
    def rate(self) -> float:
        """The share of the runs in which it was made and held."""
        return self.passed / self.runs


def claims_of(root: Path, parameters: Mapping[str, notebooks.Parameter], point: Point) -> list[Record]:
    """Execute one chapter with one seed; returns the records of its claims, also of those that failed.

    Raises:
        Problem: the chapter broke elsewhere than at a claim.
    """
    from lib.claims import collect  # in the worker

    chapter, seed = point
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        target = Path(folder) / f"{chapter}.ipynb"
        execute.execute(root, chapter, {**parameters, "seed": seed}, target, failing_claims="record")
        return collect(target)


def fresh_seeds(count: int, seed: int | None) -> list[int]:
    """Different seeds: from the system's randomness, or from `seed` if it is given.

    >>> fresh_seeds(2, 7) == fresh_seeds(2, 7)
    True
    """
    source = random.SystemRandom() if seed is None else random.Random(seed)
    return sorted(source.sample(range(LARGEST), count))


def tally(points: Sequence[Point], records: Mapping[Point, Sequence[Record]]) -> list[Tally]:
    """One line per claim. A claim that a run did not make, because the run broke or left it out, did not hold there."""
    found: dict[Point, dict[str, Record]] = {point: {r["id"]: r for r in records.get(point, ())} for point in points}
    ids = dict.fromkeys((chapter, id) for (chapter, _), claims in found.items() for id in claims)
    lines = []
    for chapter, id in ids:
        made = {seed: claims.get(id) for (name, seed), claims in found.items() if name == chapter}
        margins = [(r["margin"], seed) for seed, r in made.items() if r is not None and r["margin"] is not None]
        worst, at = min(margins, default=(None, None))
        passed = sum(r is not None and bool(r["passed"]) for r in made.values())
        lines.append(Tally(chapter, id, len(made), passed, worst, at))
    return lines


def table(lines: Sequence[Tally]) -> str:
    """The tallies as text, in the order of the chapters."""
    width = max([len(line.id) for line in lines] + [5])
    rows = [f"{'claim':{width}}  {'holds':>11}  {'worst margin':>12}  at seed"]
    for line in lines:
        holds = f"{line.passed}/{line.runs} {100 * line.rate:3.0f} %"
        margin = "-" if line.worst_margin is None else f"{line.worst_margin:.3g}"
        seed = "-" if line.worst_seed is None else line.worst_seed
        rows.append(f"{line.id:{width}}  {holds:>11}  {margin:>12}  {seed}")
    return "\n".join(rows)


def audit(root: Path, chosen: Options, workers: int) -> None:
    """Execute, print the table, and write `build/audit.json`.

    Raises:
        Problem: a claim did not hold everywhere, or a chapter broke.
    """
    chapters = stage.in_order(root, chosen.chapters)
    seeds = fresh_seeds(chosen.seeds, chosen.seed)
    print(f"chapters: {', '.join(chapters)}\nseeds: {', '.join(map(str, seeds))}", flush=True)
    points = [(chapter, seed) for seed in seeds for chapter in chapters]
    parameters = {name: value for name, value in chosen.parameters().items() if name != "seed"}
    # The workers of a cluster have `lib` installed, but not the tools.
    cloudpickle.register_pickle_by_value(tools)
    call = functools.partial(claims_of, root, parameters)
    try:
        records, broken = sweep(call, points, scheduler=chosen.scheduler, workers=workers), {}
    except SweepError as error:
        records = error.values
        broken = {point: text.removeprefix("Problem: ") for point, text in error.errors.items()}
    except ConnectionError as error:
        raise Problem(str(error)) from error
    lines = tally(points, records)
    print(table(lines))
    report = {
        "seeds": seeds,
        "parameters": parameters,
        "claims": [asdict(line) for line in lines],
        "broken": [{"chapter": name, "seed": seed, "error": text} for (name, seed), text in broken.items()],
    }
    notebooks.write(root / "build" / "audit.json", json.dumps(report, indent=1) + "\n")
    failing = [line for line in lines if line.passed < line.runs]
    for (chapter, seed), text in broken.items():
        print(f"{chapter} broke with seed {seed}: {text}", file=sys.stderr)
    if failing or broken:
        raise Problem(f"audit failed: {len(failing)} of {len(lines)} claims below 100 %, {len(broken)} runs broke")
    print(f"all {len(lines)} claims held with all {len(seeds)} seeds")


def main() -> None:
    """Audit this project with the options of the environment."""
    root = Path(__file__).resolve().parent.parent
    audit(root, options.read(root), parallel.cores())


if __name__ == "__main__":
    finish(main)

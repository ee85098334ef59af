"""`make bench`: the benchmarks one after the other, so that none disturbs another; they write `benchmarks/results/`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from . import options
from .problems import Misuse, Problem, finish

OTHERS = ("precision", "sweeps")  # of no single chapter: run when none is named


def scripts(root: Path, chapters: tuple[str, ...]) -> list[Path]:
    """The benchmarks to run: of all chapters, or of those named.

    Raises:
        Misuse: a named chapter has no benchmark, or there is none at all.
    """
    found = {path.stem.removeprefix("bench_"): path for path in sorted((root / "benchmarks").glob("bench_*.py"))}
    for chapter in chapters:
        if chapter not in found:
            raise Misuse(f"CHAPTERS: got {chapter!r}, which has no benchmark; want some of {', '.join(found)}")
    if not found:
        raise Misuse("benchmarks: found no benchmarks/bench_*.py")
    others = [root / "benchmarks" / f"{name}.py" for name in OTHERS]
    chosen = [path for name, path in found.items() if not chapters or name in chapters]
    return chosen if chapters else chosen + [path for path in others if path.exists()]


def main() -> None:
    """Run them, and go on after one that fails."""
    root = Path(__file__).resolve().parent.parent
    failed = []
    for path in scripts(root, options.read(root).chapters):
        print(f"== {path.stem.removeprefix('bench_')}", flush=True)
        paths = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": paths}
        if subprocess.run([sys.executable, str(path)], cwd=root, env=environment, check=False).returncode:
            failed.append(path.name)
    if failed:
        raise Problem(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    finish(main)

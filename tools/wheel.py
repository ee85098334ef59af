"""`make wheel-check`: build the wheel, install it into an environment that has nothing else, and try it there.

First as `pip install .` leaves it, which has to run the examples of the README; then with the extras of
`pyproject.toml`, which have to run every doctest. Nothing is pinned: this is what a stranger gets today.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from .problems import Problem, finish

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "LICENSE-text", "lib")  # what goes into the wheel
EXTRAS = "data,sweeps"
PAGES = ("README.md", "book/how_to_use.md")
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "-q")


def build(root: Path, folder: Path, *, isolated: bool) -> Path:
    """Build the wheel from a copy of the sources, since setuptools leaves things behind; returns its path.

    Args:
        root: the project.
        folder: where the wheel goes; a subfolder holds the copy.
        isolated: with a setuptools of its own, fetched as a stranger's pip would; else with the one that is here.

    Raises:
        Problem: it cannot be built.
    """
    source = folder / "source"
    source.mkdir(parents=True)
    for name in SOURCES:
        if (root / name).is_dir():
            shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / name, source / name)
    here = [] if isolated else ["--no-build-isolation"]
    run(sys.executable, *PIP, "wheel", "--no-deps", *here, "-w", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    return wheel


def run(*command: str, cwd: Path | None = None) -> str:
    """What a command prints.

    Raises:
        Problem: it failed; the text is what it said.
    """
    # Nothing that PYTHONPATH leads to shall count as installed.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Problem(f"{done.stdout}{done.stderr}failed: {' '.join(command)}")
    return done.stdout


def check(root: Path, folder: Path) -> None:
    """Build, install, try, and say what it took.

    Raises:
        Problem: a step failed.
    """
    start = time.perf_counter()
    wheel = build(root, folder, isolated=True)
    print(f"{wheel.name}: {wheel.stat().st_size / 1e3:.0f} kB", flush=True)
    venv.EnvBuilder(with_pip=True, symlinks=True).create(folder / "empty")
    python, elsewhere = str(folder / "empty" / "bin" / "python"), folder / "elsewhere"
    elsewhere.mkdir()
    script, pages = str(root / "tools" / "installed.py"), [str(root / page) for page in PAGES]
    run(python, *PIP, "install", str(wheel))
    print(run(python, "-I", script, "--no-doctests", *pages, cwd=elsewhere), end="", flush=True)
    run(python, *PIP, "install", f"{wheel}[{EXTRAS}]")
    print(run(python, "-I", script, cwd=elsewhere), end="", flush=True)
    run(python, *PIP, "check")
    size = sum(path.stat().st_size for path in (folder / "empty").rglob("*") if path.is_file())
    print(f"all of it runs in an environment of {size / 1e9:.1f} GB; {time.perf_counter() - start:.0f} s")


def main() -> None:
    """Check this project's wheel in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
        check(Path(__file__).resolve().parent.parent, Path(folder))


if __name__ == "__main__":
    finish(main)

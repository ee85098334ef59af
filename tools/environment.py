"""Set up `.venv`, run by the system's Python with the standard library only: `environment.py book | test`.

The environment carries a stamp with a hash of everything it was made from. The stamp is written last and removed first:
a set-up that was interrupted has none and is made again from scratch. Finding one that matches takes milliseconds.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (this is the file that tells an older Python so)
    sys.exit(
        f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: name another, make PYTHON=python3.12 book"
    )

import fcntl
import hashlib
import importlib.util
import json
import os
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FILES = {"book": ["requirements.txt"], "test": ["requirements.txt", "requirements-test.txt"]}
RUNS = ("constraints.txt", *FILES["test"])  # what a set-up cannot do without


def fingerprint(root: Path, level: str) -> dict[str, str]:
    """What an environment of this level is made from: `base` needs a new one, `content` an update when it changes."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    parts = {name: project.get(name) for name in ("build-system", "project")}
    parts["setuptools"] = project.get("tool", {}).get("setuptools")
    content = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    for name in [*FILES[level], "constraints.txt"]:
        content.update(name.encode() + b"\0" + (root / name).read_bytes() + b"\0")
    return {"base": f"{sys.version} {root}", "content": content.hexdigest()}


def stamp(root: Path, level: str) -> Path:
    """Where the fingerprint of a finished set-up lies."""
    return root / ".venv" / f"{level}.stamp"


def ready(root: Path, level: str) -> bool:
    """Whether `.venv` was set up to the end from just these files, by just this Python, in this folder."""
    return _stamped(root, level) == fingerprint(root, level) and (root / ".venv/bin/python").exists()


def _stamped(root: Path, level: str) -> dict[str, str]:
    try:
        read = json.loads(stamp(root, level).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def set_up(root: Path, level: str, install: Callable[[Path, str, bool], None]) -> bool:
    """Make `.venv` ready for a level if it is not; returns whether there was anything to do.

    An environment without any stamp (interrupted, or not ours), of another Python or of another folder is made from
    scratch; one that is whole and only out of date is updated in place.
    """
    if ready(root, level):
        return False
    with exclusive(root):
        if ready(root, level):  # made meanwhile by the one we waited for
            return False
        known = [_stamped(root, each).get("base") for each in FILES if stamp(root, each).exists()]
        fresh = not known or any(base != fingerprint(root, level)["base"] for base in known)
        for each in FILES:
            stamp(root, each).unlink(missing_ok=True)
        install(root, level, fresh)
        for each in ("book", "test") if level == "test" else ("book",):
            write_stamp(root, each)
    return True


def write_stamp(root: Path, level: str) -> None:
    """Declare the environment finished."""
    write(stamp(root, level), json.dumps(fingerprint(root, level)))


def write(path: Path, text: str) -> None:
    """Write a file in one step."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """One set-up at a time: the second one waits and says so. The lock ends with its process, however that ends."""
    folder = os.open(root, os.O_RDONLY)  # the lock is on the folder itself: no file that `make clean` could remove
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up of .venv is running; waiting for it to end", file=sys.stderr, flush=True)
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def pip_install(root: Path, level: str, fresh: bool, *, requirements: Path | None = None) -> None:
    """Create the environment if `fresh`, install the requirements in one resolution and then the project itself.

    Raises:
        SystemExit: a step failed; pip has said why.
    """
    import venv  # costs time, and most runs have nothing to do

    print(f"setting up .venv ({'from scratch' if fresh else 'update'}; this takes minutes)", flush=True)
    if fresh:
        if importlib.util.find_spec("ensurepip") is None:
            sys.exit("this Python has no ensurepip, which makes environments; on Debian or Ubuntu install python3-venv")
        venv.EnvBuilder(clear=True, with_pip=True, symlinks=True).create(root / ".venv")
    pip = [str(root / ".venv/bin/python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    wanted = requirements or root / FILES[level][-1]
    # Nothing that PYTHONPATH leads to shall count as installed.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for step in (
        ["install", "-qq", "-r", str(wanted)],
        ["install", "-qq", "--no-deps", "--no-build-isolation", "-e", str(root)],
        ["check"],
    ):
        done = subprocess.run([*pip, *step], stdout=subprocess.PIPE, text=True, env=own, check=False)
        if done.returncode:
            sys.exit(f"{done.stdout}setting up .venv failed at: pip {' '.join(step)}")


def main() -> None:
    """Set up what the first argument names."""
    root = Path(__file__).resolve().parent.parent
    level = sys.argv[1] if len(sys.argv) == 2 else ""
    if level not in FILES:
        sys.exit(f"level: got {sys.argv[1:]}, want one of {', '.join(FILES)}")
    missing = [name for name in RUNS if not (root / name).exists()]
    if missing:
        sys.exit(f"{', '.join(missing)}: missing in {root}, this is no whole checkout")
    try:
        set_up(root, level, pip_install)
    except KeyboardInterrupt:
        sys.exit("interrupted: .venv is unfinished and will be set up again")
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"setting up .venv failed and will be done again: {error}")


if __name__ == "__main__":
    main()

"""`make lock`: resolve the requirements anew, in a fresh `.venv`, and pin all of it in `constraints.txt`.

Run by the system's Python. Left out is what belongs to a platform and not to the book: torch's build (the direct pin in
`requirements.txt` names its version) with the packages of its accelerator, and the installers.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from . import environment

HEAD = "# Every package of the environment, at the version it was tested with. Written by `make lock`.\n"
LEFT_OUT = re.compile(r"(torch|triton|nvidia-.*|cuda-.*|pip|setuptools|wheel|executable-theory)\W", re.IGNORECASE)


def pins(frozen: str) -> str:
    """The lines of `pip freeze` that belong into the constraints, sorted."""
    lines = [line for line in frozen.splitlines() if "==" in line and not LEFT_OUT.match(line)]
    return HEAD + "".join(f"{line}\n" for line in sorted(lines, key=str.lower))


def unconstrained(root: Path, folder: Path) -> Path:
    """Copies of the requirement files that do not name the constraints; returns the one to install."""
    for name in environment.FILES["test"]:
        lines = (root / name).read_text(encoding="utf-8").splitlines()
        (folder / name).write_text("\n".join(line for line in lines if not line.startswith("-c ")), encoding="utf-8")
    return folder / environment.FILES["test"][-1]


def lock(root: Path) -> None:
    """Make `.venv` from scratch without constraints, and write down what came."""
    with environment.exclusive(root), tempfile.TemporaryDirectory() as folder:
        for level in environment.FILES:
            environment.stamp(root, level).unlink(missing_ok=True)
        environment.pip_install(root, "test", fresh=True, requirements=unconstrained(root, Path(folder)))
        freeze = [str(root / ".venv/bin/python"), "-m", "pip", "freeze", "--exclude-editable"]
        frozen = subprocess.run(freeze, stdout=subprocess.PIPE, text=True, check=True).stdout
        environment.write(root / "constraints.txt", pins(frozen))
        for level in environment.FILES:
            environment.write_stamp(root, level)


if __name__ == "__main__":
    lock(Path(__file__).resolve().parent.parent)

"""Find a Chromium for the tests of the pages, and install one where that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .problems import Problem, finish

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


def find() -> str | None:
    """The path of a Chromium that starts: `CHROMIUM`, else from PATH, an application of macOS, or playwright's own.

    Raises:
        Problem: `CHROMIUM` is set to something that does not start.
    """
    named = os.environ.get("CHROMIUM")
    if named:
        if not _starts(named):
            raise Problem(f"CHROMIUM: got {named!r}, want the path of a Chromium that starts")
        return named
    return next((path for path in _candidates() if _starts(path)), None)


def install() -> str | None:
    """Install a Chromium: by apt as root on Debian, else playwright's.

    Returns its path; or None, and says why on stderr.
    """
    reasons = []
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in _installers():
        print(f"no Chromium found; running: {' '.join(command)}", file=sys.stderr, flush=True)
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        except OSError as error:
            reasons.append(f"{command[0]}: {error.strerror}")
            continue
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            reasons.append(f"{' '.join(command)}: {said}")
        elif path := find():
            return path
    print(f"no Chromium could be installed: {'; '.join(reasons) or 'what came does not start'}", file=sys.stderr)
    return None


def _installers() -> Iterator[list[str]]:
    system = Path("/etc/os-release")
    is_debian = system.exists() and "ID=debian" in system.read_text(encoding="utf-8").splitlines()
    if is_debian and os.geteuid() == 0:  # Ubuntu's package is only a pointer to a snap, which a container cannot run
        yield ["apt-get", "update", "-q"]
        yield ["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"]
    as_root = ["--with-deps"] if sys.platform == "linux" and os.geteuid() == 0 else []
    yield [sys.executable, "-m", "playwright", "install", *as_root, "chromium"]


def _candidates() -> Iterator[str]:
    yield from (path for name in NAMES if (path := shutil.which(name)))
    yield from (path for path in MAC if Path(path).exists())
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    if Path(path).exists():
        yield path


def _starts(path: str) -> bool:
    try:  # a path may exist and yet be a stub that asks for an installation
        return subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def main() -> None:
    """Make sure that there is a browser; without one only a run outside CI goes on."""
    path = find() or install()
    if path:
        print(f"browser: {path}")
    elif os.environ.get("CI") == "true":
        raise Problem("CI=true needs a browser for the tests of the pages, and there is none")
    else:
        print("WITHOUT A BROWSER THE TESTS OF THE PAGES ARE SKIPPED: set CHROMIUM to the path of one", file=sys.stderr)


if __name__ == "__main__":
    finish(main)

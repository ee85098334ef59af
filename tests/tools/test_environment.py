"""The set-up of `.venv`: redone when what it is made from changed or when it was interrupted, skipped otherwise."""

from __future__ import annotations

import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import environment

PROJECT = '[project]\nname = "toy"\n[tool.ruff]\nline-length = 99\n'
Install = Callable[[Path, str, bool], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project without an environment."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "requirements.txt").write_text("-c constraints.txt\nnumpy\n")
    (tmp_path / "requirements-test.txt").write_text("-r requirements.txt\npytest\n")
    (tmp_path / "constraints.txt").write_text("numpy==2\n")
    return tmp_path


@pytest.fixture
def calls() -> list[tuple[str, bool]]:
    """What was installed: level, and whether from scratch."""
    return []


@pytest.fixture
def install(calls: list[tuple[str, bool]]) -> Install:
    """A set-up that takes no time."""

    def pretend(root: Path, level: str, fresh: bool) -> None:
        calls.append((level, fresh))
        (root / ".venv/bin").mkdir(parents=True, exist_ok=True)
        (root / ".venv/bin/python").touch()

    return pretend


def test_is_made_once(root: Path, install: Install, calls: list[tuple[str, bool]]) -> None:
    assert environment.set_up(root, "book", install)
    assert not environment.set_up(root, "book", install)
    assert calls == [("book", True)]


def test_one_for_the_tests_serves_the_book_too(root: Path, install: Install, calls: list[tuple[str, bool]]) -> None:
    environment.set_up(root, "test", install)
    environment.set_up(root, "book", install)
    assert calls == [("test", True)]


def test_the_tests_need_more_than_the_book(root: Path, install: Install, calls: list[tuple[str, bool]]) -> None:
    environment.set_up(root, "book", install)
    environment.set_up(root, "test", install)
    assert calls == [("book", True), ("test", False)]


@pytest.mark.parametrize("name", ["requirements.txt", "constraints.txt", "pyproject.toml"])
def test_a_change_of_content_is_an_update(
    name: str, root: Path, install: Install, calls: list[tuple[str, bool]]
) -> None:
    environment.set_up(root, "book", install)
    (root / name).write_text((root / name).read_text().replace("numpy", "scipy").replace("toy", "boat"))
    environment.set_up(root, "book", install)
    assert calls == [("book", True), ("book", False)]


def test_a_new_date_or_another_section_changes_nothing(
    root: Path, install: Install, calls: list[tuple[str, bool]]
) -> None:
    environment.set_up(root, "book", install)
    (root / "requirements.txt").touch()
    (root / "requirements-test.txt").write_text("other\n")
    (root / "pyproject.toml").write_text(PROJECT.replace("99", "88"))
    environment.set_up(root, "book", install)
    assert calls == [("book", True)]


def test_an_interrupted_set_up_is_made_again_from_scratch(
    root: Path, install: Install, calls: list[tuple[str, bool]]
) -> None:
    def interrupted(root: Path, level: str, fresh: bool) -> None:
        install(root, level, fresh)
        raise KeyboardInterrupt

    environment.set_up(root, "book", install)
    (root / "requirements.txt").write_text("scipy\n")
    with pytest.raises(KeyboardInterrupt):
        environment.set_up(root, "test", interrupted)
    assert not environment.ready(root, "book")
    environment.set_up(root, "book", install)
    assert calls == [("book", True), ("test", False), ("book", True)]


def test_another_python_or_folder_means_from_scratch(
    root: Path, install: Install, calls: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.set_up(root, "book", install)
    monkeypatch.setattr(sys, "version", "3.99.0 (another one)")
    environment.set_up(root, "book", install)
    moved = root.rename(root.with_name("moved"))
    environment.set_up(moved, "book", install)
    assert calls == [("book", True)] * 3


def test_a_broken_stamp_or_a_missing_python_is_not_trusted(root: Path, install: Install) -> None:
    environment.set_up(root, "book", install)
    (root / ".venv/bin/python").unlink()
    assert not environment.ready(root, "book")
    (root / ".venv/bin/python").touch()
    environment.stamp(root, "book").write_text('{"base": "half')
    assert not environment.ready(root, "book")


def test_a_second_set_up_waits_and_then_has_nothing_to_do(
    root: Path, install: Install, calls: list[tuple[str, bool]], capfd: pytest.CaptureFixture[str]
) -> None:
    def slow(root: Path, level: str, fresh: bool) -> None:
        time.sleep(0.5)
        install(root, level, fresh)

    first = threading.Thread(target=environment.set_up, args=(root, "book", slow))
    first.start()
    time.sleep(0.1)
    assert not environment.set_up(root, "book", install)
    first.join()
    assert calls == [("book", True)]
    assert "another set-up of .venv is running" in capfd.readouterr().err


def test_an_old_python_is_told_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    monkeypatch.setattr(sys, "version", "3.9.2 (old)")
    with pytest.raises(SystemExit, match=r"Python 3\.11 or newer is needed, this is 3\.9\.2"):
        runpy.run_path(str(environment.__file__))


def test_the_check_alone_is_fast_and_needs_no_package() -> None:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-I", "-S", environment.__file__, "nothing"], capture_output=True, text=True)
    assert time.perf_counter() - start < 2  # a fifth of a second here; it must not load what takes seconds
    assert done.stderr == "level: got ['nothing'], want one of book, test\n"

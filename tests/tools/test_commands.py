"""The small commands: serving the book, finding a browser, choosing benchmarks."""

from __future__ import annotations

import stat
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from jupyter_core.paths import jupyter_path

from tools import bench, browser, serve
from tools.problems import Misuse, Problem


def script(path: Path, code: int) -> str:
    """An executable that only ends."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_serve_shows_the_book_on_this_machine_only(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="there is no book in build/html yet: run make book first"):
        serve.server(tmp_path, 0)
    (tmp_path / "index.html").write_text("hello")
    with serve.server(tmp_path, 0) as pages:
        assert pages.server_address[0] == "127.0.0.1"
        thread = threading.Thread(target=pages.serve_forever)
        thread.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{pages.server_port}/") as answer:
            assert answer.read() == b"hello"
        pages.shutdown()
        thread.join()
        with pytest.raises(Problem, match=f"PORT: {pages.server_port} cannot be used .*name another"):
            serve.server(tmp_path, pages.server_port)


@pytest.mark.parametrize("port", ["http", "65536", "-1"])
def test_serve_refuses_what_is_no_port(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", port)
    with pytest.raises(Misuse, match="PORT: got "):
        serve.main()


def test_the_named_browser_is_taken_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMIUM", script(tmp_path / "mine", 0))
    assert browser.find() == str(tmp_path / "mine")
    for wrong in (script(tmp_path / "stub", 1), str(tmp_path / "nowhere")):
        monkeypatch.setenv("CHROMIUM", wrong)
        with pytest.raises(Problem, match=r"CHROMIUM: got .*, want the path of a Chromium that starts"):
            browser.find()


def test_a_browser_on_the_path_that_does_not_start_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    script(tmp_path / "bin/chromium", 1)
    good = script(tmp_path / "bin/google-chrome", 0)
    assert browser.find() == good


def test_no_browser_is_loud_and_in_ci_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(browser, "find", lambda: None)
    monkeypatch.setattr(
        browser, "_installers", lambda: iter([[sys.executable, "-c", "raise SystemExit('no network')"]])
    )
    monkeypatch.setenv("CI", "")
    browser.main()
    said = capsys.readouterr().err
    assert "no network" in said
    assert "TESTS OF THE PAGES ARE SKIPPED" in said
    monkeypatch.setenv("CI", "true")
    with pytest.raises(Problem, match="CI=true needs a browser"):
        browser.main()


def test_jupyter_sets_the_text_of_chapters() -> None:
    """`make lab` shows theorems as theorems by an extension that the environment brings."""
    folders = [Path(folder) / "jupyterlab-myst" / "package.json" for folder in jupyter_path("labextensions")]
    assert any(path.is_file() for path in folders), folders


def test_benchmarks_are_chosen_by_chapter(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="found no benchmarks"):
        bench.scripts(tmp_path, ())
    (tmp_path / "benchmarks").mkdir()
    for name in ("pear", "apple"):
        (tmp_path / f"benchmarks/bench_{name}.py").touch()
    assert [path.stem for path in bench.scripts(tmp_path, ())] == ["bench_apple", "bench_pear"]
    assert [path.stem for path in bench.scripts(tmp_path, ("pear",))] == ["bench_pear"]
    with pytest.raises(Misuse, match="got 'plum', which has no benchmark; want some of apple, pear"):
        bench.scripts(tmp_path, ("plum",))

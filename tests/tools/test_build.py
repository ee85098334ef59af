"""The build on a toy project: only what changed is made again, and a failure leaves the last good book."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from tools.build import build
from tools.options import Options
from tools.parallel import HERE
from tools.problems import Problem

from .conftest import Toy


def times(toy: Toy) -> dict[str, int]:
    """When each chapter was executed."""
    return {name: toy.executed(name).stat().st_mtime_ns for name in ("apple", "pear")}


def test_only_what_changed_is_made_again_and_a_failure_leaves_the_last_book(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(toy.root, Options())
    said = capsys.readouterr().out
    assert "apple: executing\n" in said
    assert "pear: executed in " in said
    first, pages = times(toy), toy.pages()
    assert {"index.html", "chapters/apple.html", "chapters/pear.html", "book/claims.html"} <= set(pages)
    assert (toy.root / "build/claims.json").exists()

    start = time.monotonic()
    assert not build(toy.root, Options())
    assert not build(toy.root, Options(seed=1)), "the seed that the chapters have anyway"
    assert time.monotonic() - start < 3
    assert (times(toy), toy.pages(), capsys.readouterr().out) == (first, pages, "")

    toy.chapter("apple", "print('new')", "assert seed < 0, 'a claim'")
    (toy.root / "lib/pear/core.py").write_text("new = 1\n")
    with pytest.raises(Problem) as failure:
        build(toy.root, Options())
    assert str(failure.value) == (
        "chapters/apple.ipynb, code cell 4 (\"assert seed < 0, 'a claim'\"): AssertionError: a claim"
    )
    assert "apple" not in capsys.readouterr().out.replace("apple: executing", "")
    assert times(toy)["apple"] == first["apple"]
    assert times(toy)["pear"] > first["pear"], "a failure elsewhere does not waste a good result"
    assert toy.pages() == pages


def test_a_warning_fails_each_time_and_a_partial_book_may_miss_what_it_leaves_out(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.chapter("pear", text="```{prf:theorem} Pears\n:label: thm-pear\nA pear.\n```")
    page = toy.root / "book/start.md"
    page.write_text(page.read_text() + "\n{prf:ref}`thm-pear`, {doc}`/chapters/pear`\n\n![A pear](hero/pear.svg)\n")
    assert build(toy.root, Options(chapters=("apple",)))
    assert "pear: " not in capsys.readouterr().out
    pages = toy.pages()
    assert "chapters/pear.html" not in pages

    page.write_text(page.read_text() + "\n{prf:ref}`thm-plum`\n")
    for chosen in (Options(chapters=("apple",)), Options()):
        with pytest.raises(Problem) as failure:
            build(toy.root, chosen)
        lines = str(failure.value).splitlines()
        assert any("thm-plum" in line for line in lines)
        assert not any("thm-pear" in line for line in lines)
        assert lines[-1] == "the pages were not built; the last good book stays as it is"
        assert len(lines) < 5
        assert toy.pages() == pages


def test_every_failing_chapter_is_named_before_any_page_is_built(toy: Toy) -> None:
    toy.chapter("apple", parameters=None)
    with pytest.raises(Problem, match=r"^chapters/apple\.ipynb: got 0 code cells tagged 'parameters'"):
        build(toy.root, Options())
    toy.chapter("apple", "one()")
    toy.chapter("pear", "two()")
    with pytest.raises(Problem) as failure:
        build(toy.root, Options())
    assert sorted(line.partition(",")[0] for line in str(failure.value).splitlines()) == [
        "chapters/apple.ipynb",
        "chapters/pear.ipynb",
    ]
    assert not (toy.root / "build/source").exists()


def test_a_second_build_is_turned_away(toy: Toy) -> None:
    (toy.root / "build").mkdir()
    with (
        FileLock(toy.root / "build/book.lock"),
        pytest.raises(Problem, match="another build of this book is running; wait for it to end, or stop it"),
    ):
        build(toy.root, Options())


def test_an_interrupted_build_ends_its_chapters_and_leaves_nothing(toy: Toy) -> None:
    for name in ("apple", "pear"):
        toy.chapter(name, f"import pathlib, time; pathlib.Path({str(toy.root / name)!r}).touch(); time.sleep(60)")
    code = (
        "import sys; from pathlib import Path; from tools.build import build; from tools.options import Options; "
        "from tools.problems import finish; finish(lambda: build(Path(sys.argv[1]), Options()) and None)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(toy.root)], cwd=HERE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any((toy.root / name).exists() for name in ("apple", "pear")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert list((toy.root / "build/executed").iterdir()) == []


def test_what_a_killed_build_left_is_cleared_up(toy: Toy) -> None:
    toy.chapter("apple", parameters=None)  # so that the build ends right after that
    half = toy.root / "build/executed/.apple.1.part-x"
    half.mkdir(parents=True)
    (toy.root / "build/executed/.apple.json.1.part").touch()
    (toy.root / "build/html.old").mkdir()
    with pytest.raises(Problem):
        build(toy.root, Options())
    assert list((toy.root / "build/executed").iterdir()) == []
    assert (toy.root / "build/html").is_dir(), "the book that was between its two names"

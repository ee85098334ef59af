"""The package as a stranger gets it: the wheel is whole, and every example runs where the repository is not."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import wheel
from tools.problems import Problem

ROOT = Path(__file__).resolve().parent.parent
PAGES = [str(ROOT / page) for page in wheel.PAGES]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with what this environment has."""
    return wheel.build(ROOT, tmp_path_factory.mktemp("wheel") / "built", isolated=False)


def test_it_holds_the_whole_library_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(built) as content:
        names = [name for name in content.namelist() if ".dist-info/" not in name]
    wanted = {str(path.relative_to(ROOT)) for path in (ROOT / "lib").rglob("*.py")}
    assert set(names) == wanted


def test_every_doctest_and_example_runs_from_it(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that is really empty needs minutes for torch: `make wheel-check` makes one."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    wheel.run(sys.executable, *wheel.PIP, "install", "--no-deps", "--target", str(site), str(built))
    script = str(ROOT / "tools" / "installed.py")
    said = wheel.run(sys.executable, "-I", script, "--site", str(site), *PAGES, cwd=elsewhere)
    examples = re.search(r"^doctests: (\d+) examples in \d+ s, 0 failed$", said, re.MULTILINE)
    assert examples is not None, said
    assert int(examples[1]) > 200
    assert list(elsewhere.iterdir()) == []


def test_an_example_that_lies_and_a_library_that_is_not_installed_are_refused(tmp_path: Path) -> None:
    script, page = str(ROOT / "tools" / "installed.py"), tmp_path / "page.md"
    page.write_text("```python\nimport math\nprint([math.floor(1.5)])\n# [2]\n```\n", encoding="utf-8")
    (tmp_path / "site" / "lib").mkdir(parents=True)
    (tmp_path / "site" / "lib" / "__init__.py").touch()
    command = (sys.executable, "-I", script, "--no-doctests", "--site")
    with pytest.raises(Problem, match=r"page\.md: got \['\[1\]'\], want \['\[2\]'\]"):
        wheel.run(*command, str(tmp_path / "site"), str(page))
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "want an installed one" in done.stderr

"""Run by a Python that has the library installed: every doctest of it, and the examples of the files that are named.

    python -I tools/installed.py [--site FOLDER] [--no-doctests] README.md ...

With `-I` neither this folder nor the one it is started in is on the path, so that `lib` is the installed one; a folder
that pip has filled can be put before everything else. It uses the standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SAID = re.compile(r"^# (\[.*\])$", re.MULTILINE)


def modules(package: ModuleType) -> Iterator[ModuleType]:
    """A package and all that is in it."""
    yield package
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(found.name)


def doctests(package: ModuleType) -> tuple[int, int]:
    """Run the doctests of a package; returns how many examples there were, and how many failed."""
    tried = failed = 0
    for module in modules(package):
        result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
        tried, failed = tried + result.attempted, failed + result.failed
    return tried, failed


def examples(page: Path) -> int:
    """Run the Python examples of a page that import something; returns how many there were.

    Raises:
        AssertionError: one prints something else than the comments `# [...]` in it say.
    """
    found = [code for code in FENCE.findall(page.read_text(encoding="utf-8")) if "import" in code]
    for code in found:
        printed, said = io.StringIO(), SAID.findall(code)
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(page), "exec"), {"__name__": "__main__"})
        got = printed.getvalue().splitlines()
        assert not said or got == said, f"{page.name}: got {got}, want {said}"
    return len(found)


def main() -> None:
    """Check, and print a line for each part."""
    parser = argparse.ArgumentParser(prog="python -I tools/installed.py")
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--site", type=Path, help="a folder that pip install --target has filled")
    parser.add_argument("--no-doctests", action="store_true", help="only the pages")
    arguments = parser.parse_args()
    if arguments.site:
        sys.path.insert(0, str(arguments.site.resolve()))
    import lib

    if Path(str(lib.__file__)).is_relative_to(HERE):
        sys.exit(f"lib: got {lib.__file__}, want an installed one")
    for page in arguments.pages:
        print(f"{page.name}: {examples(page)} example(s)")
    if arguments.no_doctests:
        return
    start = time.perf_counter()
    tried, failed = doctests(lib)
    print(f"doctests: {tried} examples in {time.perf_counter() - start:.0f} s, {failed} failed")
    if failed or not tried:
        sys.exit(1)


if __name__ == "__main__":
    main()

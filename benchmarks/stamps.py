"""Where the time of `make book` and of `make test` goes, from the stamps that they leave.

Run `make book > build/book.log` and `make test PYTEST=--junitxml=build/tests.xml`, then this file; what is missing of
the two is left out. It writes `benchmarks/results/stamps.json` for the page *Performance*.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import machine
from benchmarks.harness import RESULTS

BUILD = Path(__file__).resolve().parents[1] / "build"
SHOWN = 8  # of the files of tests
Row = list[str]


def of_book(log: str) -> list[Row]:
    """The whole build, and each chapter from the longest to the shortest."""
    chapters = re.findall(r"^(\w+): executed in (\d+) s", log, re.MULTILINE)
    whole = re.findall(r"built in (\d+) s", log)
    rows = [["make book", "all of it", f"{seconds} s"] for seconds in whole]
    longest = sorted(chapters, key=lambda found: -int(found[1]))
    return rows + [["make book", f"executing {name}", f"{seconds} s"] for name, seconds in longest]


def of_tests(xml: str) -> list[Row]:
    """Seconds of tests added up by their file, fixtures included; two processes share them."""
    files: dict[str, float] = defaultdict(float)
    for case in ElementTree.fromstring(xml).iter("testcase"):
        files[case.get("classname", "")] += float(case.get("time", 0))
    rows = [["make test", "all tests, added up", f"{sum(files.values()):.0f} s"]]
    longest = sorted(files.items(), key=lambda found: -found[1])[:SHOWN]
    return rows + [["make test", name, f"{seconds:.0f} s"] for name, seconds in longest]


def main() -> None:
    """Read what is there, and write."""
    rows = []
    for name, read in (("book.log", of_book), ("tests.xml", of_tests)):
        if (BUILD / name).exists():
            rows += read((BUILD / name).read_text(encoding="utf-8"))
    if not rows:
        raise SystemExit(f"{__doc__}\nfound neither file in {BUILD.name}/")
    what = machine.describe(())
    content = {
        "caption": f"Seconds on the wall, two processes side by side: {what['processor']}, {what['cores']} cores",
        "headings": ["Command", "Part", "Time"],
        "rows": rows,
        "machine": what,
    }
    (RESULTS / "stamps.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(*map(", ".join, rows), sep="\n")


if __name__ == "__main__":
    main()

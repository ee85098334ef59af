"""`make check-links`: ask every other site that the book links to whether the page is still there.

By hand and not in the tests, since other people's servers are no property of this book. Sphinx's own link checker reads
the staged tree of the last build, to which a page with the addresses of the files outside the book is added.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from . import notebooks
from .problems import Problem, finish

OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "book/assignments/*.ipynb", "lib/**/*.py")
ADDRESS = re.compile(r"https?://[^\s\"'<>`)\]}\\]+[^\s\"'<>`)\]}\\.,;:]")
CLOSED = re.compile(r"\b(401|403|405|429|503)\b|timed out|Timeout")  # a server that does not talk to programs
OPTIONS = {"linkcheck_timeout": 20, "linkcheck_retries": 2, "linkcheck_workers": 8, "linkcheck_anchors": False}
PAGE = "elsewhere"


@dataclass(frozen=True)
class Link:
    """One address that was asked, and the answer."""

    place: str
    address: str
    status: str
    answer: str

    @property
    def is_dead(self) -> bool:
        """Whether the page is gone, as far as a program can tell."""
        return self.status == "broken" and not CLOSED.search(self.answer)

    @property
    def is_unsure(self) -> bool:
        """Whether the server did not say."""
        return self.status in ("broken", "timeout") and not self.is_dead


def outside(root: Path) -> dict[str, list[str]]:
    """The addresses in files that are no pages of the book, by file."""
    files = [path for pattern in OUTSIDE for path in sorted(root.glob(pattern))]
    found = {str(path.relative_to(root)): ADDRESS.findall(path.read_text(encoding="utf-8")) for path in files}
    return {name: sorted(set(addresses)) for name, addresses in found.items() if addresses}


def check(root: Path) -> list[Link]:
    """Ask for every address.

    Raises:
        Problem: there is no staged book, or the checker did not come to its end.
    """
    tree, work = root / "build" / "source", root / "build" / "links"
    if not (tree / "_config.yml").is_file():
        raise Problem("there is no book in build/source yet: run make book first")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(tree, work / "source")
    _add_page(work / "source", outside(root))
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "--all"]
    command += [
        "--builder",
        "custom",
        "--custom-builder",
        "linkcheck",
        "--path-output",
        str(work),
        str(work / "source"),
    ]
    environment = os.environ | {"PYTHONPATH": str(root)}
    with (work / "log").open("w", encoding="utf-8") as log:  # its code tells a dead link from a live one, and so do we
        subprocess.run(command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    answers = work / "_build" / "linkcheck" / "output.json"
    if not answers.is_file():
        raise Problem(f"the links were not checked: see {os.path.relpath(work / 'log', root)}")
    return [_link(json.loads(line)) for line in answers.read_text(encoding="utf-8").splitlines()]


def _add_page(tree: Path, addresses: Mapping[str, list[str]]) -> None:
    """A page that names the addresses, and an entry in the table of contents; and how the checker behaves."""
    items = [f"- `{name}`: <{address}>\n" for name, found in addresses.items() for address in found]
    notebooks.write(tree / f"{PAGE}.md", "# Elsewhere\n\n" + "".join(items))
    for name, change in (("_toc.yml", _with_page), ("_config.yml", _with_options)):
        content = yaml.safe_load((tree / name).read_text(encoding="utf-8"))
        change(content)
        notebooks.write(tree / name, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _with_page(toc: dict[str, list[dict[str, object]]]) -> None:
    entry: dict[str, object] = {"file": PAGE}
    if "parts" in toc:
        toc["parts"].append({"caption": "Elsewhere", "chapters": [entry]})
    else:
        toc["chapters"].append(entry)


def _with_options(config: dict[str, dict[str, dict[str, object]]]) -> None:
    config.setdefault("sphinx", {}).setdefault("config", {}).update(OPTIONS)


def _link(answer: Mapping[str, object]) -> Link:
    place = f"{answer['filename']}:{answer['lineno']}"
    return Link(place, str(answer["uri"]), str(answer["status"]), str(answer["info"]))


def main() -> None:
    """Check this book's links, and name those that are dead."""
    root = Path(__file__).resolve().parent.parent
    links = check(root)
    for link in links:
        if link.is_dead or link.is_unsure:
            print(f"{'dead' if link.is_dead else 'no answer'}  {link.place}  {link.address}  {link.answer}")
    dead, unsure = sum(link.is_dead for link in links), sum(link.is_unsure for link in links)
    print(f"{len(links)} links: {dead} dead, {unsure} that answer no program")
    if dead:
        raise Problem(f"{dead} dead links")


if __name__ == "__main__":
    finish(main)

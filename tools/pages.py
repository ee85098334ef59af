"""Run Jupyter Book on the staged tree and judge what it says: every warning is an error."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .problems import Problem

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
WARNING = re.compile(r"\b(WARNING|ERROR|CRITICAL|SEVERE)\b: ")
TROUBLE = re.compile(r"\b(WARNING|ERROR|CRITICAL|SEVERE)\b|\w+(Error|Exception)\b|Extension error")
DANGLING = re.compile(r"not found|undefined label|unknown document|not readable")
KIND = re.compile(r" \[[\w.]+\]$")  # Sphinx names the kind of some warnings at their end


def build(root: Path, tree: Path, left_out: Mapping[str, str]) -> Path:
    """Build the pages of a staged tree; returns their folder.

    Args:
        root: the project.
        tree: the staged tree.
        left_out: the source text of each chapter that a partial book leaves out. What other pages say of them is
            allowed to dangle, and nothing else is.

    Raises:
        Problem: it failed or warned; the text holds those lines only, the whole output is in a file.
    """
    out, log = root / "build" / "pages", root / "build" / "jupyter-book.log"
    shutil.rmtree(out, ignore_errors=True)
    # --all: without it, a build that failed on warnings passes the second time, because the pages are cached.
    flags = ["--all", "-n", "--keep-going", *([] if left_out else ["-W"]), "--path-output", str(out)]
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", *flags, str(tree)]
    print(f"building the pages (log in {os.path.relpath(log, root)})", flush=True)
    with log.open("w", encoding="utf-8") as file:
        environment = os.environ | {"PYTHONPATH": str(root)}
        done = subprocess.run(command, cwd=root, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False)
    # Paths as they are in the project, without colours
    text = COLOUR.sub("", log.read_text(encoding="utf-8")).replace(f"{tree}/", "")
    lines = [line for line in map(str.strip, text.splitlines()) if not _excused(line, left_out)]
    pages = out / "_build" / "html"
    if done.returncode or not (pages / "index.html").exists() or any(map(WARNING.search, lines)):
        found = dict.fromkeys(line for line in lines if TROUBLE.search(line) and "MdParserConfig" not in line)
        found_or_end = [*found] or lines[-15:]
        raise Problem("\n".join([*found_or_end, "the pages were not built; the last good book stays as it is"]))
    return pages


def _excused(line: str, left_out: Mapping[str, str]) -> bool:
    """Whether a line warns only that something in a chapter that was left out is not there.

    >>> _excused("book/intro.md:3: WARNING: undefined label: 'thm-a'", {"a": ":label: thm-a"})
    True
    >>> _excused("book/intro.md:3: WARNING: undefined label: 'thm-b'", {"a": ":label: thm-a"})
    False
    """
    message = WARNING.search(line)
    if not left_out or not message or not DANGLING.search(line):
        return False
    said = KIND.sub("", line[message.end() :]).rstrip(".")
    quoted = re.findall(r"'([^']*)'", said)
    target = quoted[-1] if quoted else said.rsplit(": ", 1)[-1]
    if Path(target).stem in left_out:
        return True
    whole = re.compile(rf"(?<![\w-]){re.escape(target)}(?![\w-])")
    return any(whole.search(text) for text in left_out.values())

"""`make new-chapter NAME=x`: the files of a chapter with the form filled in, and its entries in the pages around.

What it writes passes its tests as it is. Either everything is written or nothing.
"""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

import jupytext  # type: ignore[import-untyped]
import nbformat

from . import notebooks
from .problems import Misuse, Problem, finish

TEMPLATES = Path(__file__).resolve().parent / "templates"
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
CARD = """
:::{{grid-item-card}} {title}
:img-top: hero/{name}.svg
:img-alt: Say what the hero figure shows.
:link: ../chapters/{name}
:link-type: doc

Say in two sentences what the chapter shows.
:::
"""
LIBRARY = """\
## {title}

```{{eval-rst}}
.. automodule:: lib.{name}
   :members:
   :imported-members:
```

"""
THREAD = """\
| {{doc}}`{title} </chapters/{name}>` |
"""
ASK = """\
| Say which question it answers. | {{doc}}`{title} </chapters/{name}>` |
"""
KNOW = """\
| and say what it asks for | {{doc}}`{title} </chapters/{name}>` |
"""
CHEATS = """
## {{doc}}`{title} </chapters/{name}>`

Error of a mean ({{prf:ref}}`{label}-error`):

$$
\\mathbb E(\\bar y-\\mu)^2=\\sigma^2/n
$$

```python
>>> from lib.{name} import (
...     error_of_mean)
>>> error_of_mean(2.0, [1, 4])
tensor([2.0000, 0.5000], dtype=torch.float64)
```
"""


def check_name(root: Path, name: str) -> None:
    """Refuse a name that cannot be a chapter's.

    Raises:
        Misuse: it is no such name, or something of this name exists.
    """
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise Misuse(f"NAME: got {name!r}, want lower-case letters, digits and single underscores, such as my_paper")
    taken = [*_new_files(root, name), root / "lib" / name, root / "lib" / f"{name}.py", root / "tests" / name]
    for path in taken:
        if path.exists():
            raise Misuse(f"NAME: got {name!r}, but {path.relative_to(root)} exists; want a name that is free")


def contents(root: Path, name: str) -> dict[Path, str]:
    """All files to write, new ones and changed ones, with their whole text.

    Raises:
        Problem: a page to be changed is not as expected.
    """
    facts = {"NAME": name, "LABEL": name.replace("_", "-"), "TITLE": name.replace("_", " ").capitalize()}
    made = {path: _fill(template, facts) for path, template in _new_files(root, name).items()}
    title = facts["TITLE"]
    row = f"| $e_{{\\text{{{facts['LABEL']}}}}}$ | expected squared error of a mean | `error_of_mean` | {name} |\n"
    card, threads, ask, know, library, cheats = (
        _literal(template, name, title) for template in (CARD, THREAD, ASK, KNOW, LIBRARY, CHEATS)
    )
    changed = [
        ("_toc.yml", r"(?:.*\n)*( *)- file: chapters/\S+\n", rf"\g<0>\g<1>- file: chapters/{name}\n"),
        ("book/intro.md", r"(?s):class-container: heroes\n.*?\n(?=::::\n)", r"\g<0>" + card),
        ("book/intro.md", _rows("chapter"), r"\g<0>" + threads),
        ("book/intro.md", _rows("if you ask"), r"\g<0>" + ask),
        ("book/intro.md", _rows("if you know"), r"\g<0>" + know),
        ("book/library.md", r"(?=^## Claims$)", library),
        ("book/cheat_sheet.md", r"(?s)\A.*\Z", r"\g<0>" + cheats),
        ("book/notation.md", r"(?:.*\n)*\|.*\|\n", r"\g<0>" + row.replace("\\", r"\\")),
    ]
    for page, place, addition in changed:
        path = root / page
        before = made.get(path) or path.read_text(encoding="utf-8")
        text, times = re.subn(place, addition, before, count=1, flags=re.MULTILINE)
        if times != 1:
            raise Problem(f"{page}: found no place for the chapter, want one that matches {place!r}")
        made[path] = text
    return made


def create(root: Path, name: str) -> list[Path]:
    """Write the chapter; returns the paths, new and changed.

    Raises:
        Misuse: the name is bad or taken.
        Problem: a page to be changed is not as expected.
    """
    check_name(root, name)
    wanted = contents(root, name)
    before = {path: path.read_text(encoding="utf-8") for path in wanted if path.exists()}
    try:
        for path, text in wanted.items():
            notebooks.write(path, text)
    except BaseException:
        for path in wanted:
            if path in before:
                notebooks.write(path, before[path])
            else:
                path.unlink(missing_ok=True)
        for folder in (root / "lib" / name, root / "tests" / name):
            if folder.is_dir():
                folder.rmdir()
        raise
    return list(wanted)


def _new_files(root: Path, name: str) -> dict[Path, str]:
    return {
        root / "chapters" / f"{name}.ipynb": "chapter.md.txt",
        root / "book" / "assignments" / f"{name}.ipynb": "assignment.md.txt",
        root / "lib" / name / "__init__.py": "init.py.txt",
        root / "lib" / name / "mean.py": "kernel.py.txt",
        root / "tests" / name / "test_mean.py": "test.py.txt",
        root / "benchmarks" / f"bench_{name}.py": "bench.py.txt",
    }


def _fill(template: str, facts: dict[str, str]) -> str:
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    for key, value in facts.items():
        text = text.replace(f"@{key}@", value)
    return _as_notebook(text) if template.endswith(".md.txt") else text


def _as_notebook(text: str) -> str:
    notebook = jupytext.reads(text, fmt="md:myst")
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = str(number)  # the same file every time
    return str(nbformat.writes(notebook)) + "\n"


def _rows(first: str) -> str:
    """A pattern of the table whose header begins so, with all its rows."""
    return rf"^\| {first} \|.*\n\|[-|]+\n(?:\|.*\n)+"


def _literal(template: str, name: str, title: str) -> str:
    return template.format(name=name, label=name.replace("_", "-"), title=title).replace("\\", r"\\")


def main() -> None:
    """Make the chapter that the command line names."""
    if len(sys.argv) != 2:
        raise Misuse("NAME: got none, want one: make new-chapter NAME=my_paper")
    root, name = Path(__file__).resolve().parent.parent, sys.argv[1]
    for path in create(root, name):
        print(path.relative_to(root))
    print(f'It passes as it is: make test PYTEST="-k {name}". Now make it yours.')


if __name__ == "__main__":
    finish(main)

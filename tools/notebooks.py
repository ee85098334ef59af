"""Chapters as files: read and checked, their own parameters, and a fingerprint of all they depend on."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .problems import Problem

PARAMETERS = ("seed", "scale", "device")
Parameter = int | str


def source(root: Path, chapter: str) -> Path:
    """Where a chapter lies."""
    return root / "chapters" / f"{chapter}.ipynb"


def read(root: Path, chapter: str) -> dict[str, Any]:
    """A chapter as plain data.

    Raises:
        Problem: it is no notebook of format 4, or has not exactly one cell tagged `parameters`.
    """
    where = f"chapters/{chapter}.ipynb"
    try:
        notebook = json.loads(source(root, chapter).read_text(encoding="utf-8"))
    except OSError as error:
        raise Problem(f"{where}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise Problem(f"{where}: is no notebook ({error})") from error
    if not isinstance(notebook, dict) or notebook.get("nbformat") != 4 or not isinstance(notebook.get("cells"), list):
        raise Problem(f"{where}: is no notebook of format 4")
    tagged = [cell for cell in notebook["cells"] if "parameters" in tags(cell)]
    if len(tagged) != 1 or tagged[0].get("cell_type") != "code":
        raise Problem(f"{where}: got {len(tagged)} code cells tagged 'parameters', want one: seed, scale, device")
    return notebook


def tags(cell: Mapping[str, Any]) -> list[str]:
    """The tags of a cell."""
    return list(cell.get("metadata", {}).get("tags", []))


def joined(lines: str | list[str]) -> str:
    """A text of a notebook; its file may hold it as one string or as lines."""
    return lines if isinstance(lines, str) else "".join(lines)


def text(cell: Mapping[str, Any]) -> str:
    """The source of a cell."""
    return joined(cell.get("source", ""))


def own_parameters(root: Path, chapter: str) -> dict[str, Parameter]:
    """What the chapter's `parameters` cell sets.

    Raises:
        Problem: the cell does not set seed, scale and device to plain values.
    """
    (cell,) = (cell for cell in read(root, chapter)["cells"] if "parameters" in tags(cell))
    found: dict[str, Parameter] = {}
    try:
        for line in ast.parse(text(cell)).body:
            targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
            value = getattr(line, "value", None)
            if len(targets) == 1 and isinstance(targets[0], ast.Name) and isinstance(value, ast.Constant):
                found[targets[0].id] = value.value  # type: ignore[assignment]
    except SyntaxError as error:
        raise Problem(f"chapters/{chapter}.ipynb: the parameters cell is no Python ({error.msg})") from error
    missing = [name for name in PARAMETERS if name not in found]
    if missing:
        raise Problem(f"chapters/{chapter}.ipynb: the parameters cell sets no {' and no '.join(missing)}")
    return {name: found[name] for name in PARAMETERS}


def differing(root: Path, chapter: str, given: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """The given parameters that the chapter does not have anyway: the default build injects no cell."""
    own = own_parameters(root, chapter)
    return {name: value for name, value in given.items() if value != own.get(name)}


def fingerprint(root: Path, chapter: str, parameters: Mapping[str, Parameter]) -> str:
    """A hash of the content of all that a chapter's results depend on."""
    code = [*sorted((root / "lib").glob("*.py")), *sorted((root / "lib" / chapter).rglob("*.py"))]
    pins = [root / "requirements.txt", root / "constraints.txt"]
    facts = json.dumps([sys.version_info[:3], sorted(parameters.items())])
    return digest(root, [source(root, chapter), *code, *pins], facts)


def digest(root: Path, files: Iterable[Path], facts: str = "") -> str:
    """A hash of facts, and of names and contents of files; a missing file counts as such."""
    total = hashlib.sha256(facts.encode())
    for path in files:
        content = path.read_bytes() if path.is_file() else b"missing"
        total.update(f"\0{os.path.relpath(path, root)}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def write(path: Path, content: str) -> None:
    """Write a file so that a reader finds either the old content or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(content, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)

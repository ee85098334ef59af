"""Where claims are written down: a session per chapter, a record per claim, the metadata of a notebook's outputs."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import claim_display
from .claim_comparison import Finding

IDENTIFIER = re.compile(r"[a-z][a-z0-9-]*")
LIBRARIES = ("numpy", "scipy", "torch", "sympy")


class ClaimError(AssertionError):
    """A claim that does not hold, or one whose rival holds as well."""


class _Session:
    """What the chapter at hand has said so far; `begin` makes a new one."""

    def __init__(self, chapter: str = "", seed: int | None = None, scale: str = "", device: str = "") -> None:
        self.facts = {"chapter": chapter, "seed": seed, "scale": scale, "device": device}
        self.versions = {"python": sys.version.split()[0]} | {name: version(name) for name in LIBRARIES}
        self.start = time.perf_counter()
        self.records: dict[str, dict[str, Any]] = {}
        self.executions: dict[str, int | None] = {}


_session = _Session()


def begin(chapter: str, *, seed: int, scale: str, device: str) -> None:
    """Start the ledger of a chapter: the facts that every claim of it will carry.

    Args:
        chapter: file stem of the notebook.
        seed: its parameter `seed`.
        scale: its parameter `scale`, "laptop" or "full".
        device: the device its kernels run on, "cpu" or "cuda".

    Raises:
        ValueError: a seed that is no whole number >= 0, or another scale.
    """
    global _session
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed: got {seed!r}, want a whole number >= 0")
    if scale not in ("laptop", "full"):
        raise ValueError(f"scale: got {scale!r}, want 'laptop' or 'full'")
    _session = _Session(chapter, seed, scale, str(device))


def records() -> list[dict[str, Any]]:
    """The records of this session's claims, in the order they were made."""
    return list(_session.records.values())


def _shell() -> Any:
    """The IPython shell that runs this code, or None; IPython is never imported for it."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def _reserve(id: str, statement: str) -> None:
    """Take the id. A student may run a cell again; two places of one chapter may not share an id."""
    if not isinstance(id, str) or not IDENTIFIER.fullmatch(id):
        raise ValueError(f"id: got {id!r}, want lower-case letters, digits and hyphens, a letter first")
    shell = _shell()
    execution = shell.execution_count if shell else None
    known = _session.records.get(id)
    again = execution is not None and execution != _session.executions.get(id)
    if known and not (again and known["statement"] == statement):
        raise ClaimError(f"{id}: this id is taken by the claim {known['statement']!r}; every claim has its own id")
    _session.executions[id] = execution


def write_down(
    id: str,
    kind: str,
    statement: str,
    found: Finding,
    criterion: str,
    rivals: Mapping[str, tuple[Finding, str]],
) -> None:
    """Record a finding, show its row, and raise if it or one of its rivals went the wrong way.

    With `CLAIMS_ON_FAILURE=record` in the environment (an audit over seeds) a failure is recorded and not raised.

    Raises:
        ClaimError: the claim fails, a rival is not rejected, or the id is taken.
        ValueError: the id has another form.
    """
    _reserve(id, statement)
    accepted = [name for name, (rival, _) in rivals.items() if rival.passed or rival.points == 0]
    untested = [name for name, (rival, _) in rivals.items() if rival.margin is None]
    reasons = [found.reason] if found.reason else []
    reasons += [f"the rival {name!r} is not rejected" for name in accepted]
    reasons += [f"the rival {name!r} predicts no finite number" for name in untested if name not in accepted]
    record = {
        **_session.facts,
        "id": id,
        "kind": kind,
        "statement": statement,
        "passed": found.passed and not accepted and not untested,
        "reason": "; ".join(reasons),
        "predicted": found.predicted,
        "measured": found.measured,
        "error": found.error,
        "tolerance": found.tolerance,
        "criterion": criterion,
        "margin": found.margin if not (accepted or untested) else -1.0,
        "points": found.points,
        "rivals": {
            name: {
                "predicted": rival.predicted,
                "error": rival.error,
                "tolerance": rival.tolerance,
                "rejected": name not in accepted and name not in untested,
                "finding": finding,
            }
            for name, (rival, finding) in rivals.items()
        },
        "seconds": round(time.perf_counter() - _session.start, 2),
        "versions": _session.versions,
    }
    _session.records[id] = record
    _show(record)
    if not record["passed"] and os.environ.get("CLAIMS_ON_FAILURE") != "record":
        raise ClaimError(claim_display.text(record))


def _show(record: dict[str, Any]) -> None:
    if _shell() is None:
        print(claim_display.text(record))
        return
    from IPython.display import display

    row = {"text/html": claim_display.html(record), "text/plain": claim_display.text(record)}
    display(row, raw=True, metadata={"claim": record})


def collect(notebook: str | Path) -> list[dict[str, Any]]:
    """The claim records of one executed notebook, in the order of its cells.

    Raises:
        ValueError: the file is no notebook.
        OSError: it cannot be read.
    """
    import nbformat  # an extra of the package: only the book collects

    try:
        content = nbformat.read(Path(notebook), as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, KeyError, AttributeError) as error:
        raise ValueError(f"notebook: got {notebook}, which is no notebook ({error}); want an executed one") from error
    outputs = (output for cell in content.cells if cell.cell_type == "code" for output in cell.outputs)
    return [dict(output.metadata["claim"]) for output in outputs if "claim" in output.get("metadata", {})]

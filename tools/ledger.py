"""The ledger of the book: every claim of every executed chapter, as a page for readers and as JSON for programs.

`write` reads the records that the chapters left in their notebooks, refuses two claims of one name, and fills two
staged pages: the tables of `book/claims.md`, and the example of a claim in `book/intro.md`. Their text is written by
hand; what is filled in stands between markers (`% begin claims`, `% end claims`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib.claims import collect

from . import ledger_tables
from .problems import Problem

Record = dict[str, Any]

BARE_PAGE = "# The ledger\n\n% begin chapters\n% end chapters\n\n% begin claims\n% end claims\n"


class LedgerError(Problem):
    """The chapters' claims do not make one ledger."""


@dataclass(frozen=True)
class Totals:
    """What the front page tells: counts over the whole book, and how long its chapters ran."""

    claims_total: int
    claims_passed: int
    rivals_total: int
    rivals_rejected: int
    chapters_total: int
    seconds: float

    def substitutions(self) -> dict[str, str]:
        """The counts as MyST substitutions, ready for a sentence: `{{ claims_total }}` and so on.

        >>> Totals(40, 40, 55, 55, 1, 61.2).substitutions()["run_time"]
        '1 min 1 s'
        """
        counts = {name: str(value) for name, value in asdict(self).items() if name != "seconds"}
        return counts | {
            "claims_failed": str(self.claims_total - self.claims_passed),
            "chapters_noun": "chapter" if self.chapters_total == 1 else "chapters",
            "run_time": ledger_tables.duration(self.seconds),
        }


def gather(notebooks: Mapping[str, Path]) -> list[Record]:
    """The claim records of all executed notebooks, chapter by chapter, in the order of the page.

    Args:
        notebooks: path of the executed notebook by chapter.

    Raises:
        LedgerError: two claims share an id, or a record names another chapter than the one it stands in.
        ValueError: a file is no notebook.
    """
    seen: dict[str, str] = {}
    found: list[Record] = []
    for chapter, path in notebooks.items():
        for place, record in enumerate(collect(path), start=1):
            here = f"chapters/{chapter}.ipynb (claim {place})"
            if record.get("chapter") != chapter:
                raise LedgerError(
                    f"{record['id']}: {here} says it belongs to the chapter {record.get('chapter')!r}; "
                    f"want begin({chapter!r}, ...) at the top of this chapter"
                )
            if record["id"] in seen:
                raise LedgerError(f"{record['id']}: claimed twice, in {seen[record['id']]} and in {here}")
            seen[record["id"]] = here
            found.append(record)
    return found


def count(records: Sequence[Record], runs: Mapping[str, Mapping[str, Any]], chapters: int) -> Totals:
    """Totals over all records; the seconds are those of `runs`, added up."""
    rivals = [rival for record in records for rival in record["rivals"].values()]
    return Totals(
        claims_total=len(records),
        claims_passed=sum(bool(record["passed"]) for record in records),
        rivals_total=len(rivals),
        rivals_rejected=sum(bool(rival["rejected"]) for rival in rivals),
        chapters_total=chapters,
        seconds=round(sum(float(run.get("seconds", 0.0)) for run in runs.values()), 1),
    )


def write(notebooks: Mapping[str, Path], runs: Mapping[str, Mapping[str, Any]], out: Path, source: Path) -> Totals:
    """Write `out/claims.json`, the tables of `source/book/claims.md` and the example on the front page.

    Args:
        notebooks: path of the executed notebook by chapter, in the order of the book.
        runs: what is known of each chapter's execution: "seconds", "peak_memory" in bytes; a dash where it is missing.
        out: folder of the build.
        source: root of the staged book.

    Returns:
        The totals, for the front page.

    Raises:
        LedgerError: two claims share an id, a record names another chapter, or a page lacks a marker.
    """
    records = gather(notebooks)
    totals = count(records, runs, len(notebooks))
    tables = {
        "chapters": ledger_tables.by_chapter(records, runs, {name: title(path) for name, path in notebooks.items()}),
        "claims": ledger_tables.by_claim(records),
    }
    page = source / "book" / "claims.md"
    text = page.read_text(encoding="utf-8") if page.exists() else BARE_PAGE
    for name, table in tables.items():
        text = fill(text, name, table, page)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")
    front = source / "book" / "intro.md"
    if front.exists():
        text = fill(front.read_text(encoding="utf-8"), "example", ledger_tables.example(records), front)
        front.write_text(text, encoding="utf-8")

    content = {"totals": asdict(totals), "chapters": {name: dict(run) for name, run in runs.items()}, "claims": records}
    out.mkdir(parents=True, exist_ok=True)
    json_text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    (out / "claims.json").write_text(json_text + "\n", encoding="utf-8")
    return totals


def title(notebook: Path) -> str:
    """The chapter's title: its first heading, or its name where it has none."""
    cells = json.loads(notebook.read_text(encoding="utf-8")).get("cells", [])
    texts = ("".join(cell["source"]) for cell in cells if cell.get("cell_type") == "markdown")
    headings = (re.search(r"^# +(.+?) *$", text, flags=re.MULTILINE) for text in texts)
    return next((heading[1] for heading in headings if heading), notebook.stem)


def fill(text: str, name: str, table: str, page: Path) -> str:
    """The text with a table between the two markers of a name.

    Raises:
        LedgerError: a marker is missing.
    """
    begin, end = f"% begin {name}\n", f"% end {name}"
    head, opened, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (opened and closed):
        raise LedgerError(f"{page}: got no lines '{begin.strip()}' and '{end}', want both around the table")
    return f"{head}{begin}\n{table}\n\n{end}{tail}"


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: what is not finite becomes a word."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

"""The ledger: complete, linked, and refusing what would make two claims look like one."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import ledger
from tools.ledger import LedgerError, Totals


def record(chapter: str, id: str, **facts: Any) -> dict[str, Any]:
    """A claim's record as `lib.claims` leaves it."""
    rival = {"predicted": 3.0, "error": 1.9, "tolerance": 0.2, "rejected": True, "finding": "3, off by 1.9"}
    return {
        "chapter": chapter, "id": id, "kind": "value", "statement": f"What {id} says", "passed": True, "reason": "",
        "predicted": 1.0, "measured": 1.1, "error": 0.1, "tolerance": 0.2, "criterion": "3 s.e. + 2 %", "margin": 0.5,
        "points": 4, "rivals": {"the naive formula": rival}, "seed": 3, "scale": "laptop", "device": "cpu",
        "seconds": 1.5, "versions": {"torch": "2"},
    } | facts  # fmt: skip


@pytest.fixture
def chapter(tmp_path: Path) -> Any:
    """Write an executed chapter with these claims; gives its path."""

    def write(name: str, *records: dict[str, Any], title: str = "# A title") -> Path:
        cells = [new_markdown_cell(title)]
        for one in records:
            shown = new_output("display_data", data={"text/plain": ""}, metadata={"claim": one})
            cells.append(new_code_cell("claim(...)", outputs=[shown]))
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=cells), path)
        return path

    return write


class _Tables(HTMLParser):
    """Cells by table and row, and all links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, list[dict[str, str]]] = {}
        self.links: list[str] = []
        self._table = self._cell = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = {name: value or "" for name, value in attrs}
        if tag == "table":
            self._table = facts["id"]
            self.rows[self._table] = []
        elif tag == "tr":
            self.rows[self._table].append({})
        elif tag == "td":
            self._cell = facts["data-label"]
        elif tag == "a":
            self.links.append(facts["href"])

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._cell = ""

    def handle_data(self, data: str) -> None:
        if self._cell:
            row = self.rows[self._table][-1]
            row[self._cell] = row.get(self._cell, "") + data


def test_every_claim_stands_in_the_table_with_all_its_facts(chapter: Any, tmp_path: Path) -> None:
    notebooks = {
        "a": chapter("a", record("a", "a-1"), record("a", "a-2")),
        "b": chapter("b", record("b", "b-1", kind="bound")),
    }
    ledger.write(notebooks, {"a": {"seconds": 61.0, "peak_memory": 2**30}}, tmp_path / "out", tmp_path / "source")
    page = _Tables((tmp_path / "source" / "book" / "claims.md").read_text(encoding="utf-8"))
    _, first, _, last = page.rows["ledger-claims"]
    assert first["Predicted"] == "1"
    assert first["Measured"] == "1.1"
    assert first["Error"] == "0.1"
    assert "3 s.e. + 2 %" in first["Tolerance"]
    assert "the naive formula" in first["Rivals"]
    assert "rejected" in first["Rivals"]
    assert first["Seed"] == "3"
    assert last["Kind"] == "bound"
    assert {"../chapters/a.html#claim-a-1", "../chapters/b.html#claim-b-1"} <= set(page.links)
    _, one, other = page.rows["ledger-chapters"]
    assert (one["Chapter"], one["Claims that hold"], one["Run time"], one["Peak memory"]) == (
        "A title", "2 of 2", "1 min 1 s", "1.0 GiB",
    )  # fmt: skip
    assert (other["Run time"], other["Peak memory"]) == ("–", "–")


def test_programs_find_the_records_whole(chapter: Any, tmp_path: Path) -> None:
    claims = [record("a", "a-1"), record("a", "a-2", error=float("inf"), passed=False)]
    totals = ledger.write({"a": chapter("a", *claims)}, {"a": {"seconds": 2.0}}, tmp_path / "out", tmp_path / "source")
    content = json.loads((tmp_path / "out" / "claims.json").read_text(encoding="utf-8"))
    assert content["claims"][0] == claims[0]
    assert content["claims"][1]["error"] == "inf"
    assert content["chapters"] == {"a": {"seconds": 2.0}}
    assert totals == Totals(
        claims_total=2, claims_passed=1, rivals_total=2, rivals_rejected=2, chapters_total=1, seconds=2.0
    )
    assert totals.substitutions()["claims_failed"] == "1"


def test_two_claims_of_one_name_are_refused_and_both_places_named(chapter: Any, tmp_path: Path) -> None:
    notebooks = {"a": chapter("a", record("a", "a-1"), record("a", "same")), "b": chapter("b", record("b", "same"))}
    with pytest.raises(
        LedgerError, match=r"same: claimed twice, in chapters/a.ipynb \(claim 2\) and in chapters/b.ipynb"
    ):
        ledger.write(notebooks, {}, tmp_path / "out", tmp_path / "source")
    assert not (tmp_path / "out").exists()


def test_a_chapter_that_begins_under_another_name_is_refused(chapter: Any, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="says it belongs to the chapter 'b'; want begin\\('a'"):
        ledger.write({"a": chapter("a", record("b", "a-1"))}, {}, tmp_path / "out", tmp_path / "source")


def test_the_text_around_the_tables_stays_and_filling_twice_changes_nothing(chapter: Any, tmp_path: Path) -> None:
    book = tmp_path / "source" / "book"
    book.mkdir(parents=True)
    (book / "claims.md").write_text(f"{ledger.BARE_PAGE}\n## Why\n", encoding="utf-8")
    (book / "intro.md").write_text("Before\n\n% begin example\n% end example\n\nAfter\n", encoding="utf-8")
    texts = []
    for _ in range(2):
        ledger.write({"a": chapter("a", record("a", "a-1"))}, {}, tmp_path / "out", tmp_path / "source")
        texts.append([(book / name).read_text(encoding="utf-8") for name in ("claims.md", "intro.md")])
    assert texts[0] == texts[1]
    assert texts[0][0].rstrip().endswith("## Why")
    assert "What a-1 says" in texts[0][1]
    assert 'id="claim-' not in texts[0][1]  # the anchor is the chapter's
    assert "../chapters/a.html#claim-a-1" in texts[0][1]


def test_a_page_without_its_markers_is_named(chapter: Any, tmp_path: Path) -> None:
    book = tmp_path / "source" / "book"
    book.mkdir(parents=True)
    (book / "claims.md").write_text("# The ledger\n", encoding="utf-8")
    with pytest.raises(LedgerError, match=r"claims.md: got no lines '% begin chapters' and '% end chapters'"):
        ledger.write({"a": chapter("a", record("a", "a-1"))}, {}, tmp_path / "out", tmp_path / "source")


def test_statements_are_text_and_no_markup(chapter: Any, tmp_path: Path) -> None:
    sly = record("a", "a-1", statement='E < 1 & "E" > 0 <script>')
    ledger.write({"a": chapter("a", sly)}, {}, tmp_path / "out", tmp_path / "source")
    text = (tmp_path / "source" / "book" / "claims.md").read_text(encoding="utf-8")
    assert "E &lt; 1 &amp; &quot;E&quot; &gt; 0 &lt;script&gt;" in text


def test_a_book_without_claims_still_has_a_ledger(chapter: Any, tmp_path: Path) -> None:
    totals = ledger.write({"a": chapter("a", title="No heading")}, {}, tmp_path / "out", tmp_path / "source")
    assert totals.claims_total == 0
    assert "../chapters/a.html" in (tmp_path / "source" / "book" / "claims.md").read_text(encoding="utf-8")

"""The page *Performance*, filled from recorded runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tools import performance
from tools.ledger import LedgerError

ROOT = Path(__file__).resolve().parents[2]
MARKERS = ("machine", "bars", "races", "limits", "compiled", "growth", "precision", "sweeps", "stamps")
PAGE = "# Performance\n\n" + "\n\n".join(f"% begin {name}\n% end {name}" for name in MARKERS) + "\n"


def race(kernel: str, **change: Any) -> dict[str, Any]:
    counts = {"operators": 7, "views": 1, "flops64": 0, "flops32": 0, "curved64": 0, "curved32": 0}
    return {
        "kernel": kernel,
        "size": "3 < 4 rows",
        "peer": "a loop",
        "difference": 1e-12,
        "limit": 1e-9,
        "seconds": 0.002,
        "repeats": 5,
        "memory": 2**20,
        "extrapolated": False,
        "peer_seconds": 0.01,
        "peer_memory": None,
        "ratio": 5.0,
        "low": 4.5,
        "high": 5.5,
        "bars": {},
        "reason": "",
        "counts": counts | {"least": 100, "moved": 250, "peak": 80},
        "bound": "memory",
        "reached": 0.4,
        "moving": 0.9,
    } | change


def result(*races: dict[str, Any]) -> dict[str, Any]:
    what = {"processor": "P", "cores": 2, "system": "S", "load": 1.0, "load_at_end": 2.0, "date": "2026-01-02"}
    series = {"kernel": "f", "axis": "rows, of 3", "sizes": [10, 100, 1000, 10_000], "expected": [1, 1], "why": "1"}
    return {
        "chapter": "apple",
        "machine": what | {"python": "3.11", "versions": {"torch": "2"}},
        "rates": dict.fromkeys(("copy", "product64", "product32", "curved64", "curved32", "operators"), 1e9),
        "races": list(races),
        "growth": [
            series | {"seconds": [1e-4, 2e-4, 1e-3, 1e-2], "exponent": 0.9, "batch": True, "rise": 0.7, "reason": ""}
        ],
    }


def filled(folder: Path, *races: dict[str, Any], others: dict[str, Any] | None = None) -> str:
    results, book = folder / "results", folder / "book"
    results.mkdir()
    book.mkdir()
    for name, content in ({"apple": result(*races)} | (others or {})).items():
        (results / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (book / "performance.md").write_text(PAGE, encoding="utf-8")
    performance.write(results, {"apple": "Apple: what falls", "pear": "Pear"}, book)
    return (book / "performance.md").read_text(encoding="utf-8")


def test_bars_come_first_the_rest_is_folded_and_losses_are_counted(tmp_path: Path) -> None:
    bar = {"at_least": {"bar": 4, "met": True}}
    text = filled(tmp_path, race("f", bars=bar), race("g", ratio=0.5, low=0.4, high=0.6), race("h"))
    assert "1 of 1 bars are met." in text
    assert "4 times as fast: met" in text
    assert "<summary>2 rows of other sizes and peers; ours is slower in 1 of them</summary>" in text
    assert "3 &lt; 4 rows" in text
    assert "### Apple\n" in text
    assert "Pear" not in text, "no run was recorded"


def test_a_missed_bar_is_told_with_what_was_reached_and_why(tmp_path: Path) -> None:
    bars = {"at_least": {"bar": 9, "met": False}, "memory": {"bar": 100, "met": True}}
    text = filled(tmp_path, race("f", bars=bars, reason="The peer is compiled."))
    assert "1 of 2 bars are met." in text
    assert "- Apple: `f`, 3 < 4 rows: wanted 9 times as fast, got 5. The peer is compiled." in text


def test_a_figure_has_a_caption_an_alternative_text_and_few_bytes(tmp_path: Path) -> None:
    text = filled(tmp_path, race("f"))
    figure = re.search(r"```\{figure\} (performance/apple\.svg)\n:name: (\S+)\n:alt: (.+)\n\n(.+)\n```", text)
    assert figure
    assert "exponent 0.90" in figure[3]
    assert (tmp_path / "book" / figure[1]).stat().st_size < 60_000


def test_what_belongs_to_no_chapter_is_a_table(tmp_path: Path) -> None:
    sweeps = {"caption": "Sweeps", "headings": ["What", "Measured"], "rows": [["A task", "2 ms"]]}
    text = filled(tmp_path, race("f"), others={"sweeps": sweeps})
    assert "<caption>Sweeps</caption>" in text
    assert "2 ms" in text


def test_what_was_not_recorded_is_said_to_be_missing(tmp_path: Path) -> None:
    assert filled(tmp_path, race("f")).count("*No run has been recorded yet.*") == len(performance.OTHERS)
    (tmp_path / "results" / "apple.json").unlink()
    (tmp_path / "book" / "performance.md").write_text(PAGE, encoding="utf-8")
    performance.write(tmp_path / "results", {"apple": "Apple"}, tmp_path / "book")
    text = (tmp_path / "book" / "performance.md").read_text(encoding="utf-8")
    assert text.count("*No run has been recorded yet.*") == len(MARKERS)


def test_a_book_without_the_page_is_left_alone_and_a_page_without_a_marker_is_named(tmp_path: Path) -> None:
    performance.write(tmp_path, {}, tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "performance.md").write_text("# Performance\n", encoding="utf-8")
    with pytest.raises(LedgerError, match=r"performance\.md: got no lines '% begin bars'"):
        performance.write(tmp_path, {}, tmp_path)


def test_the_page_of_this_book_has_all_markers() -> None:
    text = (ROOT / "book" / "performance.md").read_text(encoding="utf-8")
    assert re.findall(r"^% begin (\w+)\n% end \1$", text, re.MULTILINE) == list(MARKERS)

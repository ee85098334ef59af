"""How a claim looks in a page: one row that reads well with the book's style sheet, without it, and as plain text."""

from __future__ import annotations

from html import escape
from typing import Any

VERDICT = {True: ("✓", "Holds"), False: ("✗", "Fails")}


def number(value: float | str | None) -> str:
    """Four significant digits; a dash where there is nothing to show.

    >>> number(0.123456), number(None)
    ('0.1235', '–')
    """
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.4g}"


def _facts(record: dict[str, Any]) -> list[tuple[str, str]]:
    labels = {"value": ("predicted", "measured", "off by"), "bound": ("bound", "value", "tightest gap")}
    labels |= {"ordering": ("", "smallest step", ""), "identity": ("left", "right", "off by")}
    shown = zip(labels[record["kind"]], (record["predicted"], record["measured"], record["error"]), strict=True)
    facts = [(label, number(value)) for label, value in shown if label and value is not None]
    if record["tolerance"] is not None:
        facts.append(("tolerance", f"{number(record['tolerance'])} ({record['criterion']})"))
    elif record["criterion"]:
        facts.append(("criterion", record["criterion"]))
    if record["points"] > 1:
        facts.append(("worst of", f"{record['points']} points"))
    return facts


def _rivals(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("rival rejected" if rival["rejected"] else "RIVAL NOT REJECTED", f"{name}: {rival['finding']}")
        for name, rival in record["rivals"].items()
    ]


def text(record: dict[str, Any]) -> str:
    """The row as one line of plain text."""
    parts = [f"{label} {value}" for label, value in _facts(record) + _rivals(record)]
    reason = f" [{record['reason']}]" if record["reason"] else ""
    return f"{VERDICT[record['passed']][0]} {record['id']}: {record['statement']}{reason} | " + "; ".join(parts)


def html(record: dict[str, Any]) -> str:
    """The row as HTML; `book/_static/book.css` styles its classes."""
    mark, verdict = VERDICT[record["passed"]]
    state = "passed" if record["passed"] else "failed"
    facts = "".join(
        f'<span class="claim-fact"><span class="claim-label">{escape(label)}</span> {escape(value)}</span> '
        for label, value in _facts(record)
    )
    rivals = "".join(
        f'<span class="claim-rival"><span class="claim-label">{escape(label)}</span> {escape(value)}</span> '
        for label, value in _rivals(record)
    )
    reason = f' <strong class="claim-reason">{escape(record["reason"])}</strong>' if record["reason"] else ""
    return (
        f'<div class="claim claim-{record["kind"]} claim-{state}" id="claim-{escape(record["id"])}">'
        f'<p class="claim-statement"><span class="claim-mark" role="img" aria-label="{verdict}">{mark}</span> '
        f"{escape(record['statement'])}{reason}</p>"
        f'<p class="claim-numbers"><code class="claim-id">{escape(record["id"])}</code> {facts}{rivals}</p></div>'
    )

"""The tables of the ledger page and the example of the front page, as HTML that needs no style sheet and no script.

Roles are written out, because on a phone the style sheet turns rows into cards and a browser then forgets the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from lib.claim_display import VERDICT, html, number

Record = dict[str, Any]

KINDS = {
    "value": "a predicted number meets a measured one",
    "bound": "a limit that is never crossed",
    "ordering": "a quantity that always rises, or always falls",
    "identity": "two expressions that are the same",
}


def duration(seconds: float | None) -> str:
    """Minutes and seconds for people.

    >>> duration(61.2), duration(8.4), duration(None)
    ('1 min 1 s', '8 s', '–')
    """
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def memory(size: float | None) -> str:
    """Bytes for people.

    >>> memory(812 * 2**20), memory(3 * 2**30), memory(None)
    ('812 MiB', '3.0 GiB', '–')
    """
    if size is None:
        return "–"
    return f"{size / 2**20:.0f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"


def by_chapter(records: Sequence[Record], runs: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """One row a chapter: how many claims and rivals, from which run, and what it cost."""
    rows = []
    for chapter, title in titles.items():
        own = [record for record in records if record["chapter"] == chapter]
        rivals = [rival["rejected"] for record in own for rival in record["rivals"].values()]
        run, any_record = runs.get(chapter, {}), own[0] if own else {}
        rows.append(
            table_row(
                [
                    ("Chapter", f'<a href="../chapters/{escape(chapter)}.html">{escape(title)}</a>', None),
                    ("Claims that hold", f"{sum(record['passed'] for record in own)} of {len(own)}", None),
                    ("Rivals rejected", f"{sum(rivals)} of {len(rivals)}", None),
                    ("Seed", escape(str(any_record.get("seed", "–"))), None),
                    ("Scale", escape(str(any_record.get("scale", "–"))), None),
                    ("Device", escape(str(any_record.get("device", "–"))), None),
                    ("Run time", duration(run.get("seconds")), None),
                    ("Peak memory", memory(run.get("peak_memory")), None),
                ]
            )
        )
    headings = ["Chapter", "Claims that hold", "Rivals rejected", "Seed", "Scale", "Device", "Run time", "Peak memory"]
    return whole_table("ledger-chapters", "Claims by chapter, with the run that checked them", headings, rows)


def by_claim(records: Sequence[Record]) -> str:
    """One row a claim, linked to its place; above it the controls that the script brings to life."""
    headings = ["Verdict", "Claim", "Chapter", "Kind", "Predicted", "Measured", "Error", "Tolerance", "Rivals", "Seed"]
    rows = [table_row(_cells(record), chapter=record["chapter"], kind=record["kind"]) for record in records]
    chapters = list(dict.fromkeys(record["chapter"] for record in records))
    controls = (
        '<form class="ledger-controls" hidden>'
        '<label>Find <input type="search" name="find" autocomplete="off"></label> '
        f'<label>Chapter <select name="chapter">{_options(chapters)}</select></label> '
        f'<label>Kind <select name="kind">{_options(KINDS)}</select></label> '
        '<output name="shown" aria-live="polite"></output></form>'
    )
    caption = "Every claim of the book; the statement leads to its place"
    table = whole_table("ledger-claims", caption, headings, rows)
    scroll = f'<div class="ledger-scroll" role="region" aria-label="Claims" tabindex="0">\n{table}\n</div>'
    return f'<div class="ledger">\n{controls}\n{scroll}\n</div>\n<script src="../_static/ledger.js" defer></script>'


def example(records: Sequence[Record]) -> str:
    """The row of the first claim that compares numbers and has a rival, without its anchor; empty if there is none."""
    telling = (record for record in records if record["kind"] == "value" and record["rivals"])
    record = next(telling, None)
    if record is None:
        return ""
    row = html(record).replace(f' id="claim-{escape(record["id"])}"', "")
    link = f"../chapters/{escape(record['chapter'])}.html#claim-{escape(record['id'])}"
    return f'{row}\n<p class="claim-place"><a href="{link}">Go to this claim in its chapter</a></p>'


Cell = tuple[str, str, float | str | None]


def _cells(record: Record) -> list[Cell]:
    mark, verdict = VERDICT[bool(record["passed"])]
    state = "passed" if record["passed"] else "failed"
    link = f"../chapters/{escape(record['chapter'])}.html"
    statement = f'<a href="{link}#claim-{escape(record["id"])}">{escape(record["statement"])}</a>'
    points = f" worst of {record['points']} points" if record["points"] > 1 else ""
    criterion = escape(record["criterion"] or "")
    tolerance = number(record["tolerance"]) if record["tolerance"] is not None else ""
    rivals = "".join(f"<li>{_rival(name, rival)}</li>" for name, rival in record["rivals"].items())
    return [
        ("Verdict", f'<span class="claim-mark ledger-{state}" role="img" aria-label="{verdict}">{mark}</span>', state),
        ("Claim", f"{statement} <small><code>{escape(record['id'])}</code>{points}</small>", record["statement"]),
        ("Chapter", f'<a href="{link}">{escape(record["chapter"])}</a>', record["chapter"]),
        ("Kind", escape(record["kind"]), record["kind"]),
        ("Predicted", _number(record["predicted"]), record["predicted"]),
        ("Measured", _number(record["measured"]), record["measured"]),
        ("Error", _number(record["error"]), record["error"]),
        ("Tolerance", f"{tolerance} <small>{criterion}</small>".strip(), record["tolerance"]),
        ("Rivals", f"<ul>{rivals}</ul>" if rivals else "–", len(record["rivals"])),
        ("Seed", escape(str(record["seed"])), record["seed"]),
    ]


def _rival(name: str, rival: Mapping[str, Any]) -> str:
    verdict = "rejected" if rival["rejected"] else "NOT rejected"
    finding = rival.get("finding") or (f"off by {number(rival['error'])}" if rival.get("error") is not None else "")
    return f"{escape(name)} <small>{verdict}{': ' if finding else ''}{escape(finding)}</small>"


def _number(value: float | str | None) -> str:
    return escape(number(value))


def _options(values: Iterable[str]) -> str:
    return '<option value="">all</option>' + "".join(f"<option>{escape(value)}</option>" for value in values)


def table_row(cells: Sequence[Cell], **data: str) -> str:
    """One row: heading, content as HTML and sort key of each cell; facts for the script."""
    facts = "".join(f' data-{name}="{escape(value)}"' for name, value in data.items())
    inside = "".join(
        f'<td role="cell" data-label="{label}"{"" if key is None else f" data-key={_quoted(key)}"}>'
        f'<span class="ledger-cell">{content}</span></td>'
        for label, content, key in cells
    )
    return f'<tr role="row"{facts}>{inside}</tr>'


def _quoted(key: float | str) -> str:
    return f'"{escape(str(key))}"'


def whole_table(name: str, caption: str, headings: Sequence[str], rows: Sequence[str]) -> str:
    """A table of rows, which a phone shows as cards."""
    head = "".join(f'<th role="columnheader" scope="col">{heading}</th>' for heading in headings)
    body = "\n".join(rows)
    return (
        f'<table class="ledger-table" id="{name}" role="table">\n<caption>{caption}</caption>\n'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{body}\n</tbody>\n</table>'
    )

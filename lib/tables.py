"""Small tables for a chapter's page: every column and every row has a name, which a screen reader says with a cell."""

from __future__ import annotations

from collections.abc import Sequence


class Table:
    """Rows of HTML under a header."""

    def __init__(self, html: str) -> None:
        self._html = html

    def _repr_html_(self) -> str:
        return self._html


def table(head: Sequence[str], *rows: Sequence[object]) -> Table:
    """A table for the page; the first cell of a row names it.

    Args:
        head: names of the columns, the first one that of the rows' names. They and all cells may hold HTML.
        rows: as many cells each as there are columns.

    Raises:
        ValueError: a column without a name, or a row of another length.

    >>> table(["scale", "steps"], ["small", 3])._repr_html_()[-61:]
    '<tr><th scope="row">small</th><td>3</td></tr></tbody></table>'
    """
    if not all(name.strip() for name in head):
        raise ValueError(f"head: got {list(head)!r}, want a name for every column")
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"rows: got {list(row)!r}, want {len(head)} cells as in head")
    top = "".join(f'<th scope="col">{name}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    return Table(f'<table class="dataframe"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>')


__all__ = ["Table", "table"]

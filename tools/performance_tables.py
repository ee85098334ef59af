"""The tables of the page *Performance*, as HTML that a phone shows as cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .ledger_tables import memory, table_row, whole_table

Result = dict[str, Any]
Chapters = Mapping[str, Result]  # by title
BARS = {"at_least": "{} times as fast", "within": "within {} s", "memory": "{} MiB at most"}
BOUND = {
    "memory": "memory traffic",
    "products": "matrix products",
    "exponentials": "exponentials",
    "operators": "starting operators",
}


def times(x: float) -> str:
    """A ratio for people.

    >>> times(1234.5), times(15.26), times(0.5342)
    ('1,234', '15.3', '0.534')
    """
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def seconds(x: float) -> str:
    """A time for people.

    >>> seconds(0.00123), seconds(2.5), seconds(3.2e-5)
    ('1.23 ms', '2.5 s', '32 µs')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if x >= size:
            return f"{x / size:,.0f} {unit}" if x >= 1000 * size else f"{x / size:.3g} {unit}"
    return f"{x * 1e6:.3g} µs"


def bars(chapters: Chapters) -> str:
    """How many bars are met, and each that is not, with its reason."""
    told = [(title, race, name, bar) for title, race in _races(chapters) for name, bar in race["bars"].items()]
    missed = [entry for entry in told if not entry[3]["met"]]
    lines = [f"{len(told) - len(missed)} of {len(told)} bars are met."]
    for title, race, name, bar in missed:
        got = times(race["ratio"]) if name == "at_least" else _got(name, race)
        reason = race["reason"] or "The reason is not known yet."
        lines.append(
            f"- {_short(title)}: `{race['kernel']}`, {race['size']}: wanted {_wanted(name, bar)}, got {got}. {reason}"
        )
    return "\n".join([lines[0], "", *lines[1:]])


def _got(name: str, race: Result) -> str:
    return seconds(race["seconds"]) if name == "within" else memory(race["memory"])


def machine(chapters: Chapters) -> str:
    """What each run ran on, and what this did in a second."""
    rows = []
    for title, result in chapters.items():
        what, rates = result["machine"], result["rates"]
        versions = ", ".join(f"{name} {version}" for name, version in what["versions"].items())
        rows.append(
            _cells(
                Chapter=escape(_short(title)),
                Machine=f"{escape(what['processor'])}, {what['cores']} cores, {escape(what['system'])}"
                + _small(f"one thread of it; load {what['load']} to {what['load_at_end']}; {what['date']}"),
                Versions=_small(escape(f"Python {what['python']}, {versions}")),
                Copy=f"{rates['copy'] / 1e9:.3g} GB/s",
                Product=f"{rates['product64'] / 1e9:.3g} Gflop/s" + _small(f"float32 {rates['product32'] / 1e9:.3g}"),
                Exponential=f"{rates['curved64'] / 1e9:.3g} G/s" + _small(f"float32 {rates['curved32'] / 1e9:.3g}"),
                Operator=seconds(1 / rates["operators"]),
            )
        )
    headings = ("Chapter", "Machine", "Versions", "Copy", "Product", "Exponential", "Operator")
    return whole_table("performance-machine", "The runs, and what the machine did in a second of each", headings, rows)


def races(chapters: Chapters) -> str:
    """A table a chapter: kernels beside the peers that bars name, and folded the rest."""
    found = []
    for title, result in chapters.items():
        name, short = result["chapter"], escape(_short(title))
        with_bar, rest = (
            [race for race in result["races"] if bool(race["bars"]) == wanted] for wanted in (True, False)
        )
        behind = sum(race["ratio"] < 1 for race in rest if race["peer"])
        more = f"{len(rest)} rows of other sizes and peers; ours is slower in {behind} of them"
        found += [
            f"### {_short(title)}",
            _race_table(f"performance-{name}", f"{short}: what a bar was set for", with_bar) if with_bar else "",
            _folded(more, _race_table(f"performance-{name}-more", f"{short}: other sizes and peers", rest))
            if rest
            else "",
        ]
    return "\n\n".join(found)


def _race_table(name: str, caption: str, races: Sequence[Result]) -> str:
    rows = [
        _cells(
            Kernel=_kernel(race),
            Peer=escape(race["peer"]) or "–",
            Ratio=times(race["ratio"]) + _small(f"{times(race['low'])} to {times(race['high'])}")
            if race["peer"]
            else "–",
            Time=seconds(race["seconds"])
            + (_small(f"peer {'~' * race['extrapolated']}{seconds(race['peer_seconds'])}") if race["peer"] else ""),
            Memory=memory(race["memory"]) + (_small(f"peer {memory(race['peer_memory'])}") if race["peer"] else ""),
            Bar="<br>".join(_verdict(name, bar) for name, bar in race["bars"].items()) or "–",
        )
        for race in races
    ]
    return whole_table(name, caption, ("Kernel", "Peer", "Ratio", "Time", "Memory", "Bar"), rows)


def _folded(summary: str, table: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n{table}\n</details>"


def _short(title: str) -> str:
    return title.split(":")[0]


def _verdict(name: str, bar: Result) -> str:
    return f"{_wanted(name, bar)}: {'met' if bar['met'] else '<strong>not met</strong>'}"


def _wanted(name: str, bar: Result) -> str:
    return BARS[name].format(f"{bar['bar']:.3g}")


def limits(chapters: Chapters) -> str:
    """For every kernel its longest run: what limits it, and how close it comes."""
    longest: dict[tuple[str, str], Result] = {}
    for title, race in _races(chapters):
        key = title, race["kernel"]
        longest[key] = max(longest.get(key, race), race, key=lambda r: r["seconds"])
    rows = [
        _cells(
            Kernel=_kernel(race) + _small(escape(_short(title))),
            Limit=BOUND[race["bound"]],
            Reached=f"{race['reached']:.1%}",
            Moves=_moves(race) + _small(f"{race['moving']:.0%} of the copy rate"),
            Operators=f"{race['counts']['operators']:,}",
        )
        for (title, _), race in longest.items()
    ]
    headings = ("Kernel", "Limit", "Reached", "Moves", "Operators")
    return whole_table("performance-limits", "The longest run of each kernel against its limit", headings, rows)


def _moves(race: Result) -> str:
    """How many times the least traffic, where a run has recorded that."""
    least, moved = race["counts"]["least"], race["counts"]["moved"]
    return f"{times(moved / least)} times" if least else "–"


def growth(chapters: Chapters, figures: Mapping[str, str]) -> str:
    """A figure a chapter and a table of exponents."""
    found = []
    for title, result in chapters.items():
        rows = [
            _cells(
                Kernel=f"<code>{escape(series['kernel'])}</code>" + _small(f"against {escape(series['axis'])}"),
                Sizes=f"{series['sizes'][0]:,} to {series['sizes'][-1]:,}",
                Exponent=f"{series['exponent']:.2f}",
                Expected=escape(series["why"]),
                Element=(f"{series['rise']:.2f} times" + _small(escape(series["reason"])) if series["batch"] else "–"),
            )
            for series in result["growth"]
        ]
        if rows:
            caption = f"{escape(_short(title))}: exponent fitted to the last three sizes, and the one expected"
            headings = ("Kernel", "Sizes", "Exponent", "Expected", "Element")
            table = whole_table(f"performance-growth-{result['chapter']}", caption, headings, rows)
            steepest = max((series["rise"] for series in result["growth"] if series["batch"]), default=None)
            batch = (
                "" if steepest is None else f"; from 100 elements on, one costs at most {steepest:.2f} times as much"
            )
            found.append(f"{figures[title]}\n\n{_folded(f'Exponents{batch}', table)}")
    return "\n\n".join(found)


def plain(name: str, result: Result) -> str:
    """A table that its script has laid out: a caption, headings, and rows of texts."""
    rows = [_cells(**dict(zip(result["headings"], map(escape, row), strict=True))) for row in result["rows"]]
    return whole_table(f"performance-{name}", escape(result["caption"]), result["headings"], rows)


def _races(chapters: Chapters) -> list[tuple[str, Result]]:
    return [(title, race) for title, result in chapters.items() for race in result["races"]]


def _kernel(race: Result) -> str:
    return f"<code>{escape(race['kernel'])}</code>" + _small(escape(race["size"]))


def _small(text: str) -> str:
    return f" <small>{text}</small>" if text else ""


def _cells(**content: str) -> str:
    return table_row([(heading, inside, None) for heading, inside in content.items()])

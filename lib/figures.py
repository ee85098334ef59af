"""One look for every figure: theory is a line, a measurement is a marker with an error bar, a rival is dashed grey.

Figures are SVG with text as paths, on white paper, so that they read the same on a light and on a dark page. Colours
follow Okabe and Ito, told apart by readers with any common colour vision; line style and marker always distinguish as
well. Captions and alternative texts stand in the metadata of the cell, those of a slider in its call.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

CYCLE = ("#0072B2", "#D55E00", "#009E73", "#A6418B", "#B8860B", "#4A4A4A")
COLOURS: Mapping[str, str] = MappingProxyType({"theory": CYCLE[0], "measured": CYCLE[1], "rival": "#6E6E6E"})
MARKERS = ("o", "s", "^", "D", "v", "P")
_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 11,
    "axes.prop_cycle": cycler(color=CYCLE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "errorbar.capsize": 2,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "figure.figsize": (6.6, 4.0),
    "font.size": 10.5,
    "grid.alpha": 0.25,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "executable-theory",  # the same figure is the same file
}


def use_style() -> None:
    """Set the book's style for all figures of this process, and SVG as the format in a notebook."""
    mpl.rcParams.update(_STYLE)
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg")


def axes(
    xlabel: str,
    ylabel: str,
    *,
    rows: int = 1,
    columns: int = 1,
    width: float = 6.6,
    height: float = 4.0,
    share_y: bool = False,
) -> tuple[Figure, Any]:
    """A figure with labelled axes: one `Axes`, or a flat array of them, row by row, where there are several panels.

    Args:
        xlabel: what the horizontal axis shows, with its unit.
        ylabel: what the vertical axis shows, with its unit; stands at the first panel of a row only if the axis is
            shared.
        rows: rows of panels.
        columns: panels side by side.
        width: of the figure, in inches; text stays legible in a column of the book up to 7.5.
        height: of the figure, in inches.
        share_y: one vertical axis for all panels.

    Raises:
        ValueError: an empty label, or no panel.

    >>> fig, ax = axes("samples", "test error")
    >>> ax.get_xlabel()
    'samples'
    """
    if not xlabel.strip() or not ylabel.strip():
        raise ValueError(f"xlabel and ylabel: got {xlabel!r} and {ylabel!r}, want a text for each")
    if rows < 1 or columns < 1:
        raise ValueError(f"rows and columns: got {rows} and {columns}, want 1 or more of each")
    with mpl.rc_context(_STYLE):
        fig, grid = plt.subplots(rows, columns, figsize=(width, height), sharey=share_y, squeeze=False)
    panels = grid.ravel()
    for number, ax in enumerate(panels):
        ax.set_xlabel(xlabel)
        if number % columns == 0 or not share_y:
            ax.set_ylabel(ylabel)
    return fig, panels[0] if panels.size == 1 else panels


def shades(count: int) -> list[tuple[float, float, float, float]]:
    """Colours for an ordered family of curves, from dark to light, all dark enough for white paper."""
    return [tuple(map(float, mpl.colormaps["viridis"](x))) for x in np.linspace(0.0, 0.78, count)]  # type: ignore[misc]


def theory(ax: Axes, x: Any, y: Any, *, label: str | None = None, **style: Any) -> Line2D:
    """A prediction: a line."""
    look: dict[str, Any] = {"color": COLOURS["theory"], "zorder": 2, "label": label}
    (line,) = ax.plot(_host(x), _host(y), **(look | style))
    return line


def measured(
    ax: Axes, x: Any, y: Any, stderr: Any = None, *, label: str | None = None, **style: Any
) -> ErrorbarContainer:
    """A measurement: markers, with bars of two standard errors where they are known."""
    bars = None if stderr is None else 2 * _host(stderr)
    look: dict[str, Any] = {
        "fmt": "o",
        "color": COLOURS["measured"],
        "zorder": 3,
        "label": label,
        "elinewidth": 1.2,
    } | style
    return ax.errorbar(_host(x), _host(y), bars, **look)


def rival(ax: Axes, x: Any, y: Any, *, label: str | None = None, **style: Any) -> Line2D:
    """A wrong theory: a dashed grey line."""
    look: dict[str, Any] = {
        "color": COLOURS["rival"],
        "linestyle": (0, (5, 2)),
        "linewidth": 1.4,
        "zorder": 1,
        "label": label,
    }
    (line,) = ax.plot(_host(x), _host(y), **(look | style))
    return line


def direct_label(ax: Axes, x: float, y: float, text: str, *, color: Any, shift: tuple[float, float] = (6, 0)) -> None:
    """A label beside its curve, in the curve's colour; `shift` in points."""
    ax.annotate(text, (x, y), xytext=shift, textcoords="offset points", color=color, fontsize=9.5, va="center")


def _host(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


_SCRIPT = """(() => {{
  const root = document.getElementById("{root}");
  const input = root.querySelector("input"), output = root.querySelector("output");
  const frames = root.querySelectorAll(".slider-frame"), values = {values};
  const show = () => {{
    frames.forEach((frame, i) => {{ frame.hidden = i !== Number(input.value); }});
    output.textContent = values[input.value];
    input.setAttribute("aria-valuetext", values[input.value]);
  }};
  input.addEventListener("input", show);
  show();
}})();"""


class Slider:
    """Figures behind a labelled range input: works in a static page, without a kernel and without the network."""

    def __init__(self, html: str) -> None:
        self._html = html

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return "a slider figure; it shows in a notebook or in the book"


def slider(frames: Sequence[Figure], values: Sequence[str], *, name: str, label: str, alt: str, caption: str) -> Slider:
    """Put one figure per value behind a slider, and close the figures.

    The first frame shows without script. Arrow keys move the slider; its value is spoken.

    Args:
        frames: one figure a position, of equal size.
        values: what each position stands for, with its unit, such as "ridge 0.1".
        name: unique on the page: lower-case letters, digits and hyphens.
        label: what the slider changes.
        alt: alternative text of the whole figure: what is there, and what changes along the slider.
        caption: what to see.

    Raises:
        ValueError: no frame, another number of values, an empty text, or a name of another form.
    """
    if not frames or len(frames) != len(values):
        raise ValueError(f"frames and values: got {len(frames)} and {len(values)}, want equally many, at least one")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ValueError(f"name: got {name!r}, want lower-case letters, digits and hyphens, a letter first")
    for argument, text in {"label": label, "alt": alt, "caption": caption}.items():
        if not text.strip():
            raise ValueError(f"{argument}: got an empty text, want a sentence")
    root = f"slider-{name}"
    pictures = "".join(
        f'<div class="slider-frame"{"" if i == 0 else " hidden"}>{_inline_svg(frame, f"{name}-{i}-")}</div>'
        for i, frame in enumerate(frames)
    )
    script = _SCRIPT.format(root=root, values=json.dumps([*values]))
    return Slider(
        f'<figure class="slider" id="{root}"><div role="img" aria-label="{escape(alt)}">{pictures}</div>'
        f'<label for="{root}-input">{escape(label)}: <output for="{root}-input">{escape(values[0])}</output></label>'
        f'<input type="range" id="{root}-input" min="0" max="{len(frames) - 1}" step="1" value="0" '
        f'aria-valuetext="{escape(values[0])}"><figcaption>{escape(caption)}</figcaption></figure>'
        f"<script>{script}</script>"
    )


def _inline_svg(figure: Figure, prefix: str) -> str:
    """The figure as an SVG element whose ids are its own on the page; matplotlib repeats them in every figure."""
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    svg = buffer.getvalue()[buffer.getvalue().index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    return svg.replace("<svg ", '<svg aria-hidden="true" ', 1)


__all__ = [
    "COLOURS", "CYCLE", "MARKERS", "Slider", "axes", "direct_label", "measured", "rival", "shades", "slider", "theory",
    "use_style",
]  # fmt: skip

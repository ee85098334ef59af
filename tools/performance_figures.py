"""The figures of the page *Performance*: cost against size on logarithmic axes, a file a chapter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from lib import figures


def growth(book: Path, result: dict[str, Any]) -> str:
    """Draw a chapter's series; returns the directive that shows them, empty where there are none."""
    name, series = result["chapter"], result["growth"]
    if not series:
        return ""
    fig, ax = figures.axes(
        "elements of the growing axis", "processor time (s)", width=5.2, height=3.6 + 0.24 * len(series)
    )
    for number, found in enumerate(series):
        sizes, times = np.array(found["sizes"]), np.array(found["seconds"])
        colour, marker = figures.CYCLE[number % len(figures.CYCLE)], figures.MARKERS[number % len(figures.MARKERS)]
        axis = found["axis"].split(",")[0].split(" of ")[0]
        label = f"{found['kernel']}: {axis}, {found['exponent']:.2f}"
        ax.plot(sizes, times, marker=marker, color=colour, label=label, linewidth=1.2)
        for exponent in dict.fromkeys(found["expected"]):  # through the last point, over the sizes that are fitted
            figures.rival(ax, sizes[[-3, -1]], times[-1] * (sizes[[-3, -1]] / sizes[-1]) ** exponent)
    ax.set(xscale="log", yscale="log")
    fig.legend(loc="outside lower center", fontsize=10, frameon=False)
    target = book / "performance" / f"{name}.svg"
    target.parent.mkdir(exist_ok=True)
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": name}):
        fig.savefig(target, metadata={"Date": None})
    plt.close(fig)
    kernels = list(dict.fromkeys(re.sub(r",.*", "", found["kernel"]) for found in series))
    told = "; ".join(
        f"{found['kernel']} against {found['axis']} rises with exponent {found['exponent']:.2f}" for found in series
    )
    return "\n".join(
        [
            f"```{{figure}} performance/{name}.svg",
            f":name: fig-performance-{name.replace('_', '-')}",
            f":alt: Curves on double-logarithmic axes, with dashed lines of the expected slope; {told}.",
            "",
            f"Cost of {', '.join(f'`{kernel}`' for kernel in kernels)} against size; the number in the legend is the"
            " exponent fitted to the last three sizes. Dashed: the expected exponents, through the last point.",
            "```",
        ]
    )

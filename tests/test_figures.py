"""Figures: labelled, vector, told apart without colour, and a slider that needs no kernel."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch

from lib import figures

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _no_figure_left_open() -> None:
    mpl.pyplot.close("all")


def test_axes_carry_their_labels() -> None:
    fig, panels = figures.axes("samples", "error", columns=2, share_y=True)
    assert [ax.get_xlabel() for ax in panels] == ["samples", "samples"]
    assert [ax.get_ylabel() for ax in panels] == ["error", ""]
    mpl.pyplot.close(fig)
    with pytest.raises(ValueError, match="xlabel and ylabel: got '' and 'error'"):
        figures.axes("", "error")
    _, panels = figures.axes("samples", "error", rows=2, columns=2)
    assert [ax.get_ylabel() for ax in panels] == ["error"] * 4
    with pytest.raises(ValueError, match="rows and columns: got 1 and 0"):
        figures.axes("samples", "error", columns=0)


def test_theory_is_a_line_and_a_measurement_a_marker_with_two_standard_errors() -> None:
    fig, ax = figures.axes("x", "y")
    line = figures.theory(ax, torch.arange(3), torch.ones(3, requires_grad=True))
    points = figures.measured(ax, [0, 1], torch.ones(2), stderr=[0.1, 0.2])
    wrong = figures.rival(ax, [0, 1], [1, 1])
    assert (line.get_linestyle(), line.get_marker()) == ("-", "None")
    assert (points[0].get_linestyle(), points[0].get_marker()) == ("None", "o")
    assert wrong.is_dashed()
    bar = points[2][0].get_segments()[1]
    np.testing.assert_allclose(bar[:, 1], [0.6, 1.4])
    mpl.pyplot.close(fig)


def _contrast_with_white(colour: Any) -> float:
    channels = np.asarray(mpl.colors.to_rgb(colour), dtype=np.float64)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05))


def test_every_colour_stands_out_from_white_paper() -> None:
    for colour in (*figures.CYCLE, *figures.COLOURS.values()):
        assert _contrast_with_white(colour) >= 3
    assert all(_contrast_with_white(colour) >= 1.9 for colour in figures.shades(6))
    assert len({tuple(c) for c in figures.shades(6)}) == 6


def _frames(count: int) -> list[mpl.figure.Figure]:
    frames = []
    for i in range(count):
        fig, ax = figures.axes("x", "y")
        figures.theory(ax, [0, 1], [0, i])
        frames.append(fig)
    return frames


def test_a_slider_holds_one_labelled_input_and_frames_whose_ids_are_unique() -> None:
    texts = {"name": "toy", "label": "slope", "alt": "A line that rises", "caption": 'It "rises" & falls'}
    html = figures.slider(_frames(3), ["0", "1", "2"], **texts)._repr_html_()
    body = html[: html.index("<script>")]
    root = ET.fromstring(
        re.sub(r"( hidden)>", ' hidden="">', body).replace('aria-valuetext="0">', 'aria-valuetext="0"/>')
    )
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    frames = [element for element in root.iter() if element.get("class") == "slider-frame"]
    assert [frame.get("hidden") is None for frame in frames] == [True, False, False]
    assert root.find(".//input").get("max") == "2"  # type: ignore[union-attr]
    assert root.find(".//div[@role='img']").get("aria-label") == "A line that rises"  # type: ignore[union-attr]
    assert root.find("figcaption").text == 'It "rises" & falls'  # type: ignore[union-attr]
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', body):
        assert target in ids
    assert mpl.pyplot.get_fignums() == []


@pytest.mark.parametrize("change", [{"name": "No"}, {"label": " "}, {"alt": ""}, {"caption": ""}])
def test_a_slider_without_a_text_is_refused(change: dict[str, str]) -> None:
    texts = {"name": "toy", "label": "slope", "alt": "alt", "caption": "caption"} | change
    with pytest.raises(ValueError, match=f"{next(iter(change))}: got"):
        figures.slider(_frames(1), ["0"], **texts)
    mpl.pyplot.close("all")


def test_a_slider_needs_a_value_for_each_frame() -> None:
    with pytest.raises(ValueError, match="frames and values: got 0 and 1"):
        figures.slider([], ["0"], name="toy", label="a", alt="b", caption="c")


def test_the_style_makes_vector_figures_with_legible_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpl, "rcParams", mpl.rcParams.copy())
    with mpl.rc_context():
        figures.use_style()
        assert mpl.rcParams["svg.fonttype"] == "path"
        assert min(mpl.rcParams[key] for key in ("font.size", "axes.labelsize", "legend.fontsize")) >= 9
        assert mpl.rcParams["figure.facecolor"] == "white"

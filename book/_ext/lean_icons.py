"""A Sphinx extension: the icon fonts carry the dozen icons that pages show, instead of two thousand.

The theme brings an icon font of 156 kB, and a style sheet that names every icon in it. Icons that no page, script or
style sheet asks for leave both.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx

_ICON = re.compile(r"\bfa-[a-z0-9-]+")
_ICON_RULE = re.compile(r'(?:\.fa-[a-z0-9-]+:before,?)+\{content:"[^"]*"\}')
_ESCAPED = re.compile(r"content:\s*[\"']\\([0-9a-fA-F]{2,6})")
_FONT_SOURCES = re.compile(r'url\(([^()]*?)\.woff2\) format\("woff2"\),url\(\1\.ttf\) format\("truetype"\)')


def slim_icons(css: str, used: set[str]) -> str:
    """The icons' style sheet with the names that are used, and fonts in the format that `slim_font` writes."""
    css = _ICON_RULE.sub(lambda rule: rule[0] if used & set(_ICON.findall(rule[0])) else "", css)
    return _FONT_SOURCES.sub(r'url(\1.woff) format("woff")', css)


def icons_of(css: str) -> set[int]:
    """The code points that a style sheet puts before or after an element."""
    return {int(code, 16) for code in _ESCAPED.findall(css)}


def slim_font(font: Path, kept: set[int]) -> None:
    """Beside `font`, a `.woff` of the kept code points alone."""
    with TTFont(font) as face:
        cutter = subset.Subsetter(subset.Options(drop_tables=["FFTM"]))
        cutter.populate(unicodes=kept)
        cutter.subset(face)
        face.flavor = "woff"
        face.save(font.with_suffix(".woff"))


def slim_built_icons(app: Sphinx, exception: Exception | None) -> None:
    """Rewrite icon names and icon fonts of a build that succeeded."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    used = {
        icon
        for file in (*out.rglob("*.html"), *out.glob("_static/*.js"), *out.glob("_static/scripts/*.js"))
        for icon in _ICON.findall(file.read_text(encoding="utf-8"))
    }
    for css in out.glob("_static/vendor/fontawesome/*/css/all.min.css"):
        css.write_text(slim_icons(css.read_text(encoding="utf-8"), used), encoding="utf-8")
    kept = {code for css in out.glob("_static/**/*.css") for code in icons_of(css.read_text(encoding="utf-8"))}
    for font in out.glob("_static/vendor/fontawesome/*/webfonts/*.ttf"):
        slim_font(font, kept)
        for heavy in (font, font.with_suffix(".woff2")):
            heavy.unlink()


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the step after the pages were slimmed, so that icons which only the theme's scripts name are gone."""
    app.connect("build-finished", slim_built_icons, priority=950)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""The built book, as a reader meets it: in a real browser, on a desktop, in the dark, on a phone, and by keyboard."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, expect

from tools.browser import find
from tools.browsing import TYPESET, browsing, cut_off, serving

ROOT = Path(__file__).resolve().parent.parent
TOC = (ROOT / "_toc.yml").read_text(encoding="utf-8")
PAGES = [f"{name}.html" for name in re.findall(r"(?:file|root): *(\S+)", TOC)] + ["genindex.html", "search.html"]
CHAPTERS = [name for name in PAGES if name.startswith("chapters/")]
MODES: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "has_touch": True},
}
# In the dark only colours differ from the light page, on a phone everything but colours.
RULES: dict[str, dict[str, Any]] = {
    "light": {"resultTypes": ["violations"]},
    "dark": {"resultTypes": ["violations"], "runOnly": ["color-contrast", "link-in-text-block"]},
    "phone": {"resultTypes": ["violations"], "rules": {"color-contrast": {"enabled": False}}},
}
UNFOLD = """() => {
  document.querySelectorAll("details").forEach((box) => { box.open = true });
  document.querySelectorAll("button.toggle-button").forEach((button) => button.click());
}"""

# Nine tenths of a chapter's 30,000 elements are inside formulas and code, which one script makes alike: some of each
# stand for all, and axe takes seconds instead of a minute.
SHRINK = """() => {
  [...document.querySelectorAll("mjx-container")].slice(20).forEach((formula) => formula.replaceChildren("x"));
  [...document.querySelectorAll("pre")].slice(20).forEach((code) => code.replaceChildren("x"));
}"""

CLIPPED = """() => [...document.querySelectorAll(".bd-article :is(pre, table, figure)")]
  .filter((box) => box.checkVisibility() && box.scrollWidth > box.clientWidth + 1)
  .map((box) => box.outerHTML.slice(0, 200))"""


@dataclass
class Visit:
    """One page in a tab, and what happened while it loaded."""

    page: Page
    strays: list[str]
    troubles: list[str] = field(default_factory=list)
    finished: list[Request] = field(default_factory=list)

    def open(self, url: str) -> None:
        """Go there, and wait until scripts have run and formulas are set."""
        self.page.goto(url)
        self.page.wait_for_load_state("networkidle")
        self.page.evaluate(TYPESET)

    def transferred(self) -> int:
        """Bytes of all bodies, as a server without compression sends them."""
        return sum(request.sizes()["responseBodySize"] for request in self.finished)


@pytest.fixture(scope="module")
def address(built_book: Path) -> Iterator[str]:
    with serving(built_book) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path, reason = find(), "NO CHROMIUM FOUND: the built book was not tested; set CHROMIUM to the path of one"
    if path is None and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if path is None:
        pytest.skip(reason)
    with browsing(path) as chromium:
        yield chromium


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Callable[..., Visit]]:
    contexts = []

    def go(name: str, mode: str = "light", **options: Any) -> Visit:
        context = browser.new_context(**MODES[mode], **options)
        contexts.append(context)
        strays = cut_off(context, address)
        tab = Visit(context.new_page(), strays)
        tab.page.on("console", lambda m: tab.troubles.append(m.text) if m.type in ("error", "warning") else None)
        tab.page.on("pageerror", lambda error: tab.troubles.append(str(error)))
        tab.page.on("requestfailed", lambda request: tab.troubles.append(f"failed: {request.url}"))
        tab.page.on("requestfinished", lambda request: tab.finished.append(request))
        tab.open(address + name)
        return tab

    yield go
    for context in contexts:
        context.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PAGES)
def test_page_loads_alone_and_is_legible_to_everybody(visit: Callable[..., Visit], name: str, mode: str) -> None:
    tab = visit(name, mode)
    page = tab.page
    page.evaluate(UNFOLD)
    assert tab.troubles == []  # read before axe runs, which causes its own
    assert tab.strays == []
    assert (
        page.evaluate("[...document.querySelectorAll('.math:not(:has(mjx-container))')].map(m => m.textContent)") == []
    )
    assert page.evaluate("[...document.querySelectorAll('mjx-merror')].map(m => m.textContent)") == []
    images = "[...document.images].filter(image => !(image.complete && image.naturalWidth)).map(image => image.src)"
    assert page.evaluate(images) == []
    mute = "[...document.querySelectorAll('.bd-article img')].filter(i => !i.alt.trim()).map(i => i.src)"
    assert page.evaluate(mute) == []
    assert page.evaluate("document.documentElement.dataset.theme") == ("dark" if mode == "dark" else "light")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= MODES[mode]["viewport"]["width"], "the page scrolls sideways"
    page.evaluate(SHRINK)
    found = Axe().run(page, options=RULES[mode]).response["violations"]
    assert [(v["id"], v["impact"], [n["html"][:200] for n in v["nodes"][:3]]) for v in found] == []


@pytest.mark.parametrize("name", ["book/intro.html", *CHAPTERS])
def test_page_is_light(visit: Callable[..., Visit], name: str) -> None:
    limit = 4_000_000 if name in CHAPTERS else 1_000_000
    tab = visit(name)
    heaviest = sorted(((r.sizes()["responseBodySize"], r.url) for r in tab.finished), reverse=True)[:5]
    assert tab.transferred() < limit, heaviest


def test_address_of_the_book_leads_to_its_front_page(visit: Callable[..., Visit]) -> None:
    tab = visit("")
    expect(tab.page).to_have_title(re.compile("Executable Theory"))
    expect(tab.page.locator(".totals")).to_be_visible()
    assert "{{" not in tab.page.inner_text("body")


@pytest.mark.parametrize("name", CHAPTERS)
def test_search_finds_a_theorem_and_jumps_to_it(visit: Callable[..., Visit], name: str) -> None:
    page = visit(name).page
    theorem = page.locator(".proof.theorem[id]").first
    label, heading = theorem.get_attribute("id"), theorem.locator(".admonition-title").inner_text()
    title = heading.partition("(")[2].removesuffix(")")
    page.keyboard.press("Control+k")
    page.keyboard.type(title)
    page.keyboard.press("Enter")
    link = page.locator(f'ul.search a[href*="{name}"][href$="#{label}"]').first
    link.click(timeout=10_000)
    expect(page.locator(f'[id="{label}"]')).to_be_in_viewport(timeout=30_000)
    page.evaluate(TYPESET)  # which moves the text around the theorem, but not out of sight
    expect(page.locator(f'[id="{label}"]')).to_be_in_viewport()


@pytest.mark.parametrize("name", CHAPTERS)
def test_formulas_are_set_a_few_at_a_time(visit: Callable[..., Visit], name: str) -> None:
    page = visit(name).page
    page.add_init_script("""window.turns = 0;
      (function tick() { window.turns += !!document.querySelector("mjx-container"); setTimeout(tick) })()""")
    page.reload(wait_until="commit")
    page.wait_for_function("window.MathJax?.startup?.promise")
    page.evaluate(TYPESET)
    formulas = page.locator(".math")
    assert page.locator(".math > mjx-container").count() == formulas.count() > 100
    assert page.evaluate("window.turns") > formulas.count() / 100


@pytest.mark.parametrize("name", CHAPTERS)
def test_slider_moves_by_keyboard(visit: Callable[..., Visit], name: str) -> None:
    page = visit(name).page
    slider = page.locator("figure.slider").first
    handle, value = slider.locator("input[type=range]"), slider.locator("output")
    frames = slider.locator(".slider-frame")
    before = value.inner_text()
    expect(frames.nth(0)).to_be_visible()
    handle.focus()
    page.keyboard.press("ArrowRight")
    expect(frames.nth(1)).to_be_visible()
    expect(frames.nth(0)).to_be_hidden()
    assert value.inner_text() != before
    expect(handle).to_have_attribute("aria-valuetext", value.inner_text())


def test_ledger_is_sorted_and_filtered_by_keyboard(visit: Callable[..., Visit]) -> None:
    page = visit("book/claims.html").page
    rows = page.locator("#ledger-claims tbody tr:visible")
    total = rows.count()
    assert total > 0
    heading = page.locator("#ledger-claims th", has_text="Claim")
    heading.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(heading).to_have_attribute("aria-sort", "ascending")
    shown = [row.locator('[data-label="Claim"]').get_attribute("data-key") for row in rows.all()]
    assert shown == page.evaluate("texts => texts.sort((a, b) => a.localeCompare(b))", shown)
    name = rows.first.locator('[data-label="Claim"] code').inner_text()
    page.get_by_role("searchbox", name="Find").fill(name)
    assert 0 < rows.count() <= total
    expect(page.locator(".ledger-controls output")).to_have_text(f"{rows.count()} of {total} claims")
    page.get_by_role("searchbox", name="Find").fill("no claim says this")
    expect(rows).to_have_count(0)


def test_ledger_reads_without_script(visit: Callable[..., Visit]) -> None:
    page = visit("book/claims.html", java_script_enabled=False).page
    expect(page.locator("#ledger-claims tbody tr").first).to_be_visible()
    expect(page.locator(".ledger-controls")).to_be_hidden()


def test_claim_of_the_ledger_leads_to_its_row(visit: Callable[..., Visit]) -> None:
    page = visit("book/claims.html").page
    page.locator('#ledger-claims [data-label="Claim"] a').last.click()
    expect(page.locator(".claim:target")).to_be_in_viewport(timeout=30_000)
    page.evaluate(TYPESET)
    expect(page.locator(".claim:target")).to_be_in_viewport()


def test_every_part_of_the_book_was_visited() -> None:
    named = {entry["file"] for part in yaml.safe_load(TOC)["parts"] for entry in part["chapters"]}
    assert {f"{name}.html" for name in named} <= set(PAGES)


@pytest.mark.parametrize("name", CHAPTERS)
def test_print_keeps_the_text_and_drops_the_frame(visit: Callable[..., Visit], name: str) -> None:
    page = visit(name, reduced_motion="reduce").page
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 660, "height": 930})  # A4 less its margins, at 96 dots an inch
    expect(page.locator(".bd-sidebar-primary")).to_be_hidden()
    assert page.evaluate(CLIPPED) == []

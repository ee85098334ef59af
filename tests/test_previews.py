"""Previews of the built book, in a real browser: by mouse and by keyboard, in the dark, and not by touch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tools.browser import find
from tools.browsing import TYPESET, browsing, cut_off, serving

FOREIGN = 'a.reference.internal[href*="starc.html#starc-duality"]'  # a theorem of another page
OWN = 'a.reference.internal[href="#pr-softmax"]'


@pytest.fixture(scope="module")
def opened(built_book: Path) -> Iterator[Callable[..., Page]]:
    path = find()
    if path is None:
        pytest.skip("no Chromium")
    with serving(built_book) as address, browsing(path) as chromium:

        def go(name: str, **options: Any) -> Page:
            context = chromium.new_context(**options)
            cut_off(context, address)
            page = context.new_page()
            page.goto(address + name)
            page.wait_for_load_state("networkidle")
            page.evaluate(TYPESET)
            return page

        yield go


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_theorem_shows_on_hover_stays_under_the_mouse_and_leaves_on_escape(
    opened: Callable[..., Page], scheme: str
) -> None:
    page = opened("book/primer.html", color_scheme=scheme)
    link, tip = page.locator(FOREIGN).first, page.get_by_role("tooltip")
    link.hover()
    expect(tip).to_be_visible()
    expect(tip).to_contain_text("Worst-case regret is a distance to a ray")
    expect(tip.locator("mjx-container").first).to_be_visible()
    expect(tip.locator("a, [id], [tabindex='0']")).to_have_count(0)
    expect(link).to_have_attribute("aria-describedby", "preview")
    assert Axe().run(page, context="#preview").response["violations"] == []
    tip.hover()
    page.wait_for_timeout(500)
    expect(tip).to_be_visible()
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    assert link.get_attribute("aria-describedby") is None


def test_a_theorem_of_the_same_page_shows_on_focus_by_keyboard(opened: Callable[..., Page]) -> None:
    page = opened("book/primer.html")
    link, tip = page.locator(OWN).first, page.get_by_role("tooltip")
    link.evaluate("link => link.focus({ focusVisible: true })")
    expect(tip).to_contain_text("Derivatives of log-sum-exp")
    page.keyboard.press("Tab")
    expect(link).not_to_have_attribute("aria-describedby", "preview")


def test_sources_terms_and_claims_have_previews(opened: Callable[..., Page]) -> None:
    for name, target in [("primer", "references.html#"), ("primer", "glossary.html#"), ("findings", "#claim-")]:
        page = opened(f"book/{name}.html")
        page.locator(f'.bd-article a.reference.internal[href*="{target}"]').first.hover()
        expect(page.get_by_role("tooltip")).to_be_visible()


def test_a_finger_gets_the_target_and_no_preview(opened: Callable[..., Page]) -> None:
    page = opened("book/primer.html", has_touch=True, viewport={"width": 390, "height": 844})
    page.locator(OWN).first.tap()
    page.wait_for_timeout(500)
    expect(page.get_by_role("tooltip")).to_be_hidden()
    assert page.url.endswith("#pr-softmax")

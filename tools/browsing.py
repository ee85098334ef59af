"""The built book in a real browser: served from loopback, with the way to every other host cut."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Route, sync_playwright

from .serve import HOST, server

FLAGS = (
    "--no-sandbox",  # root in a container cannot have one
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
)


@contextmanager
def serving(html: Path) -> Iterator[str]:
    """Serve the built book on a free port of loopback; gives the address, with a slash at its end."""
    with server(html, 0) as pages:
        thread = threading.Thread(target=pages.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{pages.server_port}/"
        finally:
            pages.shutdown()
            thread.join()


@contextmanager
def browsing(executable: str) -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*FLAGS])
        try:
            yield browser
        finally:
            browser.close()


def cut_off(context: BrowserContext, address: str) -> list[str]:
    """Abort every request that leaves `address`; gives the list that such requests are noted in."""
    strays: list[str] = []

    def guard(route: Route) -> None:
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            strays.append(route.request.url)
            route.abort()

    context.route("**/*", guard)
    return strays


TYPESET = "async () => { if (window.MathJax?.startup) await MathJax.startup.promise }"

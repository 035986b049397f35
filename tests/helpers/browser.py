"""A real browser for pages that the project makes: Debian's Chromium, driven by Playwright without a browser of its own.

Tests that use it are skipped, with the reason, where there is no Chromium or no Playwright. `CHROMIUM` names another program.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """A headless browser; `arguments` are more of its program's."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no browser tests: playwright is not installed (uv sync)")
    named = os.environ.get("CHROMIUM")
    program = named or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no browser tests: no Chromium (apt-get install chromium), or name one in the environment as CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        # As root Chromium wants no sandbox; what it opens is the tests' own. Containers have a small /dev/shm.
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage", *arguments]
        )
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page in a window of its own, and what went wrong in it.

    Attributes:
        page: Playwright's.
        errors: lines of its console that are errors or warnings, and exceptions of its scripts.
        requests: addresses that it asked for, but for its own and those of data within it.
    """

    def __init__(self, browser: Browser, width: int, height: int = 900, **options: Any) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.page: Page = self._context.new_page()
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, address: str) -> Page:
        """Go to an address, and wait until it is loaded."""
        self.page.goto(address, wait_until="load")
        self.requests = [url for url in self.requests if url != address and not url.startswith("data:")]
        return self.page

    def overflows(self) -> bool:
        """Whether the page is wider than its window, so that all of it scrolls sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))

    def close(self) -> None:
        """Close the window."""
        self._context.close()


@contextmanager
def window(browser: Browser, width: int, **options: Any) -> Iterator[Watched]:
    """A page of a width in pixels; `options` are Playwright's, e.g. ``color_scheme="dark"``."""
    watched = Watched(browser, width, **options)
    try:
        yield watched
    finally:
        watched.close()

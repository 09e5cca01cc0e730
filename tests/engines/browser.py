"""Debian's Chromium, driven by Playwright, and axe-core, which finds what keeps people out who cannot see or point."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Frame, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
# What Chromium would ask the internet for by itself.
_QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
_SERIOUS = {"serious", "critical"}


@contextmanager
def running_browser() -> Iterator[Browser]:
    """A browser; where there is none, the test is skipped."""
    if not CHROMIUM.exists():
        pytest.skip("there is no Chromium here: apt install chromium, or make engines")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_QUIET)
        try:
            yield browser
        finally:
            browser.close()


def hindrances(page: Page | Frame) -> list[str]:
    """What axe-core finds serious or worse, each with the element that it found."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['help']} {[node['html'] for node in each['nodes']]}"
        for each in found
        if each["impact"] in _SERIOUS
    ]

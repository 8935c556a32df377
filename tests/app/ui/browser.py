"""A real browser for the playground: Debian's Chromium, Chrome, or the one that ``playwright install`` fetches."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--no-sandbox",  # Chromium's does not start for root, as which containers run
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


class NoBrowser(Exception):
    """None of the browsers looked for is installed."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The first browser that is installed, without a window.

    :raises NoBrowser: saying what to install.
    """
    with sync_playwright() as playwright:
        program = next((found for name in _NAMES if (found := shutil.which(name))), playwright.chromium.executable_path)
        if not Path(program).exists():
            raise NoBrowser(f"none of {', '.join(_NAMES)} is on the PATH: apt-get install chromium")
        browser = playwright.chromium.launch(executable_path=program, args=[*_FLAGS])
        yield browser
        browser.close()

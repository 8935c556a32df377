"""The playground as people meet it: the embedded models behind the real server, in a real browser."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser

from tests.app import tiny
from tests.app.live import ROOT, running, wait_until_ready
from tests.app.ui.browser import NoBrowser, chromium
from tests.app.ui.playground import Playground

Visit = Callable[..., Playground]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    try:
        with chromium() as browser:
            yield browser
    except NoBrowser as error:
        pytest.skip(str(error))


@pytest.fixture(scope="package")
def url(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The embedded Hausa models, with a tiny parser and a second language beside them."""
    root = tmp_path_factory.mktemp("playground")
    store = tiny.write_store(root, tasks=("dp",))
    tiny.write_store(root, language="sw", tasks=("ner",))
    for folder in (ROOT / "model_store" / "ha").iterdir():
        if folder.name != "dp":
            (store / "ha" / folder.name).symlink_to(folder)
    with running(store) as server:
        wait_until_ready(server.url)
        yield server.url


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Visit]:
    """Open the page at a language's task; keywords are the browser's. It may speak with its own server alone."""
    opened: list[Playground] = []

    def open_page(place: str = "", *, server: str = url, **options: Any) -> Playground:
        opened.append(Playground(browser.new_page(**options), server))
        opened[-1].page.goto(f"{server}/#{place}")
        return opened[-1]

    yield open_page
    for playground in opened:
        playground.page.close()
        assert {urlsplit(request).netloc for request in playground.requests} == {urlsplit(playground.server).netloc}
        assert playground.faults == []

"""``python -m tests.app.ui.screenshot docs/playground.png``: the picture in the README, of the embedded models."""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import ViewportSize

from tests.app.live import ROOT, running, wait_until_ready
from tests.app.ui.browser import chromium
from tests.app.ui.playground import Playground

_WINDOW = ViewportSize(width=1200, height=800)
_COLOURS = 128
_WARM_UP = 20


def main(target: Path, place: str = "ha/ner") -> None:
    """Answer the first example until the server is warm, and write what a window then shows, with a palette."""
    with running(ROOT / "model_store", "--lang", place.split("/")[0]) as server, chromium() as browser:
        wait_until_ready(server.url)
        playground = Playground(browser.new_page(viewport=_WINDOW, color_scheme="light"), server.url)
        playground.page.goto(f"{server.url}/#{place}")
        for _ in range(_WARM_UP):
            playground.analyse()
        playground.page.wait_for_load_state("networkidle")
        picture = Image.open(io.BytesIO(playground.page.screenshot())).convert("RGB")
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

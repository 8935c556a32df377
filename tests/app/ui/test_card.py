"""What the page tells of a model's quality is what its card holds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from app.settings import Settings
from tests.app import tiny
from tests.app.conftest import open_all
from tests.app.live import Listening, listening
from tests.app.ui.conftest import Visit

pytestmark = pytest.mark.slow

SCORES = {
    "baseline": {"f1": 12.34, "low": 10.0, "high": 14.06, "rule": "each word as it was most often"},
    "teacher": {"f1": 55.3, "low": 53.6, "high": 57.1},
    "student int8": {"f1": 49.6},
    "labelled student": {"f1": 70.0, "low": 68.0, "high": 72.0, "rule": "taught on labels in en, ha"},
}


@pytest.fixture
def rated(tmp_path: Path) -> Iterator[Listening]:
    """A tiny model whose card has scores, and one whose card has no baseline."""
    tiny.write_bundle(tmp_path / "store", "ner", staged=tmp_path / "ner", scores=SCORES)
    tiny.write_bundle(tmp_path / "store", "pos", staged=tmp_path / "pos")
    settings = Settings.read(store=str(tmp_path / "store"), threads=1)
    with listening(settings, open_all(tmp_path / "store", settings)) as server:
        yield server


def test_scores_stand_under_those_of_a_baseline_and_the_page_tells_what_it_does(visit: Visit, rated: Listening) -> None:
    page = visit("ha/ner", server=rated.url)
    card = page.page.get_by_role("region", name="The model")
    rows = card.locator("tbody tr")
    expect(rows).to_have_count(4)
    assert [row.locator("th, td").all_text_contents() for row in rows.all()] == [
        ["baseline", "12.3", "10.0 to 14.1"],
        ["teacher", "55.3", "53.6 to 57.1"],
        ["student int8", "49.6", ""],
        ["labelled student", "70.0", "68.0 to 72.0"],
    ]
    for term, rule in (
        ("Baseline", "each word as it was most often"),
        ("Labelled student", "taught on labels in en, ha"),
    ):
        expect(card.get_by_text(term, exact=True)).to_be_visible()
        expect(card.get_by_role("definition").filter(has_text=rule)).to_be_visible()


def test_a_card_without_a_baseline_shows_what_it_has(visit: Visit, rated: Listening) -> None:
    page = visit("ha/pos", server=rated.url)
    card = page.page.get_by_role("region", name="The model")
    expect(card.locator("tbody tr")).to_have_count(1)
    expect(card.get_by_text("Licence", exact=True)).to_be_visible()
    expect(card.get_by_text("Baseline", exact=True)).to_have_count(0)

"""Loading, keys, errors, answers that overtake each other, and the live proof."""

import hashlib
import json
import math
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Route, expect
from prometheus_client.parser import text_string_to_metric_families

from app.settings import Settings
from tests.app import tiny
from tests.app.conftest import open_all
from tests.app.live import Listening, listening
from tests.app.ui.conftest import Visit

pytestmark = pytest.mark.slow

KEY = "an open secret"


@pytest.fixture
def locked(store: Path) -> Iterator[Listening]:
    """The tiny models behind a key."""
    settings = Settings.read(store=str(store), threads=1, keys=hashlib.sha256(KEY.encode()).hexdigest())
    with listening(settings, open_all(store, settings)) as server:
        yield server


@pytest.fixture
def proven(store: Path, tmp_path: Path) -> Iterator[Listening]:
    """The tiny models, and beside the one for NER its teacher."""
    tiny.write_bundle(tmp_path / "teachers", "ner", staged=tmp_path / "staged")
    settings = Settings.read(
        store=str(store), threads=1, shadow_teacher=str(tmp_path / "teachers"), shadow_share=1.0, shadow_time_share=1.0
    )
    with listening(settings, open_all(store, settings)) as server:
        yield server


def test_what_the_server_refuses_is_told_and_the_page_goes_on(visit: Visit) -> None:
    page = visit("ha/ner")
    page.type(Text="a" * 100_001)
    page.analyse()
    problem = httpx2.post(f"{page.server}/v1/ha/ner", json={"inputs": "a" * 100_001}).json()
    expect(page.alert).to_contain_text(problem["title"])
    expect(page.alert).to_contain_text(problem["detail"])
    assert page.answer.locator("mark").count() == 0
    page.type(Text="Kano")
    page.analyse()
    expect(page.alert).to_be_empty()
    expect(page.answer.locator(".text")).to_contain_text("Kano")


def test_a_server_that_is_gone_is_told(visit: Visit) -> None:
    page = visit("ha/ner")
    page.settled()
    page.page.route("**/v1/ha/ner", lambda route: route.abort())
    page.page.get_by_role("button", name="Analyse").click()
    expect(page.alert).to_contain_text("cannot be reached")


def test_nothing_is_asked_about_an_empty_text(visit: Visit) -> None:
    page = visit("ha/ner")
    page.settled()
    page.page.route("**/v1/ha/ner", lambda route: pytest.fail("the page asked"))
    page.type(Text="")
    page.page.get_by_role("button", name="Analyse").click()
    field = page.page.get_by_label("Text")
    expect(field).to_be_focused()
    assert field.evaluate("field => field.validity.valueMissing")


def test_a_slow_answer_does_not_replace_a_later_one(visit: Visit) -> None:
    page = visit("ha/ner")
    page.settled()
    held: list[Route] = []
    page.page.route("**/v1/ha/ner", lambda route: held.append(route), times=1)
    page.type(Text="Arsenal")
    page.page.get_by_role("button", name="Analyse").click()
    expect(page.answer).to_have_attribute("aria-busy", "true")
    page.type(Text="Chelsea")
    page.analyse()
    with page.page.expect_response("**/v1/ha/ner"):
        held[0].continue_()
    page.page.wait_for_load_state("networkidle")
    expect(page.answer.locator(".text")).to_contain_text("Chelsea")


def test_a_page_that_is_early_waits_for_the_models(visit: Visit, url: str) -> None:
    page = visit("sw/ner")
    page.settled()
    whole = httpx2.get(f"{url}/v1/models").json()
    early = {**whole, "models": []}
    some = {**whole, "models": [model for model in whole["models"] if model["language"] == "sw"]}
    told = iter([early, some])

    def tell(route: Route) -> None:
        route.fulfill(json=next(told, whole))

    page.page.route("**/v1/models", tell)
    page.page.reload()
    notice = page.page.locator("#notice")
    expect(notice).to_contain_text(f"0 of {len(whole['models'])}")
    expect(page.page.get_by_label("Language")).to_be_hidden()
    expect(notice).to_contain_text(f"1 of {len(whole['models'])}")
    page.type(Text="Juma yuko Kano")
    expect(page.page.get_by_label("Language").locator("option")).to_have_count(2)
    expect(notice).to_be_hidden()
    expect(page.page.get_by_label("Text")).to_have_value("Juma yuko Kano")


def test_a_key_is_asked_for_and_named_in_the_code_but_never_shown(visit: Visit, locked: Listening) -> None:
    page = visit("ha/ner", server=locked.url)
    field = page.page.get_by_label("API key")
    expect(field).to_be_focused()
    field.fill("another")
    page.page.keyboard.press("Enter")
    expect(page.page.locator("#notice")).to_contain_text("key")
    field.fill(KEY)
    page.page.keyboard.press("Enter")
    expect(field).to_be_hidden()
    page.type(Text=tiny.SENTENCE)
    expect(page.analyse().locator("mark")).to_have_count(2)
    curl = page.page.get_by_role("region", name="curl").inner_text()
    assert KEY not in page.page.content()
    done = subprocess.run(
        ["sh", "-c", curl], capture_output=True, text=True, check=True, env={**os.environ, "BISTIL_KEY": KEY}
    )
    assert [entity["word"] for entity in json.loads(done.stdout)] == ["Bola Tinubu", "Kano"]


def test_the_live_speed_up_is_that_of_the_metrics(visit: Visit, proven: Listening) -> None:
    page = visit("sw/ner", server=proven.url)
    live = page.page.get_by_role("region", name="The model").get_by_role("group", name="Live, on this server")
    page.settled()
    expect(live).to_be_hidden()  # the teacher is of Hausa alone
    page.page.route("**/v1/ha/ner", lambda route: route.abort())
    page.page.get_by_label("Language").select_option(label="Hausa")
    page.choose("Entities")
    expect(live).to_contain_text("None yet")
    page.page.unroute_all()
    page.type(Text=tiny.SENTENCE)
    for count in ("1 request ", "2 requests ", "3 requests "):
        page.analyse()
        expect(live).to_contain_text(count)
    names = ("pairs_total", "log_speedup_sum", "log_slowdown_sum", "log_speedup_sumsq")
    n, faster, slower, squares = (shadowed(proven.url, name) for name in names)
    total = faster - slower
    assert n == 3
    margin = 1.96 * math.sqrt((squares / n - (total / n) ** 2) / (n - 1))
    way = 1 if total >= 0 else -1  # a student that is slower is told as that, its interval turned around
    said = [math.exp(way * total / n + part) for part in (0, -margin, margin)]
    assert ("slower" in live.inner_text()) == (way == -1)
    told = [float(number) for number in re.findall(r"[\d.]+(?= times| to|\))", live.inner_text())]
    assert told == pytest.approx(said, abs=0.006)  # two digits are shown
    for role in ("teacher", "student"):
        milliseconds = 1000 * shadowed(proven.url, "duration_seconds_sum", role=role) / 3
        (shown,) = re.findall(r"[\d.]+(?= ms)", live.get_by_role("listitem").filter(has_text=role).inner_text())
        assert float(shown) == pytest.approx(milliseconds, abs=0.51 if milliseconds >= 10 else 0.006)


def shadowed(url: str, name: str, **labels: str) -> float:
    """A series of Hausa NER's live proof, single rows."""
    wanted = {"lang": "ha", "task": "ner", "mode": "single", **labels}
    families = text_string_to_metric_families(httpx2.get(f"{url}/metrics").text)
    (found,) = (
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == f"bistil_shadow_{name}" and sample.labels == wanted
    )
    return float(found)

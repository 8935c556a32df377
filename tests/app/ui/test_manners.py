"""Keyboard, screen readers, phones, light and dark, and that the page keeps to its server."""

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Error, expect

from tests.app import tiny
from tests.app.ui.conftest import Visit
from tests.app.ui.playground import Playground

pytestmark = pytest.mark.slow

PHONE = {"width": 320, "height": 640}
TASKS = ("Entities", "Parts of speech", "Syntax", "Inference", "Your labels", "Questions")
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def violations(page: Playground, *rules: str) -> list[str]:
    """What axe-core finds on the page as it is, by these rules, or by all of WCAG 2.2 at level AA and its own."""
    if page.page.evaluate("typeof axe === 'undefined'"):
        page.page.evaluate(AXE_SCRIPT)
    chosen = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": STANDARDS}
    found = page.page.evaluate("options => axe.run(options)", {"runOnly": chosen, "resultTypes": ["violations"]})
    return [f"{rule['id']}: {node['html']}" for rule in found["violations"] for node in rule["nodes"]]


def brightness(colour: str) -> int:
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3])


def through_the_tasks(page: Playground) -> Iterator[str]:
    """Every task with its first example answered, and all that can be opened open."""
    for task in TASKS:
        page.choose(task)
        page.settled()
        for summary in page.page.locator("summary").all():
            summary.click()
        yield task


def test_axe_finds_nothing_to_mend_in_any_task(visit: Visit) -> None:
    page = visit("ha/ner")
    found = {task: violations(page) for task in through_the_tasks(page)}
    page.type(Passage="x" * 100_001)
    page.analyse()
    found["an error"] = violations(page)
    assert not any(found.values()), found


def test_texts_have_the_contrast_of_wcag_in_the_dark_too(visit: Visit) -> None:
    page = visit("ha/ner", color_scheme="dark")
    ink, ground = page.page.evaluate(
        "(({ color, backgroundColor }) => [color, backgroundColor])(getComputedStyle(document.body))"
    )
    assert brightness(ink) > 3 * brightness(ground)
    found = {task: violations(page, "color-contrast") for task in through_the_tasks(page)}
    page.type(Passage="x" * 100_001)
    page.analyse()
    found["an error"] = violations(page, "color-contrast")
    assert not any(found.values()), found


def test_a_phone_never_scrolls_sideways(visit: Visit) -> None:
    page = visit("ha/ner", viewport=PHONE, is_mobile=True, has_touch=True)
    for task in through_the_tasks(page):
        width = page.page.evaluate("document.documentElement.scrollWidth")
        assert width == PHONE["width"], f"{task}: {width} pixels"
    page.choose("Entities")
    page.type(Text="Kano" + 80 * "Abuja")
    page.analyse()
    assert page.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_the_keyboard_alone_gets_from_the_start_to_an_answer(visit: Visit) -> None:
    page = visit("ha/ner")
    page.settled()
    press, focused = page.page.keyboard.press, page.page.locator(":focus")
    press("Tab")
    expect(focused).to_have_accessible_name("Language")
    press("Tab")
    expect(focused).to_have_accessible_name("Entities")
    press("ArrowRight")
    expect(focused).to_have_accessible_name("Parts of speech")
    expect(focused).to_be_checked()
    assert focused.evaluate("node => getComputedStyle(node.nextSibling).outlineStyle") == "solid"
    page.settled()
    press("Tab")
    expect(focused).to_have_accessible_name("Example")
    press("Tab")
    expect(focused).to_have_accessible_name("Text")
    assert focused.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
    press("ControlOrMeta+a")
    page.page.keyboard.type("Kano ce.")
    press("Control+Enter")
    expect(page.answer.locator(".words li")).to_have_count(3)
    expect(focused).to_have_accessible_name("Text")
    press("Tab")
    expect(focused).to_have_accessible_name("Analyse")
    press("ArrowLeft")
    press("Enter")
    expect(page.settled().locator(".words li")).to_have_count(3)


def test_screen_readers_are_told_what_is_what(visit: Visit) -> None:
    page = visit("ha/dp")
    page.type(Text=tiny.SENTENCE)
    page.analyse()
    told = page.page.locator("body").aria_snapshot()
    for line in (
        '- heading "bistil" [level=1]',
        '- combobox "Language"',
        '- group "Task"',
        '- radio "Syntax" [checked]',
        '- textbox "Text"',
        '- button "Analyse"',
        '- region "Answer"',
        "- status: Answered in",
        '- region "Tree of sentence 1; the table below says the same"',
        '- region "The model"',
        '- region "The same request"',
        '- button "Copy the curl command"',
        "- contentinfo",
        "- main",
        "- banner",
    ):
        assert line in told, f"{line} is not in\n{told}"


def test_the_policy_stops_scripts_and_requests_that_are_not_the_pages_own(visit: Visit) -> None:
    playground = visit("ha/ner")
    page = playground.page
    with pytest.raises(Error, match="Content Security Policy"):
        page.add_script_tag(content="window.entered = true")
    assert page.evaluate("window.entered === undefined")
    elsewhere = playground.server.replace("127.0.0.1", "localhost")
    assert page.evaluate("url => fetch(url).then(() => 'sent', (error) => error.name)", elsewhere) == "TypeError"
    assert any("script-src" in fault for fault in playground.faults)
    assert any("connect-src" in fault for fault in playground.faults)
    playground.faults.clear()


def test_languages_that_the_browser_cannot_name_have_names(visit: Visit) -> None:
    page = visit().page
    name = "async code => (await import('/ui/dom.js')).languageName(code)"
    assert [page.evaluate(name, code) for code in ("ha", "pcm", "luo")] == ["Hausa", "Nigerian Pidgin", "Luo"]

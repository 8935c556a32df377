"""What the page draws is what the API answers."""

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.app import tiny
from tests.app.ui.conftest import Visit

pytestmark = pytest.mark.slow

MARKED = """shown => {
  const spans = [];
  let text = "";
  const walk = (node, mark) => {
    if (node.nodeType === Node.TEXT_NODE) { text += node.data; return; }
    if (node.classList.contains("tag")) { mark.label = node.textContent.trim(); return; }
    const inner = node.tagName === "MARK" ? { start: Array.from(text).length } : mark;
    node.childNodes.forEach((child) => walk(child, inner));
    if (inner !== mark) spans.push({ ...inner, end: Array.from(text).length });
  };
  walk(shown, null);
  return { text, spans };
}"""
"""The text that a reader sees, without the tags, and its marks in code points."""

ENDS = "arc => [0, arc.getTotalLength()].map((at) => arc.getPointAtLength(at).x)"


def percent(share: float) -> str:
    return f"{100 * share:.{1 if share > 0.9995 or share < 0.1 else 0}f} %"


def cells(table: Locator) -> list[list[str]]:
    return [row.locator("th, td").all_text_contents() for row in table.locator("tbody tr").all()]


def test_entities_are_marked_where_the_api_finds_them(visit: Visit) -> None:
    text = unicodedata.normalize(
        "NFD", "🎉 Ƙungiyar Arsenal ta doke Chelsea 👩🏽‍🌾 a birnin London, in ji Wọlé Ṣóyínká. ⚽️!"
    )
    page = visit("ha/ner")
    page.type(Text=text)
    shown = page.analyse().locator(".text").evaluate(MARKED)
    found = page.ask("ha/ner", text)
    assert shown["text"] == text
    assert shown["spans"] == [{"start": e["start"], "end": e["end"], "label": e["entity_group"]} for e in found]
    assert {"Arsenal", "London"} <= {text[span["start"] : span["end"]] for span in shown["spans"]}


def test_every_word_has_the_tag_of_the_api(visit: Visit) -> None:
    page = visit("ha/pos")
    page.type(Text="Manoma sun fara girbin gero 🌾 da dawa.")
    items = page.analyse().locator(".words > li").all()
    shown = [item.locator("span").all_text_contents() for item in items]
    assert shown == [
        [word["text"], word["upos"]] for word in page.ask("ha/pos", "Manoma sun fara girbin gero 🌾 da dawa.")
    ]
    assert len(shown) > 7


@pytest.mark.parametrize(
    ("place", "task", "fields", "inputs", "parameters"),
    [
        (
            "ha/nli",
            "nli",
            {"Premise": "Musa ya sayi mota.", "Hypothesis": "Musa yana da mota."},
            {"text": "Musa ya sayi mota.", "text_pair": "Musa yana da mota."},
            {},
        ),
        (
            "ha/zero-shot",
            "zero-shot",
            {"Text": "An ci ƙwallo.", "Labels, with commas between": "wasanni, siyasa"},
            "An ci ƙwallo.",
            {"candidate_labels": ["wasanni", "siyasa"], "hypothesis_template": "Wannan labarin {} ne."},
        ),
    ],
)
def test_labels_have_the_shares_of_the_api(
    visit: Visit, place: str, task: str, fields: dict[str, str], inputs: Any, parameters: dict[str, Any]
) -> None:
    page = visit(place)
    page.type(**fields)
    rows = page.analyse().locator("#result li").all()
    answer = page.ask(f"ha/{task}", inputs, **parameters)
    labels = answer[0] if task == "nli" else answer
    told = [(row.locator(".label").inner_text(), row.locator(".share").inner_text()) for row in rows]
    assert told == [(label["label"], percent(label["score"])) for label in labels] and len(told) > 1
    for row, label in zip(rows, labels, strict=True):
        share = row.locator(".filled").evaluate("bar => bar.offsetWidth / bar.parentNode.offsetWidth")
        assert share == pytest.approx(label["score"], abs=0.02)


def test_the_answer_is_marked_in_its_passage(visit: Visit) -> None:
    question, passage = "A wace shekara aka haifi Buhari?", "🇳🇬 An haifi Muhammadu Buhari a shekarar 1942 a Daura."
    page = visit("ha/qa")
    page.type(Question=question, Passage=passage)
    shown = page.analyse()
    found = page.ask("ha/qa", {"question": question, "context": passage})
    marked = shown.locator("#result .text").evaluate(MARKED)
    assert marked == {"text": passage, "spans": [{"start": found["start"], "end": found["end"]}]}
    assert passage[found["start"] : found["end"]] == found["answer"] == shown.locator("strong").inner_text() == "1942"


def test_a_tree_is_drawn_and_told_as_a_table(visit: Visit) -> None:
    page = visit("ha/dp")
    page.type(Text=tiny.SENTENCE)
    drawn = page.analyse().locator("svg")
    words = page.ask("ha/dp", tiny.SENTENCE)
    middles = [float(word.get_attribute("x") or "nan") for word in drawn.locator(".word").all()]
    assert drawn.locator(".word").all_text_contents() == [word["text"] for word in words]
    assert middles == sorted(middles)
    arcs = [arc.evaluate(ENDS) for arc in drawn.locator(".arc:not(.root)").all()]
    ends = [(min(range(len(middles)), key=lambda i: abs(middles[i] - x)) + 1) for arc in arcs for x in arc]
    assert list(zip(ends[::2], ends[1::2], strict=True)) == [(w["head"], w["id"]) for w in words if w["head"]]
    assert sorted(drawn.locator(".relation").all_text_contents()) == sorted(word["deprel"] for word in words)
    page.page.get_by_text("As a table").click()
    heads = ["none" if not word["head"] else words[word["head"] - 1]["text"] for word in words]
    told = [[word["text"], word["deprel"], head] for word, head in zip(words, heads, strict=True)]
    assert [row[:3] for row in cells(page.answer.locator("table"))] == told


def test_an_example_fills_the_fields_and_is_answered(visit: Visit) -> None:
    page = visit("ha/ner")
    expect(page.settled().locator("mark").first).to_be_visible()
    example = page.page.get_by_label("Example")
    chosen = example.locator("option").nth(2).inner_text()
    example.select_option(label=chosen)
    expect(page.page.get_by_label("Text")).to_have_value(chosen)
    expect(page.answer.locator(".text")).to_contain_text(chosen.split()[0])
    example.select_option(label="Your own")
    expect(page.page.get_by_label("Text")).to_have_value("")


def test_language_and_task_are_chosen_and_kept_in_the_address(visit: Visit) -> None:
    page = visit()
    names = page.page.get_by_role("radio")
    expect(names).to_have_count(6)
    page.page.get_by_label("Language").select_option(label="Swahili")
    expect(names).to_have_count(1)
    expect(page.page.get_by_label("Text")).to_have_attribute("lang", "sw")
    page.page.get_by_label("Language").select_option(label="Hausa")
    page.choose("Questions")
    assert page.page.url.endswith("#ha/qa")
    page.page.reload()
    expect(page.page.get_by_role("radio", name="Questions")).to_be_checked()
    expect(page.page.get_by_label("Passage")).not_to_be_empty()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_shown_curl_and_python_run_and_give_the_same_answer(visit: Visit) -> None:
    text = "Wọlé ya ce: \"Ba na 'so' $HOME `id` \\n\"\n— a Kano 🎉 true"
    page = visit("ha/ner")
    page.type(Text=text)
    page.analyse()
    asked = page.ask("ha/ner", text)
    curl, python = (page.page.get_by_role("region", name=name).inner_text() for name in ("curl", "Python"))
    environment = {**os.environ, "no_proxy": "*"}
    shell = subprocess.run(["sh", "-c", curl], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(shell.stdout) == asked
    script = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, check=True, env=environment)
    assert script.stdout.strip() == str(asked)


def test_markup_in_a_text_is_text(visit: Visit) -> None:
    text = "<img src=x onerror=alert(1)> <b>Kano</b> &amp;"
    page = visit("ha/ner")
    page.type(Text=text)
    shown = page.analyse().locator(".text")
    assert shown.evaluate(MARKED)["text"] == text and shown.locator("img, b").count() == 0

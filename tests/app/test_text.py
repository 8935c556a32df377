import random

import pytest
import regex

from app.text import sentences, snap, trim, words

TEXTS = {
    "hausa": "'Yan sanda sun isa gidan ma'aikatan jami'ar Kano, ƙasar Hausa.",
    "yoruba nfc": "Ààrẹ Tinúbú ní Èkó.",
    "yoruba nfd": "A\u0300a\u0300rẹ\u0323 Tinu\u0301bu\u0301 ni\u0301 E\u0300ko\u0301.",
    "arabic": "السَّلامُ عَلَيْكُم، كيف الحال؟ ١٢٣",
    "hebrew": "שָׁלוֹם עוֹלָם!",
    "hindi": "नमस्ते दुनिया। क्षेत्र",
    "thai": "น้ำใจ สวัสดี",
    "chinese": "東京は大きい。",
    "korean": "한국어 \u1112\u1161\u11ab",
    "emoji": "a 👩\u200d👩\u200d👧 🇳🇬🇰🇪 👍🏽 x️⃣ 🏴\U000e0067\U000e0062\U000e007f!",
    "spaces": "  a\u00a0b\tc\r\nd\u200be\ufeff ",
    "numbers": "3,000 10:30 1/2 U.S. www.example.com e-mail a_b",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_words_are_sorted_apart_trimmed_and_on_grapheme_boundaries(text: str) -> None:
    found = words(text)
    boundaries = {0, *(match.end() for match in regex.finditer(r"\X", text))}
    end_before = 0
    for start, end in found:
        assert end_before <= start < end <= len(text)
        assert text[start:end] == text[start:end].strip()
        assert {start, end} <= boundaries
        end_before = end
    covered = {index for start, end in found for index in range(start, end)}
    assert all(index in covered for index, character in enumerate(text) if character.isalnum())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'Yan sanda sun isa.", ["'Yan", "sanda", "sun", "isa", "."]),
        ("wani 'haka' ne", ["wani", "'", "haka", "'", "ne"]),
        ("jami'an ma'aikata", ["jami'an", "ma'aikata"]),
        ("N3,000 a 10:30", ["N3,000", "a", "10:30"]),
        ("ta ce:“eh”", ["ta", "ce", ":", "“", "eh", "”"]),
        ("東京は", ["東", "京", "は"]),
        ("👍🏽👍", ["👍🏽", "👍"]),
        ("", []),
        (" \n\t", []),
    ],
)
def test_words_by_hand(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in words(text)] == expected


def test_trim_drops_white_space_at_both_ends() -> None:
    assert trim("  ab ", 0, 5) == (2, 4)
    assert trim("   ", 1, 3) == (1, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" \u0e31a", [(1, 2), (2, 3)]),
        ("a \u0301 b", [(0, 1), (2, 3), (4, 5)]),
        ("\u0600 x", [(0, 1), (2, 3)]),
        ("\u200d\u0301", [(0, 2)]),
        ("\u200d", []),
    ],
)
def test_marks_without_letters_are_words_without_white_space(text: str, expected: list[tuple[int, int]]) -> None:
    assert [*words(text)] == expected
    assert snap(text, expected) == expected


def test_snap_widens_to_the_clusters_it_touches() -> None:
    text = "Tinu\u0301bu\u0301 👩\u200d👧"
    assert snap(text, [(0, 7), (4, 7), (9, 10)]) == [(0, 8), (3, 8), (9, 12)]
    assert snap("plain text", [(0, 6)]) == [(0, 5)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yara suna wasa. Ina Aisha? Kai!", ["Yara suna wasa.", "Ina Aisha?", "Kai!"]),
        ("Ya ce: “Na gode.” Sai ya tafi.", ["Ya ce: “Na gode.”", "Sai ya tafi."]),
        ("“Ina Aisha?” ya ce (jiya.) Sai", ["“Ina Aisha?” ya ce (jiya.)", "Sai"]),
        ('Ta ce "eh." "A\'a," in ji shi', ['Ta ce "eh."', '"A\'a," in ji shi']),
        ("Dr. Musa da B. Tinubu sun zo... Haka?! Eh", ["Dr. Musa da B. Tinubu sun zo...", "Haka?!", "Eh"]),
        ("N2.5 da bistil.org/x. sun isa", ["N2.5 da bistil.org/x. sun isa"]),
        ("Labari\n\nYa isa\nKano", ["Labari", "Ya isa\nKano"]),
        ("東京は大きい。日本です。", ["東京は大きい。", "日本です。"]),
        ("नमस्ते। क्षेत्र", ["नमस्ते।", "क्षेत्र"]),
        ("كيف الحال؟ شكرا", ["كيف الحال؟", "شكرا"]),
        ("... .", ["... ."]),
        ("", []),
    ],
)
def test_sentences_by_hand(text: str, expected: list[str]) -> None:
    spans = words(text)
    assert [text[spans[first][0] : spans[last - 1][1]] for first, last in sentences(text, spans)] == expected


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_every_word_is_in_exactly_one_sentence_of_bounded_length(text: str) -> None:
    spans = words(text * 40)
    found = sentences(text * 40, spans, longest=7)
    assert [index for first, last in found for index in range(first, last)] == [*range(len(spans))]
    assert all(0 < last - first <= 7 for first, last in found)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("'a" + "'" * 100_000 + "a", 100_002),
        ("'" * 100_000, 100_000),
        ("\u200c" * 100_000, 0),
        ("\u200d" * 100_000, 0),
        ("\U0001f1f3\U0001f1ec" * 100_000, 100_000),
        ("👩\u200d" * 100_000, 1),
    ],
    ids=["quoted", "apostrophes", "non-joiners", "joiners", "flags", "joined"],
)
def test_the_longest_text_of_anything_is_read_in_proportion(text: str, count: int) -> None:
    assert len(words(text)) == count  # in the square of its length this would take minutes


@pytest.mark.parametrize("seed", range(20))
def test_clusters_are_those_of_the_regex_module(seed: int) -> None:
    letters = "a\u0301\u200d\u0903\U0001f1e6\U0001f1f3👍🏽\U000e0067\u1112\u1161\u11ab"
    text = "".join(random.Random(seed).choices(letters, k=400))
    clusters = [match.span() for match in regex.finditer(r"\X", text)]
    assert snap(text, [(start, start + 1) for start, _ in clusters]) == clusters

"""A whole data folder in miniature, in the layout the README states; the sentences are made from templates."""

import json
import random
from collections.abc import Iterable
from pathlib import Path

NAMES = ("Aisha", "Musa", "Bello", "Zainab", "Garba", "Halima")
PLACES = ("Kano", "Lagos", "Zaria", "Abuja", "Katsina", "London")
Template = tuple[str, tuple[str, ...], str]

ENGLISH: tuple[Template, ...] = (
    (
        "{n} went to {p} yesterday .",
        ("PROPN", "VERB", "ADP", "PROPN", "NOUN", "PUNCT"),
        "2:nsubj 0:root 4:case 2:obl 2:obl:tmod 2:punct",
    ),
    (
        "The teacher met {n} in {p} .",
        ("DET", "NOUN", "VERB", "PROPN", "ADP", "PROPN", "PUNCT"),
        "2:det 3:nsubj 0:root 3:obj 6:case 3:obl 3:punct",
    ),
    (
        "{p} is a large city .",
        ("PROPN", "AUX", "DET", "ADJ", "NOUN", "PUNCT"),
        "5:nsubj 5:cop 5:det 5:amod 0:root 5:punct",
    ),
)
HAUSA: tuple[Template, ...] = (
    (
        "{n} ta tafi {p} jiya .",
        ("PROPN", "AUX", "VERB", "PROPN", "ADV", "PUNCT"),
        "3:nsubj 3:aux 0:root 3:obl 3:advmod 3:punct",
    ),
    (
        "Malami ya gana da {n} a {p} .",
        ("NOUN", "AUX", "VERB", "ADP", "PROPN", "ADP", "PROPN", "PUNCT"),
        "3:nsubj 3:aux 0:root 5:case 3:obl 7:case 3:obl 3:punct",
    ),
    (
        "{p} babban birni ne .",
        ("PROPN", "ADJ", "NOUN", "AUX", "PUNCT"),
        "3:nsubj 3:amod 0:root 3:cop 3:punct",
    ),
)


def write(folder: Path, *, sentences: int = 60, seed: int = 0) -> Path:
    """Text and labelled data of English and Hausa for every task."""
    dice = random.Random(seed)
    for language, templates in (("en", ENGLISH), ("ha", HAUSA)):
        made = [_sentence(dice, templates) for _ in range(sentences)]
        _put(folder / "text" / f"{language}.txt", "".join(" ".join(words) + "\n" for words, *_ in made * 4))
        for split, part in (("train", made), ("dev", made[:20]), ("test", made[20:40])):
            _put(folder / "ner" / language / f"{split}.conll", _columns((words, ner) for words, ner, *_ in part))
            _put(folder / "pos" / language / f"{split}.conll", _columns((words, pos) for words, _, pos, _ in part))
            _put(folder / "dp" / language / f"{split}.conllu", "".join(map(_conllu, part)))
    for language in ("en", "ha"):
        rows = [
            {"split": split, "premise": f"{n} {p} .", "hypothesis": f"{n} .", "label": label}
            for split in ("train", "dev", "test")
            for n in NAMES
            for p, label in zip(PLACES, ("entailment", "neutral", "contradiction") * 2, strict=True)
        ]
        _put(folder / "nli" / f"{language}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    asked = [(name, place) for name, place in zip(NAMES, PLACES, strict=True)]
    lines = [
        {
            "question": f"Where is {name} ?",
            "context": f"{name} is in {place} today .",
            "answer_pivot": {"answer_start": [len(name) + 7], "text": [place]},
            "question_lang": f"Ina {name} ?",
            "split": split,
        }
        for split in ("train", "dev", "test")
        for name, place in asked
    ]
    _put(folder / "qa" / "afriqa_ha.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    paragraphs = [
        {
            "context": f"{name} is in {place} today number {turn} .",
            "qas": [
                {
                    "id": f"{turn}-{name}",
                    "question": f"Where is {name} ?",
                    "answers": [{"text": place, "answer_start": len(name) + 7}],
                }
            ],
        }
        for turn in range(12)
        for name, place in asked
    ]
    _put(folder / "qa" / "squad_en_dev_1.1.json", json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    return folder


def _sentence(
    dice: random.Random, templates: tuple[Template, ...]
) -> tuple[list[str], list[str], list[str], list[str]]:
    template, pos, arcs = dice.choice(templates)
    words = [{"{n}": dice.choice(NAMES), "{p}": dice.choice(PLACES)}.get(word, word) for word in template.split(" ")]
    ner = ["B-PER" if word in NAMES else "B-LOC" if word in PLACES else "O" for word in words]
    return words, ner, list(pos), arcs.split(" ")


def _conllu(sentence: tuple[list[str], list[str], list[str], list[str]]) -> str:
    words, _, pos, arcs = sentence
    lines = [f"# text = {' '.join(words)}"]
    for number, (word, tag, arc) in enumerate(zip(words, pos, arcs, strict=True), start=1):
        head, _, relation = arc.partition(":")
        lines.append("\t".join((str(number), word, "_", tag, "_", "_", head, relation, "_", "_")))
    return "\n".join(lines) + "\n\n"


def _columns(sentences: Iterable[tuple[list[str], list[str]]]) -> str:
    return "".join(
        "".join(f"{word} {tag}\n" for word, tag in zip(words, tags, strict=True)) + "\n" for words, tags in sentences
    )


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")

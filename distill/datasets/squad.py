"""Extractive question answering: SQuAD's JSON, and the JSON lines of AfriQA and QED."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.errors import DataError
from app.tasks.question_answering import QuestionItem
from distill.datasets.base import lines
from distill.tasks.base import Example, Span

_ALIASES = {"validation": "dev"}


def read(path: Path, *, task: str, split: str) -> list[Example]:
    """The file's questions with their acceptable answers; where lines say their split, those of `split`.

    An answer is placed at its stated offset, else at its first occurrence between word boundaries. Questions without
    an answer or a context are skipped. One whose answers are not in the context stays, except in
    training: it counts as missed. Raises DataError that names the file.
    """
    try:
        read_file = _json_lines if ".jsonl" in path.name else _squad
        examples = list(read_file(path, split))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{path} is no question-answering file of a known form: {error!r}") from error
    examples = [example for example in examples if example.gold]
    if split == "train":
        examples = [example for example in examples if any(span.start >= 0 for span in example.gold)]
    return examples


def _squad(path: Path, split: str) -> Iterator[Example]:
    document = json.loads("\n".join(line for _, line in lines(path)))
    for article in document["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers = [] if question.get("is_impossible") else question["answers"]
                texts = [(int(answer["answer_start"]), str(answer["text"])) for answer in answers]
                yield _example(question["question"], paragraph["context"], texts)


def _json_lines(path: Path, split: str) -> Iterator[Example]:
    for number, line in lines(path):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if "split" in values and _ALIASES.get(values["split"], values["split"]) != split:
                continue
            yield _afriqa(values) if "answer_pivot" in values else _qed(values)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"{path}:{number} has the form of neither AfriQA nor QED: {error!r}") from error


def _afriqa(values: dict[str, Any]) -> Example:
    answers = values["answer_pivot"]
    starts = map(int, answers["answer_start"])
    texts = [(next(starts, -1), text) for text in answers["text"] if text]
    context = values["context"] or ""
    return _example(values["question_lang"], context, texts if context else [])


def _qed(values: dict[str, Any]) -> Example:
    single = [spans[0] for spans in values["original_nq_answers"] if len(spans) == 1]
    texts = [(int(span["start"]), str(span["string"])) for span in single]
    return _example(values["question_text"], values["paragraph_text"], texts)


def _example(question: str, context: str, answers: list[tuple[int, str]]) -> Example:
    spans = tuple(_span(context, start, text) for start, text in answers if text.strip())
    return Example(QuestionItem(question.strip(), context), tuple(dict.fromkeys(spans)))


def _span(context: str, start: int, text: str) -> Span:
    if start >= 0 and context[start : start + len(text)] == text:
        return Span(start, text)
    found = re.search(rf"(?<!\w){re.escape(text)}(?!\w)", context)
    return Span(found.start() if found else -1, text)

"""JSON lines of sentence pairs: `premise`, `hypothesis`, `label` and `split`."""

import json
from pathlib import Path

from app.errors import DataError
from app.tasks.sequence_classification import PairItem
from distill.datasets.base import lines
from distill.tasks.base import NLI_LABELS, Example

SPLITS = {"validation": "dev", "dev": "dev", "train": "train", "test": "test"}


def read(path: Path, *, task: str, split: str) -> list[Example]:
    """The file's pairs of that split; lines without a label of their own ("-") are skipped.

    Raises DataError that names the line.
    """
    examples: list[Example] = []
    for number, line in lines(path):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if SPLITS.get(values["split"]) != split or values["label"] in ("-", -1):
                continue
            label, item = values["label"], PairItem(values["premise"], values["hypothesis"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'{path}:{number} needs the form {{"split": ..., "premise": ..., "hypothesis": ..., "label": ...}}'
            ) from error
        for name, text in (("premise", item.text), ("hypothesis", item.text_pair)):
            if not isinstance(text, str):
                raise DataError(f"{path}:{number} needs a text as its {name}, not {json.dumps(text)}")
        if isinstance(label, int) and 0 <= label < len(NLI_LABELS):
            label = NLI_LABELS[label]
        if label not in NLI_LABELS:
            raise DataError(f"{path}:{number} has the label {label!r}; choose from: {', '.join(NLI_LABELS)}")
        examples.append(Example(item, label))
    return examples

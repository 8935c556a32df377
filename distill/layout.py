"""Where the data of a task, language and split lies below the data folder."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from app.errors import DataError
from app.plugins import names


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file and the module of this folder that reads it.

    `pooled` marks evaluation files that stand in for a missing training file: a fixed tenth of them is dev.
    """

    path: Path
    format: str
    pooled: bool = False


EXPECTED = {
    "ner": ("ner/{language}/{split}.conll",),
    "pos": (
        "pos/{language}/{split}.conll",
        "pos/masakhapos/{language}/{split}.conll",
        "pos/ud/{language}_*/{split}.conllu",
    ),
    "nli": ("nli/{language}.jsonl", "nli/{language}_*.jsonl"),
    "dp": ("dp/{language}/{split}.conllu", "pos/{language}/{split}.conllu", "pos/ud/{language}_*/{split}.conllu"),
    "qa": ("qa/afriqa_{language}.jsonl", "qa/squad_{language}_*.json", "qa/xquad_{language}.json"),
}


def sources(task: str, folder: Path, language: str, split: str) -> list[Source]:
    """The files that may hold the split, perhaps none. Raises DataError where there is no such folder.

    Where none of the task's own are there, a file `<task>/<language>/<split>.<format>`, its ending a module of
    `distill.datasets`.
    """
    if not folder.is_dir():
        raise DataError(f"the data folder {folder} does not exist")
    find = {"ner": _ner, "pos": _pos, "nli": _nli, "qa": _qa, "dp": _dp}.get(task)
    return (find and find(folder, language, split)) or _by_format(task, folder, language, split)


def translated(task: str, folder: Path, language: str, target: str) -> list[Path]:
    """The files of `language` of which the target's test data are translations: XQuAD's paragraphs are SQuAD's.

    Raises DataError where there are none, though `language` learns from evaluation files, which hold those paragraphs.
    """
    if task != "qa" or not any("xquad" in source.path.name for source in sources(task, folder, target, "test")):
        return []
    found = _glob(folder, f"qa/xquad_{language}.json")
    if not found and any(source.pooled for source in sources(task, folder, language, "train")):
        raise DataError(
            f"{folder}/qa/xquad_{language}.json is missing: the test data of {target!r} are its translation, and "
            f"without it nothing tells which paragraphs of the other files in {language!r} must not be learnt from"
        )
    return found


def plain_first(paths: Iterable[Path]) -> list[Path]:
    """The paths in their order, without a file with .xz where the plain one is among them."""
    given = list(paths)
    plain = set(given)
    return [path for path in given if path.suffix != ".xz" or path.with_suffix("") not in plain]


def missing(task: str, folder: Path, language: str, split: str) -> DataError:
    """The error for a split that has no files, or files that hold nothing of it."""
    patterns = EXPECTED.get(task) or ("{task}/{language}/{split}.<format>",)
    wanted = " or ".join(
        f"{folder}/{pattern.format(task=task, language=language, split=split)}" for pattern in patterns
    )
    hint = ' with lines whose "split" is that' if task in ("nli", "qa") else ""
    return DataError(
        f"no {split} data of the task {task!r} for the language {language!r}: "
        f"looked for {wanted} (plain or with .xz){hint}"
    )


def _ner(folder: Path, language: str, split: str) -> list[Source]:
    for name in (language, f"masakhaner1_{language}", f"transfer_{language}"):
        if paths := _glob(folder, f"ner/{name}/{split}.conll"):
            return [Source(path=path, format="iob") for path in paths]
    return []


def _pos(folder: Path, language: str, split: str) -> list[Source]:
    patterns = (
        (f"pos/{language}/{split}.conll", "iob"),
        (f"pos/{language}/{split}.conllu", "conllu"),
        (f"pos/masakhapos/{language}/{split}.conll", "iob"),
        (f"pos/ud/{language}_*/{split}.conllu", "conllu"),
        (f"pos/ud2col/{language}_*/{split}.conll", "iob"),
    )
    for pattern, reader in patterns:
        if paths := _glob(folder, pattern):
            return [Source(path=path, format=reader) for path in paths]
    return []


def _dp(folder: Path, language: str, split: str) -> list[Source]:
    for pattern in EXPECTED["dp"]:
        if paths := _glob(folder, pattern.format(language=language, split=split)):
            return [Source(path=path, format="conllu") for path in paths]
    return []


def _nli(folder: Path, language: str, split: str) -> list[Source]:
    """XNLI is for evaluation alone, and where it is there dev and test come from it alone.

    Pairs that a program labelled (`*_semiauto_*`) are read only where there are no others.
    """
    paths = _glob(folder, f"nli/{language}.jsonl", f"nli/{language}_*.jsonl")
    xnli = [path for path in paths if "xnli" in path.name]
    by_hand = [path for path in paths if path not in xnli and "semiauto" not in path.name]
    chosen = (by_hand or [path for path in paths if path not in xnli]) if split == "train" else xnli or paths
    return [Source(path=path, format="pairs") for path in chosen]


def _qa(folder: Path, language: str, split: str) -> list[Source]:
    """By file name: squad_<lang>_train, squad_<lang>_dev; XQuAD is a test set; AfriQA says its split line by line.

    A language with a dev file and no training file trains on its dev file, XQuAD and (English) QED, less a fixed tenth.
    """
    afriqa = _glob(folder, f"qa/afriqa_{language}.jsonl")
    squad = [
        path
        for path in _glob(folder, *(f"qa/{name}{language}[._]*.json" for name in ("squad_", "tquad_", "")))
        if "v2" not in path.name
    ]
    xquad = _glob(folder, f"qa/xquad_{language}.json")
    qed = _glob(folder, "qa/qed_dev.jsonl") if language == "en" else []
    train = [path for path in squad if "train" in path.name]
    dev = [path for path in squad if "dev" in path.name]
    if dev and not train:
        pool = [Source(path=path, format="squad", pooled=True) for path in (*dev, *xquad, *qed)]
        return [] if split == "test" else pool
    test = [path for path in squad if "test" in path.name]
    chosen = {"train": train, "dev": dev, "test": test or ([] if afriqa else xquad)}[split]
    return [Source(path=path, format="squad") for path in (*afriqa, *chosen)]


def _by_format(task: str, folder: Path, language: str, split: str) -> list[Source]:
    return [
        Source(path=path, format=name)
        for name in names("distill.datasets")
        for path in _glob(folder, f"{task}/{language}/{split}.{name}")
    ]


def _glob(folder: Path, *patterns: str) -> list[Path]:
    """Existing files of these patterns, each plain or with .xz; the plain one where both are there."""
    either = [either for pattern in patterns for either in (pattern, f"{pattern}.xz")]
    found = {path for pattern in either for path in folder.glob(pattern) if path.is_file()}
    return sorted(plain_first(found), key=lambda path: str(path).removesuffix(".xz"))

"""What people read: the bundle's card, and the table at the end of a build."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from app.bundle import Manifest
from distill.tasks.base import task_named

TASKS = {
    "ner": "named entity recognition",
    "pos": "part-of-speech tagging",
    "nli": "natural language inference",
    "qa": "extractive question answering",
    "dp": "dependency parsing",
}

_GOAL = 98
"""The share of its teacher's score, in percent, that a student should keep."""


def card(manifest: Manifest) -> str:
    """The bundle's page in Markdown: what it is, how good, how made, of what data, under which licence."""
    sources = "`, `".join(manifest.source_languages) or "unknown"
    zero_shot = manifest.language not in manifest.source_languages
    how = "only (zero-shot cross-lingual transfer)" if zero_shot else "together, so this is no zero-shot transfer"
    parts = [
        f"# {manifest.language}/{manifest.task}, revision {manifest.revision}",
        f"{_what(manifest)} on labels in `{sources}` {how}.",
        "## Scores",
        _scores(manifest.scores, main_metric=task_named(manifest.task).main_metric),
        _kept(manifest),
        "Variants, with their score on development data:",
        markdown_table(
            ("variant", "file", "precision", "scores"),
            [(v.name, f"`{v.file}`", v.precision, _flat(v.scores)) for v in manifest.variants],
        ),
    ]
    if manifest.benchmark:
        parts += ["## Speed and size", _pairs(manifest.benchmark)]
    parts += [
        "## Use",
        f"Labels: {', '.join(f'`{label}`' for label in manifest.labels) or 'none'}. Texts longer than "
        f"{manifest.max_length} pieces are read in windows that share {manifest.stride}.",
        f"```\ncurl -s localhost:8000/v1/{manifest.language}/{manifest.task} -H 'content-type: application/json' "
        "-d @request.json\n```",
        "## How it was made",
        _pairs(
            {
                "command": f"`{command}`" if (command := manifest.config.get("command")) else "",
                "method": manifest.config.get("method", ""),
                "teacher": _flat(manifest.teacher),
                "layer map": _layers(manifest.layer_map),
                "seed": manifest.seed,
            }
        ),
        "## Data",
        markdown_table(
            ("file", "rows", "licence", "may be redistributed"),
            [
                tuple(entry.get(key, "") for key in ("path", "rows", "licence", "redistribute"))
                for entry in manifest.data
            ],
        ),
        "## Licence",
        (manifest.licence or "not stated") + ".",
        "Limits: scores are for the test data named above; other kinds of text can be much harder.",
        f"Made {manifest.created} with {_flat(manifest.versions)}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(manifest: Manifest) -> str:
    """A student, or a teacher beside which students are proved, which has no layer map."""
    of = f"{TASKS.get(manifest.task, manifest.task)} in `{manifest.language}`"
    if manifest.layer_map:
        return f"A student for {of}, distilled from a multilingual teacher and taught the task"
    return f"A teacher for {of}, a multilingual model taught the task"


def teacher_card(facts: Mapping[str, Any]) -> str:
    """The page of a pretrained multilingual teacher, with the licence in its front matter as model hubs read it."""
    losses = facts["heldout_loss"]
    parts = [
        "---\nlicense: other\nlibrary_name: transformers\npipeline_tag: fill-mask\nlanguage:\n"
        + "\n".join(f"- {language}" for language in losses)
        + "\n---",
        "# A small multilingual teacher",
        f"XLM-R's architecture: {facts['layers']} layers of width {facts['hidden_size']}, {facts['pieces']} pieces, "
        f"{facts['parameters'] / 1e6:.1f} M parameters, half precision. {_origin(facts)} It is a default that lets "
        "everything run offline, not a model to compare others with.",
        "## Held-out loss",
        "Nats a masked token, 15 % of tokens masked, on text that was never trained on.",
        markdown_table(("language", "loss"), list(losses.items())),
        "## Data",
        markdown_table(
            ("file", "rows", "licence", "may be redistributed"),
            [tuple(entry[key] for key in ("path", "rows", "licence", "redistribute")) for entry in facts["data"]],
        ),
        "## Licence",
        *([f"Of the weights it starts from: {start['licence']}."] if (start := facts["recipe"]["start"]) else []),
        licence(facts["data"]) + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _origin(facts: Mapping[str, Any]) -> str:
    """Where the weights come from and what training added, in a few sentences."""
    start, schedule = facts["recipe"]["start"], facts["recipe"]["schedule"]
    trained = (
        f"on {facts['tokens'] / 1e6:.1f} M tokens ({schedule['steps']} steps, "
        f"{facts['training_seconds'] / 60:.0f} minutes on {facts['machine']})"
    )
    if start is None:
        return f"Trained as a masked language model from random weights {trained}."
    what = "Only the language model head was trained" if start["train"] == "head" else "It was trained further"
    return f"The weights come from {start['origin'] or start['model']}. {what}, {trained}."


def licence(data: Sequence[Mapping[str, Any]]) -> str:
    """The licence that follows from the data's: open only where every file may be redistributed."""
    names = "; ".join(sorted({str(entry.get("licence", "unknown")) for entry in data}))
    if all(entry.get("redistribute") == "yes" for entry in data):
        return f"Under the terms of the data it was made from: {names}"
    return (
        "Research and other non-commercial use only, since some of the data it was made from allows no more or states "
        f"no licence: {names}"
    )


def table(rows: Sequence[Mapping[str, Any]], *, title: str | None = None) -> Table:
    """A table with a column for each key, in order of first appearance; numbers to the right."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    found = Table(title=title)
    for name in names:
        numeric = all(isinstance(row.get(name, 0), int | float) for row in rows)
        found.add_column(name.replace("_", " "), justify="right" if numeric else "left")
    for row in rows:
        found.add_row(*(_text(row.get(name, "")) for name in names))
    return found


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats with two digits, bars escaped."""
    if not rows:
        return "None was recorded."
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_text(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _scores(scores: Mapping[str, Mapping[str, Any]], *, main_metric: str) -> str:
    """`{"teacher": {metric: value}, "student": {...}}` as a table, and below it what the baseline does."""
    if not scores:
        return "None were recorded."
    others = ("low", "high", "rule")
    metrics = list(dict.fromkeys(name for values in scores.values() for name in values if name not in others))
    rows = [
        (who, *(_text(values.get(metric, "")) for metric in metrics), _interval(values))
        for who, values in scores.items()
    ]
    rules = [f"{who.capitalize()}: {values['rule']}." for who, values in scores.items() if "rule" in values]
    return "\n\n".join([markdown_table(("model", *metrics, f"95 % interval of {main_metric}"), rows), *rules])


def _kept(manifest: Manifest) -> str:
    """The share of the teacher's score that each student keeps, and, where that is below the goal, what it lacks."""
    metric = task_named(manifest.task).main_metric
    teacher = manifest.scores.get("teacher", {}).get(metric)
    students = {who: told[metric] for who, told in manifest.scores.items() if who.startswith("student")}
    if not teacher or not students:
        return ""
    kept = {who: round(100 * score / teacher, 1) for who, score in students.items()}
    said = f"Of the teacher's {metric}: " + ", ".join(f"{who} {share} %" for who, share in kept.items()) + "."
    if min(kept.values()) >= _GOAL:
        return said
    examples = manifest.config.get("transfer", {}).get("tuning", {}).get("max_examples")
    narrower = manifest.config.get("student", {}).get("hidden_size_reduction_factor", 1)
    width = f" of 1/{narrower} of the teacher's width" if narrower > 1 else ""
    n_layers = len(manifest.layer_map)
    few = [f"it has {n_layers} layer{'s' if n_layers > 1 else ''}{width}"] if n_layers else []
    each = " of each language" if len(manifest.source_languages) > 1 else ""
    few += [f"it learnt from at most {examples} labelled examples{each}"] if examples else []
    return f"{said} The goal is {_GOAL} %" + (f"; {' and '.join(few)}, and more would keep more." if few else ".")


def _interval(values: Mapping[str, Any]) -> str:
    return f"{values['low']:.2f} to {values['high']:.2f}" if "low" in values else ""


def _pairs(values: Mapping[str, Any]) -> str:
    return "\n".join(
        f"- {name.replace('_', ' ')}: {_flat(value)}" for name, value in values.items() if value not in ("", None)
    )


def _layers(layer_map: Sequence[int]) -> str:
    return ", ".join(f"{student} <- {teacher}" for student, teacher in enumerate(layer_map))


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_flat(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_flat, value))
    return _text(value)


def _text(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)

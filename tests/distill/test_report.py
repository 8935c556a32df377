from dataclasses import replace

from rich.console import Console

from app.bundle import Manifest, Variant
from distill.report import card, table


def manifest() -> Manifest:
    return Manifest(
        language="ha",
        task="ner",
        codec="token_classification",
        revision=3,
        labels=("O", "B-PER"),
        max_length=128,
        stride=32,
        pad_id=1,
        variants=(Variant(name="int8", file="model_int8.onnx", precision="int8", scores={"f1": 61.234}),),
        source_languages=("en",),
        teacher={"name": "mmt", "layers": 12},
        layer_map=(1, 3),
        scores={
            "baseline": {"f1": 20.0, "low": 18.0, "high": 22.0, "rule": "all is O"},
            "teacher": {"f1": 70.0, "low": 68.0, "high": 72.1},
            "student": {"f1": 65.5},
        },
        benchmark={"speedup": 2.013, "student_ms": 1.5},
        data=[{"path": "ner/en/train.conll", "rows": 10, "licence": "research only", "redistribute": "no"}],
        licence="CC-BY-NC-4.0",
    )


def test_the_card_states_scores_beside_the_teachers_the_data_and_the_licence() -> None:
    text = card(manifest())
    assert text.startswith("# ha/ner, revision 3\n")
    assert "| model | f1 | 95 % interval of f1 |" in text
    assert "| teacher | 70.00 | 68.00 to 72.10 |" in text and "| student | 65.50 |  |" in text
    assert "| baseline | 20.00 | 18.00 to 22.00 |" in text and "\n\nBaseline: all is O.\n\n" in text
    assert "| int8 | `model_int8.onnx` | int8 | f1 61.23 |" in text
    assert "| ner/en/train.conll | 10 | research only | no |" in text
    assert "CC-BY-NC-4.0." in text and "speedup: 2.01" in text and "0 <- 1, 1 <- 3" in text


def test_the_table_has_a_column_for_every_key() -> None:
    found = table([{"task": "ner", "teacher": 70.0}, {"task": "pos", "student": 3}], title="scores")
    console = Console(width=100)
    with console.capture() as captured:
        console.print(found)
    assert [column.header for column in found.columns] == ["task", "teacher", "student"]
    assert found.row_count == 2 and [column.justify for column in found.columns] == ["left", "right", "right"]
    assert "70.00" in captured.get()


def test_the_card_says_when_the_target_s_own_labels_were_learnt_from() -> None:
    assert "labels in `en` only (zero-shot cross-lingual transfer)" in card(manifest())
    own = card(replace(manifest(), source_languages=("en", "ha")))
    assert "labels in `en`, `ha` together, so this is no zero-shot transfer" in own


def test_the_card_says_how_much_of_the_teacher_is_kept_and_what_a_student_below_the_goal_lacks() -> None:
    text = card(replace(manifest(), config={"transfer": {"tuning": {"max_examples": 500}}}))
    assert "Of the teacher's f1: student 93.6 %. The goal is 98 %; " in text
    assert "it has 2 layers and it learnt from at most 500 labelled examples, and more would keep more." in text
    assert "; it has 1 layer, and more would keep more." in card(replace(manifest(), layer_map=(3,), config={}))
    narrow = {"student": {"hidden_size_reduction_factor": 2}, "transfer": {"tuning": {"max_examples": 500}}}
    told = "it has 2 layers of 1/2 of the teacher's width and it learnt from at most 500 labelled examples, and more"
    assert told in card(replace(manifest(), config=narrow))
    scores = {"teacher": {"f1": 70.0}, "student": {"f1": 71.4}, "student int8": {"f1": 68.6}}
    assert "Of the teacher's f1: student 102.0 %, student int8 98.0 %.\n" in card(replace(manifest(), scores=scores))
    assert "Of the teacher's" not in card(replace(manifest(), scores={"student": {"f1": 65.5}}))


def test_the_card_names_the_command_and_the_method_that_made_it() -> None:
    command = "python -m distill build --tgt ha --tasks ner --data <folder> --preset quick"
    text = card(replace(manifest(), config={"command": command, "method": "best"}))
    assert f"- command: `{command}`\n- method: best\n" in text


def test_the_card_of_a_teacher_says_what_it_is_and_nothing_of_students() -> None:
    scores = {"baseline": {"f1": 20.0}, "teacher": {"f1": 70.0}}
    text = card(replace(manifest(), layer_map=(), scores=scores, benchmark={}))
    assert "A teacher for named entity recognition in `ha`, a multilingual model taught the task on labels in" in text
    assert "student" not in text and "Of the teacher's" not in text


def test_the_card_says_that_a_limit_of_examples_is_each_language_s() -> None:
    config = {"transfer": {"tuning": {"max_examples": 500}}}
    text = card(replace(manifest(), source_languages=("en", "ha"), config=config))
    assert "it learnt from at most 500 labelled examples of each language, and more" in text

import hashlib
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from app.errors import DataError, UnknownChoice
from distill.datasets import Corpus, read
from distill.datasets.base import held_out
from distill.datasets.iob import iob2
from distill.tasks.base import NER_LABELS, NLI_LABELS, UD_RELATIONS, UPOS, Arc, Span


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(lzma.compress(data) if name.endswith(".xz") else data)
    return path


def put_lines(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    return put(folder, name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def pair(split: str, premise: str, label: str = "neutral") -> dict[str, str]:
    return {"split": split, "premise": premise, "hypothesis": "Yes .", "label": label}


def squad(*questions: tuple[str, str, list[tuple[int, str]]]) -> str:
    paragraphs = [
        {
            "context": context,
            "qas": [{"question": question, "answers": [{"answer_start": s, "text": t} for s, t in answers]}],
        }
        for question, context, answers in questions
    ]
    return json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]})


def words_of(corpus: Corpus, index: int) -> list[str]:
    item = corpus.examples[index].item
    return [item.text[start:end] for start, end in item.words]


def test_ner_words_are_joined_by_one_space_and_other_types_become_outside(tmp_path: Path) -> None:
    put(
        tmp_path,
        "ner/ha/test.conll.xz",
        "-DOCSTART- -X- O O\n\nMusa B-PER\nBello\tI-PER\n\nYau  B-DATE\nda I-DATE\n O\nKano I-LOC\n ʼYar’aduwa O\n\n\n",
    )
    corpus = read("ner", tmp_path, "ha", "test")
    assert [example.item.text for example in corpus.examples] == ["Musa Bello", "Yau da Kano ʼYar’aduwa"]
    assert words_of(corpus, 1) == ["Yau", "da", "Kano", "ʼYar’aduwa"]
    assert corpus.examples[1].gold == ("O", "O", "B-LOC", "O")
    assert corpus.labels == NER_LABELS


def test_the_token_is_the_first_of_four_columns(tmp_path: Path) -> None:
    put(
        tmp_path,
        "ner/ny/train.conll",
        "-DOCSTART- -X- O O\nChikondi -X- _ B-PER\nBanda -X- _ I-PER\nanapita -X- _ O\n\nNew York B-LOC\nndi O\n",
    )
    corpus = read("ner", tmp_path, "ny", "train")
    assert words_of(corpus, 0) == ["Chikondi", "Banda", "anapita"]
    assert corpus.examples[0].gold == ("B-PER", "I-PER", "O")
    assert words_of(corpus, 1) == ["New York", "ndi"]


def test_names_of_unknown_types_are_told_once_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "ner/ny/train.conll", "Chikondi B-PERSON\nBanda I-PERSON\nku O\nZomba B-GPE\n")
    put(tmp_path, "ner/ny/test.conll", "lero B-DATE\nUN B-ORG\nChichewa I-MISC\n")
    for split in ("train", "train", "test"):
        read("ner", tmp_path, "ny", split)
    assert [record.args for record in caplog.records] == [(tmp_path / "ner/ny/train.conll", "GPE, PERSON")]


def test_iob1_becomes_iob2() -> None:
    tags = ["I-PER", "I-PER", "B-PER", "O", "I-ORG", "I-LOC", "I-MISC", "I-LOC"]
    assert iob2(tags) == ("B-PER", "I-PER", "B-PER", "O", "B-ORG", "B-LOC", "O", "B-LOC")


def test_an_ill_formed_tag_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    put(tmp_path, "ner/ha/train.conll", "Musa B-PER\nBello\n")
    with pytest.raises(DataError, match=r"train\.conll:2 .*'token tag'"):
        read("ner", tmp_path, "ha", "train")


def test_conllu_keeps_syntactic_words_only(tmp_path: Path) -> None:
    columns = "\t_\t{}\t_\t_\t0\troot\t_\t_\n"
    text = "# text = du pain\n1-2\tdu" + columns.format("_") + "1\tde" + columns.format("ADP") + "2\tle"
    text += columns.format("DET") + "2.1\tx" + columns.format("VERB") + "3\t2 001" + columns.format("NEW") + "\n"
    put(tmp_path, "pos/ud/fr_a/train.conllu", text)
    put(tmp_path, "pos/ud/fr_b/train.conllu.xz", text)
    corpus = read("pos", tmp_path, "fr", "train")
    assert len(corpus.examples) == 2 and corpus.labels == UPOS
    assert words_of(corpus, 0) == ["de", "le", "2 001"]
    assert corpus.examples[0].gold == ("ADP", "DET", "X")


def test_conllu_with_other_columns_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "pos/ud/fr_a/train.conllu", "1\tle\tDET\n")
    with pytest.raises(DataError, match="10 tab-separated columns"):
        read("pos", tmp_path, "fr", "train")


def ud(*rows: str) -> str:
    """Sentences of `id form head relation` lines, a "-" between two of them."""
    lines = ["" if row == "-" else "{}\t{}\t_\tX\t_\t_\t{}\t{}\t_\t_".format(*row.split()) for row in rows]
    return "\n".join(lines) + "\n\n"


def test_conllu_gives_arcs_between_syntactic_words_with_universal_relations(tmp_path: Path) -> None:
    rows = (
        "1-2 du _ _",
        "1 de 3 case",
        "2 le 3 det:def",
        "3 pain 0 root",
        "3.1 x _ _",
        "4 eh 3 new",
        "-",
        "1 a 0 root",
    )
    put(tmp_path, "dp/fr/train.conllu", "# text = du pain eh\n" + ud(*rows))
    corpus = read("dp", tmp_path, "fr", "train")
    assert words_of(corpus, 0) == ["de", "le", "pain", "eh"] and corpus.labels == UD_RELATIONS
    assert corpus.examples[0].gold == (Arc(3, "case"), Arc(3, "det"), Arc(0, "root"), Arc(3, "dep"))
    assert [example.gold for example in corpus.examples[1:]] == [(Arc(0, "root"),)]


def test_trees_are_found_where_tags_are(tmp_path: Path) -> None:
    put(tmp_path, "pos/ud/pcm_nsc/test.conllu.xz", ud("1 okay 0 root"))
    assert [row["path"] for row in read("dp", tmp_path, "pcm", "test").files] == ["pos/ud/pcm_nsc/test.conllu.xz"]
    with pytest.raises(DataError, match="no train data of the task 'dp' for the language 'pcm'"):
        read("dp", tmp_path, "pcm", "train")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (("1 a 2 obj", "2 b _ root"), r"train\.conllu:2 .*head, not '_'"),
        (("1 a 3 obj", "2 b 0 root"), r"train\.conllu:1 .*head, not '3'"),
        (("1 a 1 obj", "2 b 0 root"), r"train\.conllu:1 .*head, not '1'"),
        (("1 a 0 root", "3 b 1 obj"), r"train\.conllu:2 has the word 3 where 2 was due"),
        (("1 a 0 root", "2 b 0 root"), r"train\.conllu:1 begins a sentence with 2 words under the root"),
    ],
)
def test_what_is_no_tree_is_an_error_that_names_the_line(tmp_path: Path, rows: tuple[str, ...], told: str) -> None:
    put(tmp_path, "dp/fr/train.conllu", ud(*rows))
    with pytest.raises(DataError, match=told):
        read("dp", tmp_path, "fr", "train")


def test_two_column_pos_tokens_may_hold_spaces_and_unknown_tags_become_x(tmp_path: Path) -> None:
    put(tmp_path, "pos/masakhapos/ha/dev.conll", "2 001 NUM\nLitafi NOUN\nwo _\n")
    corpus = read("pos", tmp_path, "ha", "dev")
    assert words_of(corpus, 0) == ["2 001", "Litafi", "wo"]
    assert corpus.examples[0].gold == ("NUM", "NOUN", "X")


def test_xnli_is_for_evaluation_alone(tmp_path: Path) -> None:
    put_lines(tmp_path, "nli/en_small.jsonl.xz", [pair("train", "A"), pair("dev", "B"), pair("train", "N", "-")])
    put_lines(tmp_path, "nli/en_xnli.jsonl", [pair("validation", "C"), pair("test", "D", "entailment")])
    put_lines(tmp_path, "nli/ende.jsonl", [pair("train", "wrong language")])
    found = {
        split: [e.item.text for e in read("nli", tmp_path, "en", split).examples] for split in ("train", "dev", "test")
    }
    assert found == {"train": ["A"], "dev": ["C"], "test": ["D"]}
    assert read("nli", tmp_path, "en", "test").labels == NLI_LABELS


def test_a_training_set_without_dev_gives_up_a_fixed_tenth_and_keeps_premises_together(tmp_path: Path) -> None:
    put_lines(tmp_path, "nli/en_a.jsonl", [pair("train", f"Premise {i // 2}") for i in range(400)])
    train = [example.item.text for example in read("nli", tmp_path, "en", "train").examples]
    dev = [example.item.text for example in read("nli", tmp_path, "en", "dev").examples]
    assert len(train) + len(dev) == 400 and 10 <= len(dev) <= 70
    assert not set(train) & set(dev)
    assert dev == [example.item.text for example in read("nli", tmp_path, "en", "dev").examples]


def test_an_unknown_nli_label_is_an_error_that_lists_the_choices(tmp_path: Path) -> None:
    put_lines(tmp_path, "nli/en_a.jsonl", [pair("train", "A", "maybe")])
    with pytest.raises(DataError, match=r"'maybe'.*entailment, neutral, contradiction"):
        read("nli", tmp_path, "en", "train")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"label": -2}, r"label -2; choose from: entailment, neutral, contradiction"),
        ({"label": 3}, r"label 3; choose from"),
        ({"premise": None}, r"a text as its premise, not null"),
        ({"hypothesis": 7}, r"a text as its hypothesis, not 7"),
    ],
)
def test_a_pair_that_is_none_is_an_error_that_names_the_line(
    tmp_path: Path, changed: dict[str, Any], told: str
) -> None:
    put_lines(tmp_path, "nli/en_a.jsonl", [pair("train", "A"), {**pair("train", "B"), **changed}])
    with pytest.raises(DataError, match=rf"en_a\.jsonl:2 .*{told}"):
        read("nli", tmp_path, "en", "train")


def test_squad_answers_are_placed_where_stated_else_at_the_first_whole_word(tmp_path: Path) -> None:
    context = "Kanoma and Kano, then Kano again."
    questions = [("Where?", context, [(22, "Kano"), (5, "Kano"), (5, "Lagos")]), ("Who?", context, [])]
    put(tmp_path, "qa/squad_sw_train.json", squad(*questions))
    (example,) = read("qa", tmp_path, "sw", "train").examples
    assert example.gold == (Span(22, "Kano"), Span(11, "Kano"), Span(-1, "Lagos"))


def test_english_pools_its_evaluation_sets_without_repeats_and_keeps_contexts_apart(tmp_path: Path) -> None:
    questions = [(f"Q{i}?", f"The answer {i // 2} is here.", [(0, "The answer")]) for i in range(100)]
    put(tmp_path, "qa/squad_en_dev_1.1.json.xz", squad(*questions))
    put(tmp_path, "qa/squad_en_dev_v2.0.json", squad(("Other?", "Other context", [(0, "Other")])))
    put(tmp_path, "qa/xquad_en.json", squad(*questions[:20], ("New?", "New words.", [(0, "New")])))
    one, several = [{"start": 4, "string": "fox"}], [{"start": 0, "string": "The"}, {"start": 4, "string": "fox"}]
    qed = {"question_text": "what", "paragraph_text": "The fox ran", "original_nq_answers": [several, one]}
    put_lines(tmp_path, "qa/qed_dev.jsonl", [qed])
    train, dev = (read("qa", tmp_path, "en", split).examples for split in ("train", "dev"))
    contexts = [{example.item.context for example in part} for part in (train, dev)]
    assert not contexts[0] & contexts[1] and contexts[1]
    assert len(train) + len(dev) == 102
    assert all(held_out(context) for context in contexts[1])
    (fox,) = [example for example in (*train, *dev) if example.item.question == "what"]
    assert fox.gold == (Span(4, "fox"),)


def test_a_language_whose_code_begins_the_name_of_another_s_file_does_not_read_it(tmp_path: Path) -> None:
    text = squad(("Where?", "Here.", [(0, "Here")]))
    for name in ("squad_en_train.json", "squad_eng_train.json"):
        put(tmp_path, f"qa/{name}", text)
    with pytest.raises(DataError, match="'sq'"):
        read("qa", tmp_path, "sq", "train")
    assert [file["path"] for file in read("qa", tmp_path, "en", "train").files] == ["qa/squad_en_train.json"]
    put(tmp_path, "qa/sq_train.json", text)
    assert [file["path"] for file in read("qa", tmp_path, "sq", "train").files] == ["qa/sq_train.json"]


def test_a_student_tested_on_translated_paragraphs_does_not_learn_from_their_originals(tmp_path: Path) -> None:
    questions = [(f"Q{i}?", f"The answer {i // 2} is here.", [(0, "The answer")]) for i in range(100)]
    put(tmp_path, "qa/squad_en_dev_1.1.json", squad(*questions))
    put(tmp_path, "qa/xquad_es.json", squad(("Pregunta?", "La respuesta 0.", [(0, "La respuesta")])))
    put_lines(tmp_path, "qa/afriqa_ha.jsonl", [])
    with pytest.raises(DataError, match=r"qa/xquad_en\.json is missing"):
        read("qa", tmp_path, "en", "train", target="es")
    put(tmp_path, "qa/xquad_en.json", squad(*questions[:19]))
    seen = {
        target: [
            e.item for split in ("train", "dev") for e in read("qa", tmp_path, "en", split, target=target).examples
        ]
        for target in ("es", "ha")
    }
    assert len(seen["ha"]) == 100
    assert sorted(item.question for item in seen["es"]) == sorted(f"Q{i}?" for i in range(20, 100))
    assert len(read("qa", tmp_path, "es", "test").examples) == 1


def test_afriqa_asks_in_the_language_of_a_pivot_context(tmp_path: Path) -> None:
    def row(split: str, text: list[str | None], start: list[int], context: str | None) -> dict[str, Any]:
        answer = {"text": text, "answer_start": start}
        return {"split": split, "question_lang": "Wane gari? ", "context": context, "answer_pivot": answer}

    rows = [
        row("test", ["Kano"], [3], "In Kano."),
        row("test", ["yes"], [0], "In Kano."),
        row("test", [None], [], "In Kano."),
        row("test", ["Kano"], [0], None),
        row("train", ["yes"], [0], "In Kano."),
        row("train", ["Kano"], [3], "In Kano."),
    ]
    put_lines(tmp_path, "qa/afriqa_ha.jsonl", rows)
    test = read("qa", tmp_path, "ha", "test").examples
    assert [example.gold for example in test] == [(Span(3, "Kano"),), (Span(-1, "yes"),)]
    assert test[0].item.question == "Wane gari?"
    put_lines(tmp_path, "qa/afriqa_ha.jsonl", [*rows, row("dev", ["Kano"], [3], "In Kano.")])
    assert [example.gold for example in read("qa", tmp_path, "ha", "train").examples] == [(Span(3, "Kano"),)]


def test_provenance_names_file_hash_licence_and_rows(tmp_path: Path) -> None:
    path = put(tmp_path, "ner/ha/test.conll", "Musa B-PER\n\nAudu B-PER\n")
    put(tmp_path, "MANIFEST.tsv", "path\trows\tlicence\tredistribute\nner/ha/test.conll\t2\tCC-BY-4.0\tyes\n")
    assert read("ner", tmp_path, "ha", "test").files == [
        {
            "path": "ner/ha/test.conll",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "licence": "CC-BY-4.0",
            "redistribute": "yes",
            "rows": 2,
        }
    ]


@pytest.mark.parametrize("task", ["ner", "pos", "nli", "qa", "dp"])
def test_missing_data_is_an_error_that_names_the_paths_looked_for(tmp_path: Path, task: str) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path}/{task}/.*xx.*plain or with \.xz"):
        read(task, tmp_path, "xx", "test")


def test_a_missing_folder_and_unknown_names_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read("ner", tmp_path / "nothing", "ha", "test")
    with pytest.raises(UnknownChoice, match="ner, pos, nli, qa"):
        read("chunking", tmp_path, "ha", "test")
    with pytest.raises(UnknownChoice, match="train, dev, test"):
        read("ner", tmp_path, "ha", "eval")


def test_wrong_encoding_broken_compression_and_empty_files_are_errors(tmp_path: Path) -> None:
    path = put(tmp_path, "ner/ha/test.conll", "")
    with pytest.raises(DataError, match="holds no sentence"):
        read("ner", tmp_path, "ha", "test")
    path.write_bytes("Musa B-PER\nÉ O\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"test\.conll:2 is not UTF-8"):
        read("ner", tmp_path, "ha", "test")
    path.unlink()
    (path.parent / "test.conll.xz").write_bytes(b"no xz")
    with pytest.raises(DataError, match="no readable xz"):
        read("ner", tmp_path, "ha", "test")

import json
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from distill import packed
from distill.__main__ import main
from distill.observation import masked_loss
from distill.teacher import load_teacher
from tests.distill import corpora

CONFIG = """
out = "{out}"
text = ["{data}/text"]
languages = ["en", "ha"]
vocabulary = 120
sequence_length = 24
batch_size = 8
heldout = 0.1
architecture = {{ layers = 2, hidden_size = 16, heads = 2, intermediate_size = 32, positions = 64 }}
schedule = {{ steps = {steps}, learning_rate = 3e-3, warmup_steps = 5, optimizer = "muon", precision = "fp32" }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    corpora.write(folder / "data")
    for name, steps in (("short", 2), ("long", 120)):
        config = folder / f"{name}.toml"
        config.write_text(CONFIG.format(out=folder / name, data=folder / "data", steps=steps))
        assert main(["pretrain", str(config), "--work", str(folder / f"{name}-work")]) == 0
    return folder


def test_more_training_lowers_the_held_out_loss_of_every_language(folder: Path) -> None:
    short, long = (
        json.loads((folder / name / "pretrain.json").read_text())["heldout_loss"] for name in ("short", "long")
    )
    assert set(long) == {"en", "ha"} and all(long[language] < short[language] - 0.5 for language in long)


def test_the_result_is_a_teacher_in_half_precision(folder: Path) -> None:
    assert AutoModelForMaskedLM.from_pretrained(folder / "long").dtype == torch.float16
    model, tokenizer = load_teacher(folder / "long")
    assert model.config.model_type == "xlm-roberta" and tokenizer.mask_token_id is not None
    text = "Aisha ta tafi Kano jiya ."
    assert AutoTokenizer.from_pretrained(folder / "long")(text)["input_ids"] == tokenizer(text)["input_ids"]


def digests(folder: Path) -> dict[str, str]:
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_another_run_s_work_folder_is_refused_and_left_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = CONFIG.format(out=tmp_path / "out", data=folder / "data", steps=2)
    config, other, work = tmp_path / "own.toml", tmp_path / "other.toml", tmp_path / "work"
    config.write_text(own)
    other.write_text(own.replace("vocabulary = 120", "vocabulary = 90"))
    assert main(["pretrain", str(config), "--work", str(work)]) == 0
    before = digests(tmp_path)
    assert main(["pretrain", str(other), "--work", str(work)]) == 2
    assert "--work" in capsys.readouterr().err
    assert digests(tmp_path) == before

    (work / "inputs.json").unlink()
    assert main(["pretrain", str(config), "--work", str(work)]) == 2, "nothing says whose this work is"


def test_the_same_run_resumes_wherever_it_goes_and_whoever_s_machine_it_is(folder: Path, tmp_path: Path) -> None:
    own = CONFIG.format(out=tmp_path / "out", data=folder / "data", steps=2)
    config, work = tmp_path / "own.toml", tmp_path / "work"
    config.write_text(own)
    assert main(["pretrain", str(config), "--work", str(work)]) == 0
    trained = (work / "checkpoint" / "run.json").stat().st_mtime_ns
    again = ["pretrain", str(config), "--work", str(work), f"out={tmp_path / 'again'}", "machine=elsewhere"]
    assert main(again) == 0
    assert (work / "checkpoint" / "run.json").stat().st_mtime_ns == trained
    one, other = (tmp_path / name / "model.safetensors" for name in ("out", "again"))
    assert one.read_bytes() == other.read_bytes()


def test_new_weights_take_the_place_of_packed_ones(folder: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "own.toml", tmp_path / "out"
    config.write_text(CONFIG.format(out=out, data=folder / "data", steps=2))
    packed.pack(folder / "long", out)
    assert main(["pretrain", str(config), "--work", str(tmp_path / "work")]) == 0
    read, _ = load_teacher(out)
    written = AutoModelForMaskedLM.from_pretrained(out, dtype=torch.float32).state_dict()
    assert all(torch.equal(value, written[name]) for name, value in read.state_dict().items())


def test_punctuation_is_one_piece_whether_or_not_a_space_precedes(folder: Path) -> None:
    _, tokenizer = load_teacher(folder / "long")
    assert tokenizer.tokenize("Kano.")[-1] == tokenizer.tokenize("Kano .")[-1] == "▁."


def test_the_sparse_loss_equals_that_of_transformers(folder: Path) -> None:
    model, _ = load_teacher(folder / "long")
    ids = torch.randint(5, 60, (3, 12), generator=torch.Generator().manual_seed(0))
    labels = torch.where(torch.arange(12) % 4 == 1, ids, -100)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    with torch.no_grad():
        torch.testing.assert_close(masked_loss(model, batch), model(**batch).loss, atol=1e-5, rtol=0)


def test_a_head_can_be_trained_on_the_bottom_layers_of_another_teacher(folder: Path) -> None:
    config = folder / "start.toml"
    shape = "architecture = { layers = 2, hidden_size = 16, heads = 2, intermediate_size = 32, positions = 64 }"
    start = f'start = {{ model = "{folder}/long", threshold = 2e-3, layers = 1, train = "head", licence = "MIT" }}'
    text = CONFIG.format(out=folder / "start", data=folder / "data", steps=60).replace(shape, start)
    config.write_text(text)
    assert main(["pretrain", str(config), "--work", str(folder / "start-work")]) == 0

    before, old = load_teacher(folder / "long")
    after, new = load_teacher(folder / "start")
    assert after.config.num_hidden_layers == 1 and len(new) < len(old)
    names, weights = old.get_vocab(), before.base_model.state_dict()
    rows = [names[piece] for piece, _ in sorted(new.get_vocab().items(), key=lambda item: item[1])]
    for name, value in after.base_model.state_dict().items():
        kept = weights[name][rows] if "word_embeddings" in name else weights[name]
        assert torch.equal(value, kept), name
    assert not torch.equal(after.lm_head.dense.weight, before.lm_head.dense.weight)
    assert "Of the weights it starts from: MIT." in (folder / "start" / "README.md").read_text()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("architecture.hidden_size=50", "architecture.hidden_size = 50 is no multiple of 4 heads"),
        ("architecture.heads=0", "architecture.hidden_size = 256 is no multiple of 0 heads"),
        ("sequence_length=513", "sequence_length = 513: it can be at most architecture.positions, 512"),
    ],
)
def test_a_shape_that_cannot_be_is_told_before_the_work(
    setting: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "a.toml"
    config.write_text(
        'out = "model"\ntext = ["text"]\nlanguages = ["en"]\nschedule = {steps = 1, learning_rate = 1e-3}\n'
    )
    assert main(["pretrain", str(config), "--work", str(tmp_path / "work"), setting]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "work").exists()

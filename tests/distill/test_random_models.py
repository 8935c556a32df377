from pathlib import Path

import pytest
from transformers import AutoModelForTokenClassification, AutoTokenizer

from app.bundle import verify
from app.errors import ConfigError
from distill.random_models import word_pieces, write


@pytest.mark.slow
def test_a_model_of_the_size_asked_for_is_served_and_opens_in_transformers(tmp_path: Path) -> None:
    bundle = write("1x64x400", tmp_path / "model", store=tmp_path / "store")
    manifest = verify(bundle)
    assert bundle == tmp_path / "store" / "qaa" / "ner" / "1"
    names = {variant.name for variant in manifest.variants}
    assert names == {"fp32", "int8", "openvino_fp32", "openvino_int8"}
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "model")
    assert (model.config.num_hidden_layers, model.config.hidden_size, model.config.vocab_size) == (1, 64, 400)
    assert model.config.num_labels == len(manifest.labels)
    again = write(str(tmp_path / "model"), tmp_path / "again", store=tmp_path / "other")
    assert verify(again).max_length == manifest.max_length == 256
    assert len(AutoTokenizer.from_pretrained(tmp_path / "again")) == 400


def test_a_larger_vocabulary_cuts_the_words_of_a_smaller_one_alike() -> None:
    small, large = word_pieces(2_000), word_pieces(5_000)
    assert (small.get_vocab_size(), large.get_vocab_size()) == (2_000, 5_000)
    text = "bababa bebi zyzy, xq"
    assert small.encode(text).tokens == large.encode(text).tokens


def test_what_is_neither_a_size_nor_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is neither <layers>x<hidden size>x<pieces> nor a folder"):
        write("large", tmp_path / "model", store=tmp_path / "store")

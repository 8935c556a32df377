import json
from pathlib import Path

import pytest
import torch

from distill.tasks.base import training_task
from distill.teach import open_model, read_sources
from tests.distill import corpora, tiny


def test_each_source_language_gives_at_most_its_share_of_examples(tmp_path: Path) -> None:
    corpora.write(tmp_path, sentences=40)
    one, two = (read_sources("pos", tmp_path, ("en", "ha"), target="ha", max_examples=n, max_dev=5) for n in (0, 12))
    assert [len(data.train) for data in (one, two)] == [80, 24] and len(two.dev) == 10
    texts = [example.item.text for example in two.train]
    assert sum(" ta " in text or "Malami" in text or "birni" in text for text in texts) == 12
    assert {entry["path"] for entry in two.files} == {
        f"pos/{language}/{split}.conll" for language in ("en", "ha") for split in ("train", "dev")
    }


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("hidden", [32, 128])
def test_a_new_head_is_scaled_to_the_width_and_a_saved_one_is_read_as_it_is(
    family: str, hidden: int, tmp_path: Path
) -> None:
    """Uniform within 1 / sqrt(width): a standard deviation of 1 / sqrt(3 width), against a constant 0.02."""
    folder = tiny.tiny_teacher(family, tmp_path / "teacher", layers=2, hidden=hidden)
    task = training_task("nli")
    model = open_model(folder, task, dropout=0.0, attn_implementation="eager", seed=1)
    named = [(name, value.detach()) for name, value in model.named_parameters()]
    new = [value for name, value in named if name.split(".")[0] in ("classifier", "pooler")]
    new += [value for name, value in named if ".pooler." in name]
    matrices = [value for value in new if value.ndim == 2]
    assert matrices and max(float(value.abs().max()) for value in new) <= hidden**-0.5
    drawn = torch.cat([value.flatten() for value in matrices])
    assert float(drawn.std()) == pytest.approx((3 * hidden) ** -0.5, rel=0.05)
    model.save_pretrained(tmp_path / "tuned")
    again = open_model(tmp_path / "tuned", task, dropout=0.0, attn_implementation="eager", seed=2)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_no_dropout_is_none_anywhere_whatever_the_folder_s_configuration_says(family: str, tmp_path: Path) -> None:
    folder = tiny.tiny_teacher(family, tmp_path, layers=2)
    stated = json.loads((folder / "config.json").read_text())
    own = {"classifier_dropout": 0.3, "pooler_dropout": 0.3, "cls_dropout": 0.2}
    (folder / "config.json").write_text(json.dumps(stated | own))
    for dropout in (0.0, 0.1):
        model = open_model(folder, training_task("nli"), dropout=dropout, attn_implementation="eager", seed=1)
        assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {dropout}
    still = open_model(
        folder, training_task("nli"), dropout=0.1, attention_dropout=0.0, attn_implementation="eager", seed=1
    )
    assert (still.config.attention_probs_dropout_prob, still.config.hidden_dropout_prob) == (0.0, 0.1)

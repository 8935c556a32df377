"""What share of the bare engine's rate bulk annotation reaches, for a model of a size of your choice. Run by hand:

    python -m tests.app.annotate.ceiling --layers 6 --hidden 768

The model has random weights and the embedded Hausa tokenizer and labels; the texts are sentences of 10 to 60 of its
pieces that begin a word. Needs the distill extra. `--layers 0` takes the embedded Hausa students instead.
"""

import argparse
import dataclasses
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

from transformers import XLMRobertaConfig, XLMRobertaForTokenClassification

from app import bundle
from app.annotate import __main__ as annotate
from app.bundle import Bundle, Variant
from app.store import ModelStore
from distill.export import export_onnx

STORE = Path(__file__).parents[3] / "model_store"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--records", type=int, default=2048)
    parser.add_argument("--task", default="ner", choices=("ner", "pos"))
    options = parser.parse_args()
    (location,) = ModelStore(str(STORE), cache=STORE).find(languages=["ha"], tasks=[options.task])
    original = Bundle.open(STORE / location.path)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_texts(folder / "in.jsonl", original, n=options.records)
        store = (
            random_store(folder, original, layers=options.layers, hidden=options.hidden) if options.layers else STORE
        )
        flags = ["--lang", "ha", "--task", options.task, "--store", str(store), "--workers", "1"]
        return annotate.main([str(folder / "in.jsonl"), str(folder / "out.jsonl"), *flags])


def random_store(folder: Path, original: Bundle, *, layers: int, hidden: int) -> Path:
    """A store with one bundle, like ``original`` but for its model."""
    config = XLMRobertaConfig(
        vocab_size=original.tokenizer().get_vocab_size(),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
        max_position_embeddings=514,
        type_vocab_size=1,
    )
    config.num_labels = len(original.manifest.labels)
    staged = folder / "staged"
    staged.mkdir()
    export_onnx(XLMRobertaForTokenClassification(config), staged / "model.onnx")
    shutil.copy(original.folder / "tokenizer.json", staged)
    variants = (Variant(name="fp32", file="model.onnx"),)
    manifest = dataclasses.replace(original.manifest, variants=variants, files={})
    bundle.write(staged, manifest, store=folder / "store")
    return folder / "store"


def write_texts(path: Path, original: Bundle, *, n: int) -> None:
    """``n`` records of random words."""
    chance = random.Random(0)
    words = sorted(piece[1:] for piece in original.tokenizer().get_vocab() if piece.startswith("▁") and len(piece) > 1)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(n):
            file.write(json.dumps({"text": " ".join(chance.choices(words, k=chance.randint(10, 60)))}) + "\n")


if __name__ == "__main__":
    sys.exit(main())

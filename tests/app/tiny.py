"""Tiny tokenizers, models and bundles with answers that can be worked out by hand. Needs no torch.

Every token model is a table: the logits of a piece are the row of its id, 8 where a rule says so and 0 elsewhere. So a
word that a rule names gets its label at any place in any batch, with probability e^8 / (e^8 + labels - 1).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from app import bundle
from app.bundle import Bundle, Manifest, Variant
from app.rows import Tensors

WORDS = (
    "Bola",
    "Tinubu",
    "Kano",
    "Abuja",
    "Najeriya",
    "birnin",
    "isa",
    "ya",
    "yara",
    "suna",
    "wasa",
    "gida",
    "Ina",
    "da",
)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'()ƙɗɓúóéèàọẹṣ"
SENTENCE = "Bola Tinubu ya isa birnin Kano."
NER_LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
NER_RULES = {"Bola": "B-PER", "Tinubu": "I-PER", "Kano": "B-LOC", "Abuja": "B-LOC"}
POS_LABELS = ("NOUN", "PROPN", "PUNCT", "VERB", "X")
POS_RULES = {"Bola": "PROPN", "Tinubu": "PROPN", "Kano": "PROPN", "isa": "VERB", ".": "PUNCT"}
NLI_LABELS = ("entailment", "neutral", "contradiction")
NLI_RULES = {"isa": "entailment", "wasa": "contradiction", "gida": "neutral"}
DP_LABELS = ("dep", "nsubj", "obj", "punct", "root")
DP_RULES = {
    "isa": ("", "root"),
    "Bola": ("isa", "nsubj"),
    "Tinubu": ("Bola", "dep"),
    "Kano": ("isa", "obj"),
    ".": ("isa", "punct"),
}
TASKS = {
    "dp": ("dependency_parsing", DP_LABELS),
    "ner": ("token_classification", NER_LABELS),
    "pos": ("token_classification", POS_LABELS),
    "nli": ("sequence_classification", NLI_LABELS),
    "qa": ("question_answering", ()),
}


def bert() -> Tokenizer:
    """WordPiece, as mBERT: [CLS] A [SEP] B [SEP], the second text of type 1."""
    specials = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    pieces = [*specials, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens(list(specials))
    return tokenizer


def xlmr() -> Tokenizer:
    """Unigram with Metaspace and compatibility composition, as XLM-R: <s> A </s></s> B </s>, one type."""
    tokenizer = _unigram(("<s>", "<pad>", "</s>", "<unk>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def deberta() -> Tokenizer:
    """Unigram with Metaspace, as DeBERTa-v3: [CLS] A [SEP] B [SEP], the second text of type 1."""
    tokenizer = _unigram(("[PAD]", "[CLS]", "[SEP]", "[UNK]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return tokenizer


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {"bert": bert, "xlmr": xlmr, "deberta": deberta}
PAD_IDS = {"bert": 0, "xlmr": 1, "deberta": 0}


def table(tokenizer: Tokenizer, labels: Sequence[str], rules: Mapping[str, str]) -> np.ndarray:
    """Shape: (vocabulary, labels) float32. A word's rule is on its first piece; others say the first label, faintly."""
    values = np.zeros((tokenizer.get_vocab_size(), len(labels)), dtype=np.float32)
    values[:, 0] = 1
    for word, label in rules.items():
        first = tokenizer.encode([word], is_pretokenized=True, add_special_tokens=False).ids[0]
        values[first] = 0
        values[first, labels.index(label)] = 8
    return values


def token_model(values: np.ndarray) -> onnx.ModelProto:
    """logits = values[input_ids]."""
    node = helper.make_node("Gather", ["table", "input_ids"], ["logits"], axis=0)
    return _model([node], {"table": values}, {"logits": ["rows", "length", values.shape[1]]}, inputs=("input_ids",))


def sequence_model(values: np.ndarray) -> onnx.ModelProto:
    """logits = the sum of values[input_ids] over the pieces that are no padding."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["scores"], axis=0),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["scores", "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["logits"], keepdims=0),
    ]
    constants = {"table": values, "last": np.array([2]), "middle": np.array([1])}
    return _model(
        nodes,
        constants,
        {"logits": ["rows", values.shape[1]]},
        inputs=("input_ids", "attention_mask", "token_type_ids"),
    )


def span_model(starts: np.ndarray, ends: np.ndarray) -> onnx.ModelProto:
    """start_logits = starts[input_ids], end_logits = ends[input_ids]."""
    nodes = [helper.make_node("Gather", [name, "input_ids"], [f"{name}_logits"], axis=0) for name in ("start", "end")]
    outputs = {f"{name}_logits": ["rows", "length"] for name in ("start", "end")}
    return _model(nodes, {"start": starts, "end": ends}, outputs, inputs=("input_ids",))


def pair_model(arcs: np.ndarray, relations: np.ndarray) -> onnx.ModelProto:
    """arc_scores[i, j] = arcs[id of i, id of j]; the score of a label is the dependent's own, relations[id of i].

    Shape: ``arcs`` (vocabulary, vocabulary), ``relations`` (vocabulary, labels).
    """
    n, n_labels = relations.shape
    nodes = [
        helper.make_node("Gather", ["arcs", "input_ids"], ["of_dependents"], axis=0),
        helper.make_node("Gather", ["identity", "input_ids"], ["one_hot"], axis=0),
        helper.make_node("Transpose", ["one_hot"], ["by_piece"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["of_dependents", "by_piece"], ["arc_scores"]),
        helper.make_node("Gather", ["relations", "input_ids"], ["relation_dependents"], axis=0),
        helper.make_node("Gather", ["ones", "input_ids"], ["relation_heads"], axis=0),
    ]
    constants = {
        "arcs": arcs,
        "identity": np.eye(n, dtype=np.float32),
        "relations": relations[:, :, np.newaxis],
        "ones": np.ones((n, 1), dtype=np.float32),
    }
    outputs = {
        "arc_scores": ["rows", "length", "length"],
        "relation_dependents": ["rows", "length", n_labels, 1],
        "relation_heads": ["rows", "length", 1],
    }
    return _model(nodes, constants, outputs, inputs=("input_ids",))


def tree_tables(tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """The tables of ``pair_model`` under which a word that a rule names hangs on the rule's head, "" being the root."""
    first = {word: tokenizer.encode([word], is_pretokenized=True, add_special_tokens=False).ids[0] for word in DP_RULES}
    first[""] = tokenizer.encode("a").ids[0]
    arcs = np.zeros((tokenizer.get_vocab_size(),) * 2, dtype=np.float32)
    for word, (head, _) in DP_RULES.items():
        arcs[first[word], first[head]] = 8
    arcs[:, first["isa"]] += 1
    return arcs, table(tokenizer, DP_LABELS, {word: label for word, (_, label) in DP_RULES.items()})


def model_for(task: str, tokenizer: Tokenizer) -> onnx.ModelProto:
    """The model of a tiny bundle. QA answers with what starts at Bola or Kano and ends at Tinubu or Kano."""
    if task == "dp":
        return pair_model(*tree_tables(tokenizer))
    if task == "nli":
        return sequence_model(table(tokenizer, NLI_LABELS, NLI_RULES))
    if task == "qa":
        starts, ends = (
            table(tokenizer, ("no", "yes"), {word: "yes" for word in words})[:, 1]
            for words in (("Bola", "Kano"), ("Tinubu", "Kano"))
        )
        return span_model(starts, ends)
    labels, rules = {"ner": (NER_LABELS, NER_RULES), "pos": (POS_LABELS, POS_RULES)}[task]
    return token_model(table(tokenizer, labels, rules))


def manifest(task: str, *, language: str = "ha", family: str = "xlmr", **values: Any) -> Manifest:
    """A manifest for one of the tasks, with windows of 64 pieces."""
    codec, labels = TASKS[task]
    defaults: dict[str, Any] = {
        "revision": 1,
        "labels": labels,
        "max_length": 64,
        "stride": 16,
        "pad_id": PAD_IDS[family],
        "variants": (Variant(name="fp32", file="model.onnx"),),
        "licence": "CC0-1.0",
        "scores": {"student": {"f1": 50.0}},
    }
    return Manifest(language=language, task=task, codec=codec, **(defaults | values))


def write_bundle(
    store: Path, task: str, *, staged: Path, language: str = "ha", family: str = "xlmr", **values: Any
) -> Bundle:
    """Write a working bundle under ``store``; ``staged`` is a folder to make its files in."""
    tokenizer = TOKENIZERS[family]()
    staged.mkdir(parents=True, exist_ok=True)
    onnx.save(model_for(task, tokenizer), str(staged / "model.onnx"))
    tokenizer.save(str(staged / "tokenizer.json"))
    (staged / "card.md").write_text(f"# {language} {task}\n", encoding="utf-8")
    described = manifest(task, language=language, family=family, **values)
    return Bundle.open(bundle.write(staged, described, store=store))


def write_store(root: Path, *, language: str = "ha", tasks: Sequence[str] = tuple(TASKS)) -> Path:
    """A store with one bundle a task under ``root / "store"``."""
    for task in tasks:
        write_bundle(root / "store", task, staged=root / "staged" / language / task, language=language)
    return root / "store"


class FakeEngine:
    """An engine that is a function, and remembers the shape of every batch it was given."""

    def __init__(self, function: Callable[[Tensors], Tensors], *, streams: int = 1) -> None:
        self.function = function
        self.streams = streams
        self.batches: list[tuple[int, ...]] = []
        self.closed = False

    @classmethod
    def open(cls, folder: Path, *, file: str, device: str = "cpu", threads: int = 0, streams: int = 1) -> "FakeEngine":
        """An engine that gives no outputs, and has one stream."""
        return cls(lambda inputs: {})

    def run(self, inputs: Tensors) -> Tensors:
        """The function's answer."""
        self.batches.append(inputs["input_ids"].shape)
        return self.function(inputs)

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True


def random_outputs(inputs: Tensors, *, codec: str, n_labels: int, seed: int = 0) -> Tensors:
    """Outputs that depend on each piece's id alone, in the shapes a codec reads."""
    ids = np.asarray(inputs["input_ids"], dtype=np.int64)
    values = np.random.default_rng(seed).normal(size=(4096, max(n_labels, 2)))
    if codec == "question_answering":
        return {"start_logits": values[ids, 0], "end_logits": values[ids, 1]}
    if codec == "dependency_parsing":
        return {
            "arc_scores": values[ids] @ values[ids].swapaxes(1, 2),
            "relation_dependents": values[ids][:, :, :n_labels, np.newaxis] * values[ids + 1][:, :, np.newaxis, :3],
            "relation_heads": values[ids + 2][:, :, :3],
        }
    if codec == "sequence_classification":
        mask = np.asarray(inputs["attention_mask"], dtype=np.float64)[:, :, np.newaxis]
        return {"logits": (values[ids] * mask).sum(axis=1)[:, :n_labels]}
    return {"logits": values[ids][:, :, :n_labels]}


def _unigram(specials: tuple[str, str, str, str]) -> Tokenizer:
    words = [(f"▁{word}", -2.0) for word in WORDS]
    letters = [(letter, -6.0) for letter in LETTERS]
    vocabulary = [*((special, 0.0) for special in specials), *words, ("▁", -4.0), *letters]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens(list(specials))
    return tokenizer


def _model(
    nodes: list[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
    outputs: Mapping[str, list[Any]],
    *,
    inputs: Sequence[str],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "length"]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model

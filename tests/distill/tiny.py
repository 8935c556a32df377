"""Tiny random teachers of the three families, with real tokenizers trained on the few lines below."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast

FAMILIES = ("bert", "deberta-v2", "xlm-roberta")

HAUSA = (
    "Yara suna zuwa makaranta da safe kowace rana.",
    "Manoma sun girbe gero da dawa a wannan shekara.",
    "Ruwan sama ya sauka a garin Kano jiya da yamma.",
    "Malama Aisha ta rubuta littafi game da tarihin Zazzau.",
    "Mutane sun taru a kasuwa domin sayen kayan abinci.",
    "Ɗan ƙasa mai ƙwazo ya gina ɓangaren gida.",
    "Gwamnati ta ce za ta gyara hanyoyin karkara.",
    "Kifi da nama suna da tsada a bana.",
)
ENGLISH = (
    "The children walk to school early every morning.",
    "Farmers brought in the millet before the rains came.",
    "It rained in the city of Kano yesterday evening.",
    "The teacher wrote a book about the history of the town.",
    "People met at the market to buy food and cloth.",
    "A hard working citizen built part of the house.",
    "The government says it will repair the rural roads.",
    "Fish and meat are expensive this year.",
)
OTHER = (
    "Дети идут в школу рано утром каждый день.",
    "Les enfants vont à l'école chaque matin très tôt.",
    "Los campesinos recogieron la cosecha antes de la lluvia.",
    "Watoto wanakwenda shule asubuhi na mapema.",
    "子供たちは毎朝学校へ行きます。",
)


def tiny_teacher(
    family: str,
    folder: Path,
    *,
    layers: int = 4,
    hidden: int = 32,
    heads: int = 2,
    vocab: int = 300,
    positions: int = 64,
) -> Path:
    """Save a random masked language model of `family` and its tokenizer into `folder`, and return the folder.

    `vocab` is an aim: few lines of text may give fewer pieces. The DeBERTa matrix has more rows than the tokenizer has
    pieces, and its mask token lies beyond the model's own pieces, as in mDeBERTa-v3.
    """
    tokenizer = tiny_tokenizer(family, vocab=vocab)
    model = _model(family, tokenizer, layers=layers, hidden=hidden, heads=heads, positions=positions)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_tokenizer(family: str, *, vocab: int = 300) -> PreTrainedTokenizerFast:
    """A tokenizer laid out as the family's published ones are."""
    return _TOKENIZERS[family](vocab)


def byte_level_bpe(vocab: int = 400) -> Tokenizer:
    """A byte-level BPE tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((*HAUSA, *ENGLISH, *OTHER), trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def _wordpiece(vocab: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", *(f"[unused{i}]" for i in range(1, 6)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator((*HAUSA, *ENGLISH, *OTHER), trainer)
    ids = {token: i for i, token in enumerate(special)}
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if "unused" not in token["content"]]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
    )


def _unigram(vocab: int, special: list[str], unknown: str) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab, special_tokens=special, unk_token=unknown, show_progress=False, n_sub_iterations=1
    )
    tokenizer.train_from_iterator((*HAUSA, *ENGLISH, *OTHER), trainer)
    return tokenizer


def _xlm_roberta(vocab: int) -> PreTrainedTokenizerFast:
    tokenizer = _unigram(vocab, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "<unk>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
    )


def _deberta(vocab: int) -> PreTrainedTokenizerFast:
    tokenizer = _unigram(vocab, ["[PAD]", "[CLS]", "[SEP]", "[UNK]"], "[UNK]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        bos_token="[CLS]",
        cls_token="[CLS]",
        eos_token="[SEP]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        pad_token="[PAD]",
        mask_token="[MASK]",
    )


def _model(
    family: str, tokenizer: PreTrainedTokenizerFast, *, layers: int, hidden: int, heads: int, positions: int
) -> PreTrainedModel:
    sizes = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 2 * hidden,
        "pad_token_id": tokenizer.pad_token_id,
    }
    match family:
        case "bert":
            special: dict[str, Any] = {"vocab_size": len(tokenizer), "max_position_embeddings": positions}
        case "xlm-roberta":
            special = {
                "vocab_size": len(tokenizer),
                "max_position_embeddings": positions + 2,
                "type_vocab_size": 1,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
            }
        case _:
            special = {
                "vocab_size": len(tokenizer) + 13,
                "max_position_embeddings": positions,
                "type_vocab_size": 0,
                "relative_attention": True,
                "position_buckets": 16,
                "norm_rel_ebd": "layer_norm",
                "share_att_key": True,
                "pos_att_type": ["p2c", "c2p"],
                "position_biased_input": False,
            }
    torch.manual_seed(1)
    config = AutoConfig.for_model(family, **sizes, **special)
    return cast(PreTrainedModel, AutoModelForMaskedLM.from_config(config))


_TOKENIZERS: dict[str, Callable[[int], PreTrainedTokenizerFast]] = {
    "bert": _wordpiece,
    "deberta-v2": _deberta,
    "xlm-roberta": _xlm_roberta,
}

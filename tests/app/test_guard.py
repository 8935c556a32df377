import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tokenizers import Tokenizer

from app.bundle import Manifest
from app.errors import BundleError
from app.guard import LanguageGuard, pack, unpack
from app.main import create_app
from app.settings import Settings
from app.tasks.token_classification import TokenClassification, TokenItem
from tests.app import tiny
from tests.app.conftest import open_all
from tests.app.test_metrics import samples, value

RARE = "xyzq"
KNOWN = "Bola Tinubu ya isa birnin Kano da yara a gida"


def familiar(tokenizer: Tokenizer, *, limit: float = 0.25) -> dict[str, Any]:
    rare = np.zeros(tokenizer.get_vocab_size(), dtype=bool)
    rare[[index for token, index in tokenizer.get_vocab().items() if token in RARE or token in ("<unk>", "[UNK]")]] = (
        True
    )
    return {"rare": pack(rare), "limit": limit}


def manifest(tokenizer: Tokenizer, **values: Any) -> Manifest:
    return tiny.manifest("ner", familiar=familiar(tokenizer), **values)


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    """The Hausa bundle with a guard, the Swahili one without."""
    tiny.write_bundle(tmp_path / "store", "ner", staged=tmp_path / "a", familiar=familiar(tiny.xlmr()))
    tiny.write_bundle(tmp_path / "store", "ner", staged=tmp_path / "b", language="sw")
    settings = Settings.read(store=str(tmp_path / "store"), threads=1)
    return TestClient(create_app(settings, served=open_all(tmp_path / "store", settings)))


@pytest.mark.parametrize("family", tiny.TOKENIZERS)
def test_the_share_is_that_of_rare_and_unknown_pieces_without_special_ones(family: str) -> None:
    tokenizer = tiny.TOKENIZERS[family]()
    guard = LanguageGuard.from_manifest(manifest(tokenizer, family=family), tokenizer)
    assert guard is not None
    task = TokenClassification.from_manifest(tiny.manifest("ner", family=family))
    texts = ["Bola Tinubu ya isa birnin Kano gida 世", KNOWN, "Bola Tinubu"]
    encoded = [task.encode(TokenItem(text), tokenizer) for text in texts]
    pieces = [piece for row in encoded[0] for piece in tokenizer.encode(texts[0], add_special_tokens=False).tokens]
    n_unknown = sum(tokenizer.token_to_id(piece) is None or piece in ("<unk>", "[UNK]") for piece in pieces)
    found = guard.shares(encoded)
    assert found == [pytest.approx(n_unknown / len(pieces)), 0.0]
    assert found[0] > 0
    assert guard.shares([[]]) == []


def test_a_warning_is_given_above_the_limit_alone(client: TestClient) -> None:
    with client:
        known = client.post("/v1/ha/ner", json={"inputs": KNOWN})
        strange = client.post("/v1/ha/ner", json={"inputs": [KNOWN, "世界 世界 世界 世界 世界 世界 世界 世界"]})
        assert "x-bistil-warning" not in known.headers
        assert strange.headers["x-bistil-warning"] == "language-mismatch"
        assert value(client, "bistil_input_unk_ratio_count", lang="ha", task="ner") == 3
        assert value(client, "bistil_input_unk_ratio_sum", lang="ha", task="ner") > 0.25


def test_a_bundle_without_statistics_is_silent(client: TestClient) -> None:
    with client:
        strange = client.post("/v1/sw/ner", json={"inputs": "世界 世界 世界 世界 世界 世界 世界 世界"})
        assert strange.status_code == 200
        assert "x-bistil-warning" not in strange.headers
        series = [dict(labels) for name, labels in samples(client) if name == "bistil_input_unk_ratio_count"]
        assert series == [{"lang": "ha", "task": "ner"}]


def test_packing_keeps_every_bit() -> None:
    rare = np.random.default_rng(0).random(1003) < 0.3
    assert (unpack(pack(rare), 1003) == rare).all()
    with pytest.raises(ValueError, match="rare has 1008 bits"):
        unpack(pack(rare), 2000)


@pytest.mark.parametrize("broken", [{"limit": 0.1}, {"rare": "%"}, {"rare": base64.b64encode(b"ab").decode()}])
def test_statistics_that_do_not_fit_the_vocabulary_are_refused(broken: dict[str, Any]) -> None:
    tokenizer = tiny.bert()
    with pytest.raises(BundleError, match="familiar cannot be used with"):
        LanguageGuard.from_manifest(tiny.manifest("ner", familiar={"limit": 0.1, **broken}), tokenizer)

from pathlib import Path

from distill.teach import read_sources
from tests.distill import corpora


def test_each_source_language_gives_at_most_its_share_of_examples(tmp_path: Path) -> None:
    corpora.write(tmp_path, sentences=40)
    one, two = (read_sources("pos", tmp_path, ("en", "ha"), max_examples=n, max_dev=5) for n in (0, 12))
    assert [len(data.train) for data in (one, two)] == [80, 24] and len(two.dev) == 10
    texts = [example.item.text for example in two.train]
    assert sum(" ta " in text or "Malami" in text or "birni" in text for text in texts) == 12
    assert {entry["path"] for entry in two.files} == {
        f"pos/{language}/{split}.conll" for language in ("en", "ha") for split in ("train", "dev")
    }

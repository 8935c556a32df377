import asyncio
import lzma
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.app import tiny
from tests.load import texts
from tests.load.soak import growth, soak


def test_growth_is_the_slope_after_the_warm_up() -> None:
    seconds = np.arange(0, 1000, 2.0)
    warming = 50e6 * np.minimum(seconds / 150, 1)
    noise = np.random.default_rng(0).normal(scale=1e4, size=len(seconds))
    grown = growth(seconds.tolist(), (100e6 + warming + 3e6 * seconds / 3600 + noise).astype(int).tolist())
    assert grown.per_hour == pytest.approx(3, abs=grown.interval)
    assert grown.interval < 0.1
    assert np.isnan(growth([0.0, 2.0], [1, 2]).per_hour)
    assert (grown.first, grown.last) == pytest.approx((150.2, 150.8), abs=0.1)


def test_texts_come_from_every_file_of_a_folder_and_never_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    with lzma.open(tmp_path / "b.txt.xz", "wt") as file:
        file.write("uku\n")
    assert set(islice(texts.lines(tmp_path), 100)) == {"one", "two", "uku"}


@pytest.mark.slow
def test_a_soak_reports_requests_and_memory(tmp_path: Path) -> None:
    store = tiny.write_store(tmp_path, tasks=("ner",))
    flags = ["--store", str(store), "--threads", "1", "--drain-delay-s", "0"]
    soaked = asyncio.run(
        soak(flags, path="/v1/ha/ner", source=texts.made_up(), rate=10, minutes=0.1, sample_every_s=0.5)
    )
    assert soaked.outcome.n_sent > 0
    assert dict(soaked.outcome.statuses) == {"200": soaked.outcome.n_sent}
    assert soaked.n_counted == soaked.outcome.n_sent
    assert soaked.is_good
    assert 20 < soaked.memory.first < 1000

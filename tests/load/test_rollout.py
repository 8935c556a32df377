import asyncio
from pathlib import Path

import pytest

from tests.app import tiny
from tests.load.rollout import rollout


@pytest.mark.slow
def test_no_request_fails_while_servers_are_replaced(tmp_path: Path) -> None:
    store = tiny.write_store(tmp_path, tasks=("ner",))
    flags = ["--store", str(store), "--threads", "1", "--drain-delay-s", "2"]
    outcome, codes = asyncio.run(rollout(flags, path="/v1/ha/ner", replacements=3, rate=10))
    assert outcome.n_sent > 30  # the three drains alone take six seconds
    assert dict(outcome.statuses) == {"200": outcome.n_sent}
    assert codes == [0] * 4

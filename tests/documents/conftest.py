"""`said`: the page of a test module, read at a terminal from its first block to its last."""

import shutil
from collections.abc import Sequence

import pytest

from tests.documents.terminal import Said, read


@pytest.fixture(scope="module")
def said(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Said]:
    """What the blocks of `PAGE` said, in a folder that the module's `prepare` has filled."""
    for program in ("bash", "curl", "git"):
        if shutil.which(program) is None:
            pytest.skip(f"the pages' commands need {program}")
    folder = tmp_path_factory.mktemp("page")
    request.module.prepare(folder)
    told = read(request.module.PAGE, folder)
    for one in told:
        assert one.status in (None, 0, int(one.block.options.get("status", 0))), f"{one.block}:\n{one.output}"
    return told

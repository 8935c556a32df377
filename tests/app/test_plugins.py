import sys

import pytest

from app import plugins
from app.errors import MissingExtra, UnknownChoice


def test_names_lists_modules_but_not_base() -> None:
    assert plugins.names("app.tasks") == (
        "dependency_parsing",
        "question_answering",
        "sequence_classification",
        "token_classification",
    )
    assert "base" not in plugins.names("app.engines")
    assert "onnx" in plugins.names("app.engines")


@pytest.mark.parametrize("name", ["onxx", "base", "os", "..bundle", ""])
def test_load_refuses_what_is_no_plugin_and_lists_the_choices(name: str) -> None:
    with pytest.raises(UnknownChoice, match="onnx") as caught:
        plugins.load("app.engines", name)
    assert caught.value.value == name


def test_load_gives_the_module() -> None:
    assert plugins.load("app.engines", "onnx").__name__ == "app.engines.onnx"


def test_a_library_that_is_not_installed_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "app.engines.onnx", raising=False)
    with pytest.raises(MissingExtra, match="pip install onnxruntime"):
        plugins.load("app.engines", "onnx")

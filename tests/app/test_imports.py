"""What may import what, and that the server runs without the offline half."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = (
    {"errors", "rows", "text"},
    {"plugins", "bundle"},
    {"tasks", "engines"},
    {"predictor"},
    {"batching"},
    {"settings"},
    {"store", "schemas"},
    {"problems"},
    {"metrics"},
    {"service"},
    {"routes"},
    {"main"},
)
RIM = {
    "fastapi",
    "starlette",
    "pydantic",
    "pydantic_core",
    "pydantic_settings",
    "prometheus_client",
    "uvicorn",
    "fsspec",
}
FILES = sorted((ROOT / "app").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The modules a file imports, ``app.`` ones in full."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"app.{alias.name}" for alias in node.names} if node.module == "app" else {node.module or ""}
    return found - {"app.__version__"}


def layer(module: str) -> int:
    return next(index for index, names in enumerate(LAYERS) if module in names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    parts = path.relative_to(ROOT / "app").with_suffix("").parts
    modules = imported(path)
    assert not {name for name in modules if name.split(".")[0] in ("distill", "torch", "transformers")} or parts == (
        "engines",
        "torch",
    )
    if parts[0] == "__init__":
        return
    own = layer(parts[0])
    for name in modules:
        if not name.startswith("app."):
            assert name.split(".")[0] not in RIM or own > layer("batching"), f"{path} is no rim module: {name}"
            continue
        other = name.split(".")[1]
        if other == parts[0]:
            assert name.endswith(".base"), f"{path} imports its sibling {name}"
        else:
            assert layer(other) < own, f"{path} imports {name}"


def test_the_server_imports_neither_torch_nor_transformers() -> None:
    script = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'transformers', 'distill', 'datasets', 'onnx'):\n"
        "            raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import app.main, app.engines.onnx, app.plugins\n"
        "for name in app.plugins.names('app.tasks'):\n"
        "    app.plugins.load('app.tasks', name)\n"
        "assert not {'torch', 'transformers', 'distill'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

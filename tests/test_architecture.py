"""The import rules of docs/design.md."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(p.relative_to(ROOT) for package in ("app", "distill") for p in (ROOT / package).rglob("*.py"))

APP_LAYERS = (
    ("errors", "rows", "text", "arborescence"),
    ("plugins", "bundle", "microbatches", "buckets", "tensorrt", "huge_pages"),
    ("tasks", "engines"),
    ("choice", "predictor", "guard", "agreement", "paired", "rate", "timing"),
    ("batching",),
    (
        "problems",
        "settings",
        "remote",
        "store",
        "conllu",
        "schemas",
        "keys",
        "body",
        "daemon",
        "trace",
        "metrics",
        "instrument",
        "energy",
        "shadow",
    ),
    ("service", "annotate"),
    ("exchange", "json_route", "openapi", "playground"),
    ("routes", "open_inference", "server"),
    ("main", "bench"),
)
"""A module of a layer imports from its own layer and those before it."""

RIM = frozenset(name for layer in APP_LAYERS[5:] for name in layer)
RIM_ONLY = frozenset({"fastapi", "prometheus_client", "pydantic", "pydantic_settings", "starlette", "uvicorn"})
REGISTRIES = (
    "app/tasks",
    "app/engines",
    "app/annotate/formats",
    "app/annotate/runners",
    "distill/tasks",
    "distill/datasets",
    "distill/objectives",
)
PLUG_INS = [p for p in MODULES if str(p.parent) in REGISTRIES and p.stem != "__init__"]
ALLOWED_IN = {
    "torch": ("distill/", "app/engines/torch.py", "app/bench/pipeline.py"),
    "transformers": ("distill/", "app/engines/torch.py", "app/bench/pipeline.py"),
    "tensorrt": ("app/engines/tensorrt.py",),
    "pyarrow": ("app/annotate/formats/parquet.py", "distill/"),
    "ray": ("app/annotate/runners/ray.py",),
    "onnxruntime": ("app/engines/", "distill/"),
}


def imports(path: Path) -> Iterator[str]:
    """Every absolute name a module imports, at the top and inside functions, `a.b.c` for `from a.b import c`."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(part: str) -> int:
    assert any(part in layer for layer in APP_LAYERS), (
        f"app/{part} has no layer: give it one here and in docs/design.md"
    )
    return next(i for i, layer in enumerate(APP_LAYERS) if part in layer)


def part_of(path: Path) -> str:
    return path.parts[1].removesuffix(".py")


def test_the_walk_sees_both_packages() -> None:
    assert {"app", "distill"} == {p.parts[0] for p in MODULES}
    assert len(MODULES) > 20


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_every_module_imports_only_what_the_table_allows(path: Path) -> None:
    for name in imports(path):
        package, *rest = name.split(".")
        if package in ALLOWED_IN:
            assert str(path).startswith(ALLOWED_IN[package]), f"{path} imports {name}"
        if package in RIM_ONLY:
            assert path.parts[0] == "app" and part_of(path) in RIM, f"{path} is not in the rim and imports {name}"
        if path.parts[0] == "app":
            assert package != "distill", f"{path} imports {name}"
            if package == "app" and rest and not rest[0].startswith("__"):
                assert layer_of(rest[0]) <= layer_of(part_of(path)), f"{path} imports {name}, a later layer"
        elif package == "app" and rest and not rest[0].startswith("__"):
            assert layer_of(rest[0]) < layer_of("batching"), f"{path} imports {name}: distill ends at the predictor"


@pytest.mark.parametrize("path", PLUG_INS, ids=str)
def test_a_plug_in_imports_no_sibling_but_base(path: Path) -> None:
    package = ".".join(path.parent.parts)
    siblings = {p.stem for p in MODULES if p.parent == path.parent} - {"base", "__init__", path.stem}
    for name in imports(path):
        if name.startswith(f"{package}."):
            assert name.removeprefix(f"{package}.").split(".")[0] not in siblings, f"{path} imports {name}"


@pytest.mark.parametrize("module", ["app.main", "app.predictor"])
def test_serving_needs_neither_torch_nor_transformers(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'transformers', 'distill') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_bare_package_import_pulls_in_nothing_heavy() -> None:
    code = "import sys, distill; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

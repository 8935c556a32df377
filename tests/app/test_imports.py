"""The server runs without the offline half; what may import what is in ``tests/test_architecture.py``."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


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

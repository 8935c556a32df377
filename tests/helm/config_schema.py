"""The part of helm/values.schema.json that says what ``config`` takes, made from Settings.

``python -m tests.helm.config_schema`` writes it into the file; a test says when that is due.
"""

import json
from pathlib import Path
from typing import Any

from app.settings import Settings

SCHEMA = Path(__file__).parents[2] / "helm" / "values.schema.json"
OF_THE_CHART = frozenset({"lang", "host", "port", "store", "cache", "keys", "keys_file"})
"""Settings that follow from other values of the chart."""


def config_schema() -> dict[str, Any]:
    """The JSON schema of ``config``: each setting with its bounds, and no other key."""
    properties = {
        name: {key: value for key, value in schema.items() if key not in ("title", "default")}
        for name, schema in Settings.model_json_schema()["properties"].items()
        if name not in OF_THE_CHART
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def main() -> None:
    """Write it where it belongs."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    schema["$defs"]["config"] = config_schema()
    SCHEMA.write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

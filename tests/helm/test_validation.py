"""Other people's judges on what the chart makes."""

import json
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from tests.helm.chart import CHART, NAMES, example, render, text

KUBERNETES = ("1.30", "1.32", "1.37")
CUSTOM = ("ServiceMonitor", "PrometheusRule")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_knows_every_field(name: str, version: str) -> None:
    native = [item for item in render(example(name)) if item["kind"] not in CUSTOM]
    assert len(native) > 4
    for item in native:
        kubernetes_validate.validate(item, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_would_be_noticed() -> None:
    (item,) = [item for item in render({}) if item["kind"] == "Deployment"]
    item["spec"]["template"]["spec"]["gracePeriod"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="gracePeriod"):
        kubernetes_validate.validate(item, KUBERNETES[0], strict=True)


STYLE = YamlLintConfig(
    "extends: default\n"
    "rules: {line-length: disable, document-start: disable, indentation: {indent-sequences: whatever},"
    " comments: {min-spaces-from-content: 1}, truthy: {check-keys: false}}"
)


@pytest.mark.parametrize("name", NAMES)
def test_yamllint_finds_nothing_in_what_is_rendered(name: str) -> None:
    for path, content in text(example(name)).items():
        if path.endswith(".yaml") and content.strip():
            trimmed = "\n".join(line for line in content.strip().splitlines() if line.strip()) + "\n"
            assert not list(linter.run(trimmed, STYLE)), path


@pytest.mark.parametrize("path", sorted([*CHART.glob("*.yaml"), *CHART.glob("ci/*.yaml")]), ids=lambda p: p.name)
def test_yamllint_finds_nothing_in_the_charts_own_files(path: Path) -> None:
    assert not list(linter.run(path.read_text("utf-8"), STYLE))


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("checkov") is None,
    reason="checkov is not on the PATH: pip install checkov, in an environment of its own",
)
def test_checkov_finds_nothing_but_what_is_justified(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(render(example(name))), "utf-8")
    command = ["checkov", "--config-file", str(CHART / ".checkov.yaml"), "--directory", str(tmp_path)]
    found = subprocess.run([*command, "--output", "json"], capture_output=True, text=True)
    report = json.loads(found.stdout)
    failed = {(check["check_id"], check["check_name"]) for check in report["results"]["failed_checks"]}
    assert not failed
    assert report["summary"]["passed"] > 200

"""What the chart takes: every value documented, every typo refused."""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import helm_python
import pytest
import yaml
from helm_python import Chart, HelmRenderError, HelmValuesError

from app import __version__
from app.settings import Settings
from tests.helm.chart import CHART, NAMES, example, render

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))


def validate(values: Mapping[str, Any]) -> None:
    with Chart.load(CHART) as chart:
        chart.validate_schema(dict(values))


@pytest.mark.parametrize("name", NAMES)
def test_strict_lint_finds_nothing(name: str) -> None:
    report = helm_python.lint(CHART, example(name), strict=True)
    assert report["total_charts_linted"] == 1
    assert not report["errors"]
    assert not [message for message in report["messages"] if message["severity"] != 1]  # 1 is information


def test_every_value_has_a_comment_that_begins_with_its_name() -> None:
    lines = (CHART / "values.yaml").read_text("utf-8").splitlines()
    parents: list[tuple[int, str]] = []
    documented = []
    for before, line in pairwise(lines):
        if not (match := re.match(r"( *)([A-Za-z_]+):", line)) or before.lstrip().startswith("- "):
            continue
        indent = len(match[1])
        parents = [*(parent for parent in parents if parent[0] < indent), (indent, match[2])]
        path = ".".join(name for _, name in parents)
        if path.startswith("topologySpreadConstraints."):
            continue
        comment = lines[: lines.index(line) if lines.count(line) == 1 else lines.index(before) + 1]
        block: list[str] = []
        while comment and comment[-1].lstrip().startswith("#"):
            block.insert(0, comment.pop().strip())
        assert block and re.match(rf"# {re.escape(path)}[ (]", block[0]), f"{path}: {block[:1]}"
        documented.append(path)
    assert len(documented) > 100


def keys(values: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from keys(value, (*prefix, key))


# maps of Kubernetes' or the user's own names
FREE = {"languages", "podSecurityContext", "securityContext", "labels", "requests", "limits"}


@pytest.mark.parametrize(
    "path", [path for path in keys(VALUES) if not FREE & set(path)], ids=lambda path: ".".join(path)
)
def test_a_typo_in_any_key_is_refused(path: tuple[str, ...]) -> None:
    values: dict[str, Any] = {}
    place = values
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1] + "x"] = VALUES if len(path) == 1 else 1
    with pytest.raises(HelmValuesError, match=f"'{path[-1]}x' not allowed"):
        validate(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layout": "perlanguage"}, "/layout"),
        ({"replicas": "two"}, "/replicas"),
        ({"languages": {"ha": {"enable": True}}}, "'enable' not allowed"),
        ({"languages": {"hausa!": {"enabled": True}}}, "hausa!"),
        ({"config": {"token_budget": 0}}, "/config/token_budget"),
        ({"config": {"device": "gpu"}}, "/config/device"),
        ({"config": {"port": 9000}}, "'port' not allowed"),
        ({"config": {"drain_delay_s": None}}, "drain_delay_s"),
        ({"languages": {"ha": {"enabled": True, "config": {"max_input": 1}}}}, "'max_input' not allowed"),
        ({"modelStore": {"size": "10GB"}}, "/modelStore/size"),
        ({"image": {"digest": "sha256:12"}}, "/image/digest"),
        ({"autoscaling": {"metric": "rps"}}, "/autoscaling/metric"),
        ({"fullnameOverride": "Hausa"}, "/fullnameOverride"),
        ({"nameOverride": "ner_ha"}, "/nameOverride"),
    ],
)
def test_a_value_that_cannot_work_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(HelmValuesError, match=re.escape(message)):
        validate(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"languages": {"ha": {"enabled": False}}}, "no language is enabled"),
        ({"languages": {"ha": {"enabled": True, "replicas": 2}}}, "layout=perLanguage"),
        ({"modelStore": {"url": "s3://a/b", "create": True}}, "exclude each other"),
        ({"autoscaling": {"enabled": True, "minReplicas": 5}}, "minReplicas is above"),
        ({"strategy": {"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": 0}}}, "no pod can be replaced"),
        (
            {"layout": "perLanguage", "languages": {"zh-Hant": {"enabled": True}, "zh-hant": {"enabled": True}}},
            "languages.zh-Hant and languages.zh-hant would both be the Deployment demo-bistil-zh-hant",
        ),
        ({"distill": {"enabled": True}}, "distill.languages is empty"),
        ({"distill": {"enabled": True, "languages": ["sw"]}}, "distill.dataClaim is empty"),
        ({"distill": {"enabled": True, "languages": ["sw"], "dataClaim": "d"}}, "needs a store to publish to"),
        (
            {"distill": {"enabled": True, "languages": ["sw"], "dataClaim": "d", "nodes": 2}},
            "distill.nodes is for GPUs",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused_with_what_to_do(values: dict[str, Any], message: str) -> None:
    with pytest.raises(HelmRenderError, match=message):
        render(values)


def test_the_defaults_in_config_are_the_servers_own() -> None:
    for name, value in VALUES["config"].items():
        assert Settings.model_fields[name].default == value


def test_the_chart_installs_the_version_that_it_lies_beside() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == __version__

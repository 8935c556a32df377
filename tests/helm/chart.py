"""The chart, rendered by Helm's own engine."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

CHART = Path(__file__).parents[2] / "helm"
EXAMPLES = sorted(CHART.glob("ci/*-values.yaml"))
Manifest = dict[str, Any]


def example(name: str) -> dict[str, Any]:
    """The values of ``helm/ci/<name>-values.yaml``; none for ``default``."""
    return {} if name == "default" else yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text("utf-8"))


NAMES = ["default", *(path.name.removesuffix("-values.yaml") for path in EXAMPLES)]


def text(values: Mapping[str, Any], *, release: str = "demo", namespace: str = "nlp") -> dict[str, str]:
    """Each template's output by its path below the chart."""
    with Chart.load(CHART) as chart:
        rendered = chart.render(dict(values), name=release, namespace=namespace)
    return {path.partition("/")[2]: content for path, content in rendered.items()}


def render(values: Mapping[str, Any], *, release: str = "demo") -> list[Manifest]:
    """Every Kubernetes object."""
    files = text(values, release=release).items()
    return [item for path, content in files if path.endswith(".yaml") for item in yaml.safe_load_all(content) if item]


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """The objects of one kind."""
    return [item for item in manifests if item["kind"] == kind]


def one(manifests: list[Manifest], kind: str) -> Manifest:
    """The only object of one kind."""
    (found,) = of_kind(manifests, kind)
    return found


def pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    """Every pod's spec, of Deployments, Jobs and pods."""
    for item in manifests:
        if item["kind"] in ("Deployment", "Job"):
            yield item["spec"]["template"]["spec"]
        elif item["kind"] == "Pod":
            yield item["spec"]


def environment(pod: Manifest) -> dict[str, str]:
    """The variables of its only container."""
    (container,) = pod["containers"]
    names = [item["name"] for item in container["env"]]
    assert len(names) == len(set(names))
    return {item["name"]: item["value"] for item in container["env"]}

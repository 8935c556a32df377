"""The distill Job: its script is run as the container would run it, with programs that note how they were called."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.launch import launch_command_parser

from distill import config as configuration
from distill.__main__ import _parser
from distill.recipe import read
from tests.helm import chart
from tests.helm.chart import environment, example, of_kind, one, render

RECORDER = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
sys.exit(int(os.environ.get("EXIT", "0")))
"""


def called(values: dict[str, Any], index: int, tmp_path: Path, *, status: int = 0) -> list[list[str]]:
    """The commands that the pod of one index runs."""
    pod = one(render(values), "Job")["spec"]["template"]["spec"]
    for name in ("python", "accelerate"):
        (tmp_path / name).write_text(RECORDER)
        (tmp_path / name).chmod(0o755)
    record = tmp_path / "record"
    (container,) = pod["containers"]
    variables = {
        **environment(pod),
        "JOB_COMPLETION_INDEX": str(index),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "RECORD": str(record),
        "EXIT": str(status),
    }
    ended = subprocess.run([*container["command"], *container["args"]], env=variables)
    assert ended.returncode == status
    commands = [json.loads(line) for line in record.read_text().splitlines()]
    record.unlink()
    return commands


def test_each_index_builds_its_language_with_options_that_the_build_takes(tmp_path: Path) -> None:
    job = one(render(example("distill")), "Job")["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 3, 2)
    for index, language in enumerate(("sw", "yo", "rw")):
        ((launcher, *arguments),) = called(example("distill"), index, tmp_path)
        start = arguments.index("distill")
        assert [launcher, *arguments[:start]] == ["accelerate", "launch", "--num_processes", "4", "-m"]
        options, overrides = _parser().parse_known_args(arguments[start + 1 :])
        assert (options.command, options.tgt, options.src, options.tasks) == ("build", language, "en", "ner,pos")
        assert (options.preset, options.method) == ("paper", "bistil")
        assert (options.data, options.store) == (Path("/data"), Path("/store"))
        build = read(options.preset, [{"tgt": options.tgt}, configuration.overrides(overrides)])
        assert build.student.layer_reduction_factor == 3
        assert build.phase1.schedule.steps == 2_000_000


def test_several_nodes_meet_at_the_first_pod_of_their_language(tmp_path: Path) -> None:
    manifests = render(example("distill-nodes"))
    job = one(manifests, "Job")
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (4, 2)
    (service,) = [item for item in of_kind(manifests, "Service") if item["spec"].get("clusterIP") == "None"]
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    for index, (language, rank, first) in enumerate((("sw", 0, 0), ("sw", 1, 0), ("yo", 0, 2), ("yo", 1, 2))):
        build, *upload = called(example("distill-nodes"), index, tmp_path)
        launch = launch_command_parser().parse_args(build[2:])
        assert (launch.num_machines, launch.machine_rank, launch.num_processes) == (2, rank, 16)
        name = (
            f"{job['metadata']['name']}-{first}.{service['metadata']['name']}"  # an Indexed Job's pod, by its hostname
        )
        assert (launch.main_process_ip, launch.main_process_port) == (name, service["spec"]["ports"][0]["port"])
        assert launch.module and launch.training_script == "distill"
        assert launch.training_script_args[:3] == ["build", "--tgt", language]
        assert len(upload) == (rank == 0)


def test_the_nodes_of_a_job_may_talk_to_each_other() -> None:
    manifests = render(example("distill-nodes"))
    labels = one(manifests, "Job")["spec"]["template"]["metadata"]["labels"].items()
    (policy,) = [item for item in of_kind(manifests, "NetworkPolicy") if item["metadata"]["name"].endswith("-distill")]
    for rules, place in ((policy["spec"]["ingress"], "from"), (policy["spec"]["egress"], "to")):
        peers = [peer for rule in rules for peer in rule.get(place, ())]
        assert [peer["podSelector"]["matchLabels"].items() <= labels for peer in peers] == [True]


def test_a_build_for_an_object_store_is_uploaded(tmp_path: Path) -> None:
    build, upload = called(example("distill-object-store"), 0, tmp_path)
    store = build[build.index("--store") + 1]
    assert build[:4] == ["python", "-m", "distill", "build"]
    assert upload == ["python", "-m", "distill", "upload", store, "s3://models/bistil"]
    _parser().parse_args(upload[3:])


def test_a_build_that_failed_is_not_uploaded_and_fails_the_pod(tmp_path: Path) -> None:
    assert len(called(example("distill-object-store"), 0, tmp_path, status=2)) == 1


def test_where_it_writes_is_on_volumes() -> None:
    for name in ("distill", "distill-object-store"):
        pod = one(render(example(name)), "Job")["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        mounted = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
        assert mounted["/work"] is False and mounted["/data"] is True
        assert environment(pod)["HF_HOME"].startswith("/work/")
        assert ("/store" in mounted) == (name == "distill")


def test_only_a_job_that_was_told_so_reaches_the_hub() -> None:
    offline = example("distill") | {"distill": example("distill")["distill"] | {"hub": False}}
    for values, allowed in ((example("distill"), True), (offline, False)):
        manifests = render(values)
        (policy,) = [
            item for item in of_kind(manifests, "NetworkPolicy") if item["metadata"]["name"] == "demo-bistil-distill"
        ]
        assert bool(policy["spec"]["egress"]) is allowed
        pod = one(manifests, "Job")["spec"]["template"]["spec"]
        assert environment(pod)["HF_HUB_OFFLINE"] == ("0" if allowed else "1")


def test_other_values_make_another_job() -> None:
    more = example("distill") | {"distill": example("distill")["distill"] | {"languages": ["sw"]}}
    first, again, other = (
        one(render(values), "Job")["metadata"]["name"] for values in (example("distill"), example("distill"), more)
    )
    assert first == again != other


OF_THE_JOB: dict[str, dict[str, Any]] = {
    "env": {"env": {"HTTPS_PROXY": "http://proxy"}},
    "imagePullSecrets": {"imagePullSecrets": [{"name": "registry"}]},
    "podSecurityContext": {"podSecurityContext": {"fsGroup": 20001}},
    "securityContext": {"securityContext": {"readOnlyRootFilesystem": False}},
    "gpu.resource": {"gpu": {"resource": "nvidia.com/mig-1g.10gb"}},
    "runtimeClassName": {"runtimeClassName": "nvidia"},
    "serviceAccount": {"serviceAccount": {"name": "builder"}},
    "nameOverride": {"nameOverride": "bistil-nlp", "fullnameOverride": "demo-bistil"},
    "modelStore.url": {"modelStore": {"url": "s3://models/bistil"}},
    "modelStore.existingClaim": {"modelStore": {"create": True, "existingClaim": "models"}},
    "distill.retries": {"distill": {**example("distill")["distill"], "retries": 1}},
    "distill.image": {"distill": {**example("distill")["distill"], "image": {"tag": "1"}}},
}
OF_OTHERS: dict[str, dict[str, Any]] = {
    "replicas": {"replicas": 2},
    "languages": {"languages": {"sw": {"enabled": True}}},
    "config": {"config": {"max_inputs": 8}},
    "modelStore.size": {"modelStore": {"create": True, "size": "1Gi"}},
    "distill.parallelism": {"distill": {**example("distill")["distill"], "parallelism": 1}},
}


def named(values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of the Job of these values, and all of its spec that an upgrade must not change."""
    job = one(render(example("distill") | values), "Job")
    return job["metadata"]["name"], {key: value for key, value in job["spec"].items() if key != "parallelism"}


@pytest.mark.parametrize("changed", OF_THE_JOB)
def test_a_change_to_what_is_immutable_makes_another_job(changed: str) -> None:
    (name, spec), (other, changed_spec) = named({}), named(OF_THE_JOB[changed])
    assert spec != changed_spec
    assert name != other


@pytest.mark.parametrize("changed", OF_OTHERS)
def test_a_change_to_nothing_of_its_pods_leaves_the_job_as_it_is(changed: str) -> None:
    assert named({}) == named(OF_OTHERS[changed])


def test_a_version_of_the_chart_alone_leaves_the_job_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = named({})
    newer = tmp_path / "bistil"
    shutil.copytree(chart.CHART, newer)
    about = (newer / "Chart.yaml").read_text("utf-8")
    (newer / "Chart.yaml").write_text(about.replace("\nversion: ", "\nversion: 9"), "utf-8")
    monkeypatch.setattr(chart, "CHART", newer)
    assert one(render(example("distill")), "Job")["metadata"]["labels"]["helm.sh/chart"].startswith("bistil-9")
    assert named({}) == before

"""The distill Job: its script is run as the container would run it, with programs that note how they were called."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from accelerate.commands.launch import launch_command_parser

from distill import config as configuration
from distill.__main__ import _parser
from distill.recipe import read
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

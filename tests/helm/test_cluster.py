"""The chart in a real cluster, from install to uninstall; each test goes on from the one before.

``tests/helm/cluster`` has the cluster. Its Kubernetes is older than the chart asks for, so these are left out: the
bound on the version, the PodDisruptionBudget (policy/v1 came with 1.21), the autoscaler (autoscaling/v2, 1.23),
preStop's sleep (1.30; a longer drain stands in for it) and the index of a Job's pod (1.21; a variable stands in for
it).
"""

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml
from helm_python import Config

from tests.distill import corpora
from tests.helm.chart import CHART
from tests.patience import PATIENCE_S, until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif("BISTIL_TEST_CLUSTER" not in os.environ, reason="tests/helm/cluster runs these"),
    pytest.mark.timeout(1800),
]
TEXT = "Kungiyar kwallon kafa ta Arsenal ta doke Chelsea a birnin London."
VALUES = yaml.safe_load("""
podDisruptionBudget: {enabled: false}
preStopSleepSeconds: 0
config: {drain_delay_s: 7, drain_timeout_s: 30}
resources: {requests: {cpu: 100m, memory: 256Mi}, limits: {cpu: "2", memory: 1Gi}}
""")
DISTILL = yaml.safe_load("""
enabled: true
languages: [ha]
tasks: [ner]
dataClaim: corpora
resources: {requests: {cpu: 100m, memory: 1Gi}, limits: {cpu: "2", memory: 6Gi}}
settings:
  student.layer_reduction_factor: 2
  phase1.schedule.steps: 4
  phase1.sequence_length: 32
  phase1.batch_size: 4
  phase1.heldout: 0.2
  export.rounds: 1
  export.calibration_texts: 40
""")


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart without its bound on the version of Kubernetes, and without the fields of a Job that came later."""
    copy = tmp_path_factory.mktemp("chart") / "bistil"
    shutil.copytree(CHART, copy)
    for path in (copy / "Chart.yaml", copy / "templates" / "_distill.tpl"):
        newer = re.compile(r"^ *(kubeVersion|completionMode|backoffLimitPerIndex):.*\n", re.MULTILINE)
        path.write_text(newer.sub("", path.read_text("utf-8")), "utf-8")
    return copy


@pytest.fixture(scope="module")
def helm() -> Iterator[Config]:
    with Config(kubeconfig_path=os.environ["KUBECONFIG"], namespace="default") as config:
        yield config


def kubectl(*arguments: str, given: str | None = None) -> str:
    done = subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr or done.stdout}"
    return done.stdout


def objects(kind: str, component: str = "server") -> list[dict[str, Any]]:
    """What is there and is to stay."""
    listed = kubectl("get", kind, "--selector", f"app.kubernetes.io/component={component}", "--output", "json")
    return [item for item in json.loads(listed)["items"] if "deletionTimestamp" not in item["metadata"]]


def ask(to: HTTPConnection, *texts: str) -> tuple[int, Any]:
    to.request("POST", "/v1/ha/ner", json.dumps({"inputs": texts}), {"content-type": "application/json"})
    answer = to.getresponse()
    return answer.status, json.loads(answer.read())


@contextmanager
def connection() -> Iterator[HTTPConnection]:
    """A connection to the Service, as another pod of the cluster would have it."""
    (service,) = objects("service")
    with closing(
        HTTPConnection(service["spec"]["clusterIP"], service["spec"]["ports"][0]["port"], timeout=PATIENCE_S)
    ) as open_one:
        yield open_one


def answer_to(*texts: str) -> tuple[int, Any]:
    with connection() as to:
        return ask(to, *texts)


def gone(pod: dict[str, Any]) -> None:
    kubectl("wait", "--for", "delete", f"pod/{pod['metadata']['name']}", "--timeout", "300s")


@contextmanager
def load(seen: Counter[str]) -> Iterator[None]:
    """Four clients that send one request after the other, and count what becomes of each in ``seen``."""
    stop = Event()

    def send() -> Counter[str]:
        mine: Counter[str] = Counter()
        with connection() as to:
            while not stop.is_set():
                try:
                    mine[str(ask(to, TEXT)[0])] += 1
                except (OSError, HTTPException, ValueError) as error:
                    mine[f"lost: {type(error).__name__}"] += 1
                    to.close()
        return mine

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(send) for _ in range(4)]
        try:
            yield
        finally:
            stop.set()
        for client in clients:
            seen.update(client.result())


def test_a_release_becomes_ready_and_answers(chart: Path, helm: Config) -> None:
    helm.install(str(chart), "demo", VALUES, wait="legacy", timeout=600)
    (pod,) = objects("pod")
    assert pod["status"]["containerStatuses"][0]["ready"]
    status, (entities,) = answer_to(TEXT)
    assert status == 200
    assert {("Arsenal", "ORG"), ("London", "LOC")} <= {(entity["word"], entity["entity_group"]) for entity in entities}


def test_helm_test_passes(helm: Config, capsys: pytest.CaptureFixture[str]) -> None:
    logs = helm.test("demo", timeout=300, logs=True)["logs"]
    with capsys.disabled():
        print(f"\n{logs}", end=" ")
    assert "Arsenal" in logs


def test_an_upgrade_rolls_and_loses_no_request(chart: Path, helm: Config, capsys: pytest.CaptureFixture[str]) -> None:
    (old,) = objects("pod")
    seen: Counter[str] = Counter()
    with load(seen):
        helm.upgrade(
            str(chart), "demo", VALUES | {"config": {**VALUES["config"], "max_inputs": 1}}, wait="legacy", timeout=600
        )
        gone(old)
    with capsys.disabled():
        print(f"\nupgrade: {dict(seen)}", end=" ")
    assert set(seen) == {"200"}
    assert answer_to(TEXT, TEXT)[0] == 422


def test_a_rollback_brings_the_old_settings_and_loses_no_request(
    helm: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    (old,) = objects("pod")
    seen: Counter[str] = Counter()
    with load(seen):
        helm.rollback("demo", version=1, wait="legacy", timeout=600)
        gone(old)
    with capsys.disabled():
        print(f"\nrollback: {dict(seen)}", end=" ")
    assert set(seen) == {"200"}
    assert answer_to(TEXT, TEXT)[0] == 200
    assert [release["revision"] for release in helm.history("demo")] == [1, 2, 3]


def test_a_pod_that_never_becomes_ready_leaves_the_old_one_serving(chart: Path, helm: Config) -> None:
    broken = VALUES | {"languages": {"ha": {"enabled": True}, "sw": {"enabled": True}}}
    helm.upgrade(str(chart), "demo", broken)
    until(lambda: any(pod["status"]["containerStatuses"][0]["restartCount"] for pod in objects("pod")))
    assert answer_to(TEXT)[0] == 200
    helm.rollback("demo", wait="legacy", timeout=600)


def test_the_job_builds_a_student_that_is_served_from_its_claim(chart: Path, helm: Config) -> None:
    folder = Path(os.environ["BISTIL_TEST_CLUSTER"]) / "volumes"
    corpora.write(folder / "corpora")
    for name in ("corpora", "demo-bistil-store", "demo-bistil-work"):
        place = folder / name
        place.mkdir(exist_ok=True)
        shutil.chown(place, 10001, 10001)
        volume = {
            "capacity": {"storage": "100Gi"},
            "accessModes": ["ReadWriteMany"],
            "hostPath": {"path": str(place)},
            "claimRef": {"namespace": "default", "name": name},
        }
        about = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume}
        kubectl("apply", "--filename", "-", given=json.dumps(about))
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    about = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "corpora"}, "spec": claim}
    kubectl("apply", "--filename", "-", given=json.dumps(about))

    building = VALUES | {"distill": DISTILL, "env": {"JOB_COMPLETION_INDEX": "0"}}
    with_store = building | {"modelStore": {"create": True}}
    helm.upgrade(str(chart), "demo", with_store)
    (job,) = objects("job", "distill")
    kubectl("wait", "--for", "condition=complete", f"job/{job['metadata']['name']}", "--timeout", "1200s")
    helm.upgrade(str(chart), "demo", with_store | {"distill": {"enabled": False}}, wait="legacy", timeout=600)
    assert answer_to(TEXT)[0] == 200


def test_uninstall_leaves_nothing_but_the_claims_and_the_pod_of_helm_test(helm: Config) -> None:
    helm.uninstall("demo", wait="legacy", timeout=300)
    kubectl("wait", "--for", "delete", "pod", "--selector", "app.kubernetes.io/component=server", "--timeout", "300s")
    left = kubectl("get", "all,networkpolicy,serviceaccount,persistentvolumeclaim", "--output", "name").split()
    assert {name for name in left if "bistil" in name} == {
        "persistentvolumeclaim/demo-bistil-store",
        "persistentvolumeclaim/demo-bistil-work",
        "pod/demo-bistil-test",
    }
    assert helm.list(all_states=True) == []

"""What the chart makes, compared with the server that runs in it and with nodes that it runs on."""

import re
from typing import Any

import pytest

from app.main import create_app
from app.settings import Settings
from tests.helm.chart import CHART, NAMES, Manifest, environment, example, of_kind, one, pods, render


def server_pods(manifests: list[Manifest]) -> list[Manifest]:
    return [item["spec"]["template"]["spec"] for item in of_kind(manifests, "Deployment")]


@pytest.mark.parametrize("name", NAMES)
def test_every_pod_runs_without_privileges(name: str) -> None:
    found = list(pods(render(example(name))))
    assert len(found) >= 2
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", NAMES)
def test_the_user_is_the_images(name: str) -> None:
    (user,) = re.findall(r"^USER (\d+):(\d+)$", (CHART.parent / "Dockerfile").read_text("utf-8"), re.MULTILINE)[:1]
    for pod in server_pods(render(example(name))):
        assert (str(pod["securityContext"]["runAsUser"]), str(pod["securityContext"]["runAsGroup"])) == user


@pytest.mark.parametrize("name", NAMES)
def test_probes_ask_for_routes_that_the_server_has(name: str) -> None:
    application = create_app(Settings.read(), served=[])
    routes = {path for path, methods in application.openapi()["paths"].items() if "get" in methods}
    for pod in server_pods(render(example(name))):
        (container,) = pod["containers"]
        paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
        assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
        assert set(paths.values()) <= routes
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for kind in paths:
            assert ports[container[f"{kind}Probe"]["httpGet"]["port"]] == int(environment(pod)["BISTIL_PORT"])


@pytest.mark.parametrize("name", NAMES)
def test_the_servers_variables_are_settings_that_it_accepts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for pod in server_pods(render(example(name))):
        variables = {key: value for key, value in environment(pod).items() if key.startswith("BISTIL_")}
        assert {key.removeprefix("BISTIL_").lower() for key in variables} <= set(Settings.model_fields)
        for key, value in variables.items():
            monkeypatch.setenv(key, value)
        settings = Settings.read()
        assert settings.host == "0.0.0.0"
        assert settings.lang


def test_config_reaches_the_server_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    config: dict[str, Any] = {
        "max_body_bytes": 2_000_000,
        "timeout_s": 0.5,
        "docs": False,
        "tasks": ["ner", "pos"],
        "variant": "fp32",
    }
    (pod,) = server_pods(render({"config": config}))
    for key, value in environment(pod).items():
        monkeypatch.setenv(key, value)
    settings = Settings.read()
    for key, value in config.items():
        assert getattr(settings, key) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sleep", [0, 5, 20])
def test_the_grace_period_is_longer_than_sleep_and_drain(
    name: str, sleep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pod in server_pods(render({**example(name), "preStopSleepSeconds": sleep})):
        with monkeypatch.context() as context:
            for key, value in environment(pod).items():
                context.setenv(key, value)
            settings = Settings.read()
        (container,) = pod["containers"]
        slept = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert slept == sleep
        assert pod["terminationGracePeriodSeconds"] > sleep + settings.drain_delay_s + settings.drain_timeout_s


def test_a_language_of_its_own_layout_has_its_own_drain() -> None:
    servers = {item["metadata"]["name"]: item for item in of_kind(render(example("languages")), "Deployment")}
    grace = {name: item["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] for name, item in servers.items()}
    assert grace == {"demo-bistil-ha": 5 + 2 + 30 + 2, "demo-bistil-zh-hant": 5 + 2 + 60 + 2}


def fits(pod: Manifest, node: dict[str, Any]) -> bool:
    """Whether the scheduler would place the pod there, by labels, taints and extended resources."""
    wanted = pod.get("nodeSelector", {}).items() <= node["labels"].items()
    tolerated = all(
        any(
            toleration.get("key") in (None, taint["key"])
            and toleration.get("effect") in (None, taint["effect"])
            and (toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", ""))
            for toleration in pod.get("tolerations", ())
        )
        for taint in node["taints"]
    )
    asked: dict[str, int] = {}
    for container in pod["containers"]:
        for resource, quantity in container["resources"]["limits"].items():
            if "/" in resource:
                asked[resource] = asked.get(resource, 0) + quantity
    return wanted and tolerated and all(node["allocatable"].get(key, 0) >= count for key, count in asked.items())


GPU_NODE: dict[str, Any] = {
    "labels": {"nvidia.com/gpu.present": "true", "kubernetes.io/os": "linux"},
    "taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}],
    "allocatable": {"nvidia.com/gpu": 4},
}
CPU_NODE: dict[str, Any] = {"labels": {"kubernetes.io/os": "linux"}, "taints": [], "allocatable": {}}


def test_a_gpu_server_lands_on_a_gpu_node_and_asks_for_what_it_has() -> None:
    (pod,) = server_pods(render(example("gpu")))
    assert fits(pod, GPU_NODE)
    assert not fits(pod, CPU_NODE)
    assert not fits(pod, {**GPU_NODE, "allocatable": {}})
    assert pod["runtimeClassName"] == "nvidia"
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["image"].endswith("-gpu")
    assert environment(pod)["BISTIL_DEVICE"] == "cuda"


def test_a_cpu_server_stays_off_gpu_nodes() -> None:
    (pod,) = server_pods(render({}))
    assert fits(pod, CPU_NODE)
    assert not fits(pod, GPU_NODE)
    assert "BISTIL_DEVICE" not in environment(pod)


def test_a_gpu_job_lands_on_a_gpu_node() -> None:
    pod = one(render(example("distill")), "Job")["spec"]["template"]["spec"]
    assert fits(pod, GPU_NODE)
    assert not fits(pod, CPU_NODE)
    assert not fits(pod, {**GPU_NODE, "allocatable": {"nvidia.com/gpu": 3}})


@pytest.mark.parametrize("name", NAMES)
def test_services_and_all_that_select_pods_select_the_deployments(name: str) -> None:
    manifests = render(example(name))
    deployments = of_kind(manifests, "Deployment")
    for deployment in deployments:
        labels = deployment["spec"]["template"]["metadata"]["labels"].items()
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
        (constraint,) = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert constraint["labelSelector"]["matchLabels"].items() <= labels
        named = deployment["metadata"]["name"]
        for kind, place in (("Service", ("selector",)), ("PodDisruptionBudget", ("selector", "matchLabels"))):
            (item,) = [item for item in of_kind(manifests, kind) if item["metadata"]["name"] == named]
            selector = item["spec"]
            for key in place:
                selector = selector[key]
            selected = [
                other["metadata"]["name"]
                for other in deployments
                if selector.items() <= other["spec"]["template"]["metadata"]["labels"].items()
            ]
            assert selected == [named]


def test_ports_name_their_protocol() -> None:
    """Servers merge ports by it, and older ones refuse a server-side apply that leaves it out."""
    for name in NAMES:
        manifests = render(example(name))
        ports = [port for service in of_kind(manifests, "Service") for port in service["spec"]["ports"]]
        ports += [port for pod in pods(manifests) for item in pod["containers"] for port in item.get("ports", ())]
        assert ports and {port.get("protocol") for port in ports} == {"TCP"}


def test_a_labelselector_that_is_given_is_taken_as_it_is() -> None:
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    given = [
        {**spread, "labelSelector": {"matchLabels": {"team": "language"}}},
        {**spread, "labelSelector": {}},
        spread,
    ]
    deployment = one(render({"topologySpreadConstraints": given}), "Deployment")
    *taken, filled_in = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert taken == given[:2]
    assert filled_in == {**spread, "labelSelector": deployment["spec"]["selector"]}


def test_what_a_language_sets_goes_over_what_all_have_also_where_it_is_nothing() -> None:
    everywhere = {"docs": True, "drain_delay_s": 5, "usd_per_hour": 2.5, "variant": "int8", "tasks": ["ner"]}
    nothing = {"docs": False, "drain_delay_s": 0, "usd_per_hour": 0, "variant": "", "tasks": []}
    languages = {
        "ha": {"enabled": True},
        "yo": {"enabled": True, "replicas": 0, "resources": {}, "config": nothing},
    }
    common, own = of_kind(
        render({"layout": "perLanguage", "replicas": 2, "config": everywhere, "languages": languages}), "Deployment"
    )
    assert (common["spec"]["replicas"], own["spec"]["replicas"]) == (2, 0)
    said = []
    for deployment in (common, own):
        variables = environment(deployment["spec"]["template"]["spec"])
        said.append({name: variables[f"BISTIL_{name.upper()}"] for name in nothing})
    assert said == [
        {"docs": "true", "drain_delay_s": "5", "usd_per_hour": "2.5", "variant": "int8", "tasks": "ner"},
        {"docs": "false", "drain_delay_s": "0", "usd_per_hour": "0", "variant": "", "tasks": ""},
    ]
    (container,) = own["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {}


def test_all_languages_share_one_deployment() -> None:
    manifests = render({"languages": {"sw": {"enabled": True}, "yo": {"enabled": False}}})
    (pod,) = server_pods(manifests)
    assert environment(pod)["BISTIL_LANG"] == "ha,sw"


def test_each_language_gets_a_deployment_and_a_path_of_its_own() -> None:
    manifests = render(example("languages"))
    languages = [environment(pod)["BISTIL_LANG"] for pod in server_pods(manifests)]
    assert languages == ["ha", "zh-Hant"]
    (rule,) = one(manifests, "Ingress")["spec"]["rules"]
    paths = {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}
    assert paths == {"/v1/ha": "demo-bistil-ha", "/v1/zh-Hant": "demo-bistil-zh-hant"}
    assert {item["spec"]["scaleTargetRef"]["name"] for item in of_kind(manifests, "HorizontalPodAutoscaler")} == {
        item["metadata"]["name"] for item in of_kind(manifests, "Deployment")
    }


@pytest.mark.parametrize(
    ("metric", "name", "value"),
    [("queueTokens", "bistil_queue_tokens", "4096"), ("queueSeconds", "bistil_queue_seconds", "50m")],
)
def test_pods_scale_on_their_queue(metric: str, name: str, value: str) -> None:
    manifests = render({"autoscaling": {"enabled": True, "metric": metric}})
    (scaled,) = one(manifests, "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert scaled["pods"] == {"metric": {"name": name}, "target": {"type": "AverageValue", "averageValue": value}}
    assert "replicas" not in one(manifests, "Deployment")["spec"]


def policy_of(name: str, values: dict[str, Any]) -> Manifest:
    """The spec of the NetworkPolicy of that name."""
    found = [item for item in of_kind(render(values), "NetworkPolicy") if item["metadata"]["name"] == name]
    return found[0]["spec"]  # type: ignore[no-any-return]


def test_nothing_leaves_the_pods_unless_the_store_is_remote() -> None:
    policy = policy_of("demo-bistil", {})
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    remote = policy_of("demo-bistil", example("object-store"))["egress"]
    assert sorted((port["port"], port["protocol"]) for rule in remote for port in rule["ports"]) == [
        (53, "TCP"),
        (53, "UDP"),
        (443, "TCP"),
    ]


def test_the_helm_test_may_come_in_where_others_may_not() -> None:
    manifests = render(example("languages"))
    (rule,) = policy_of("demo-bistil", example("languages"))["ingress"]
    labels = one(manifests, "Pod")["metadata"]["labels"].items()
    allowed = [peer["podSelector"]["matchLabels"].items() <= labels for peer in rule["from"] if "podSelector" in peer]
    assert allowed == [True]


def test_keys_are_read_from_the_secrets_volume() -> None:
    (pod,) = server_pods(render(example("object-store")))
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    (item,) = volumes["keys"]["secret"]["items"]
    assert environment(pod)["BISTIL_KEYS_FILE"] == f"{mounts['keys']['mountPath']}/{item['path']}"
    assert mounts["keys"]["readOnly"] is True
    assert volumes["keys"]["secret"]["secretName"] == "api-keys"


@pytest.mark.parametrize(
    ("url", "offline_server", "offline_job"), [("s3://a/b", None, "1"), ("hf://models/a/b", "0", "0")]
)
def test_only_a_store_on_the_hub_makes_the_hub_known(url: str, offline_server: str | None, offline_job: str) -> None:
    distill = {"enabled": True, "languages": ["sw"], "dataClaim": "corpora"}
    manifests = render({"modelStore": {"url": url}, "distill": distill})
    (pod,) = server_pods(manifests)
    assert environment(pod)["BISTIL_STORE"] == url
    assert environment(pod).get("HF_HUB_OFFLINE") == offline_server
    job = one(manifests, "Job")["spec"]["template"]["spec"]
    assert environment(job)["HF_HUB_OFFLINE"] == offline_job


def test_env_goes_over_each_variable_and_says_it_once() -> None:
    values = {**example("distill"), "apiKeys": {"existingSecret": "keys"}, "gpu": {"enabled": True}}
    manifests = render(values)
    before = [environment(pod) for pod in (*server_pods(manifests), one(manifests, "Job")["spec"]["template"]["spec"])]
    own = {name: "" if name.startswith("HF_") else "own" for variables in before for name in variables}
    assert {"BISTIL_STORE", "BISTIL_DEVICE", "HF_HOME", "HF_HUB_OFFLINE", "LANGUAGES"} <= set(own)
    manifests = render({**values, "env": own})
    after = [environment(pod) for pod in (*server_pods(manifests), one(manifests, "Job")["spec"]["template"]["spec"])]
    assert after == [own, own]


def test_a_claim_outlives_the_release_and_servers_only_read_it() -> None:
    manifests = render({"modelStore": {"create": True}})
    claim = one(manifests, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    (pod,) = server_pods(manifests)
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts["store"]["mountPath"] == environment(pod)["BISTIL_STORE"]
    assert mounts["store"]["readOnly"] is True
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["store"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_names_of_two_releases_differ() -> None:
    first, second = ({(i["kind"], i["metadata"]["name"]) for i in render({}, release=name)} for name in ("a", "b"))
    assert not first & second

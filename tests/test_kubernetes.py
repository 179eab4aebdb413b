"""What kubectl builds of deploy/kubernetes is valid, locked down, isolated, and matches the program."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import msgspec
import pytest
import yaml
from conftest import missing
from feeding import REPOSITORY
from foreign_kinds import FOREIGN
from manifests import ELSEWHERE, KUBERNETES, Objects, built, fenced, kubectl, leaves
from prometheus_client.registry import Collector

import maskwatch
from pipeline.runtime import metrics, metrics_server
from pipeline.runtime.watchdog import STUCK_S

EVERYTHING = "overlays/gpu"  # has an object of each kind that any of them has
CLUSTER = "overlays/redis-cluster"
FOLDERS = ["base", "overlays/cluster", EVERYTHING, CLUSTER, "examples/door-camera"]
VERSIONS = ["1.27", kubernetes_validate.latest_version()]
README = (KUBERNETES / "README.md").read_text()
OURS = ("maskwatch", "maskwatch-train", "maskwatch-gpu", "maskwatch-train-gpu")
WORKERS = ("camera", "detector", "classifier", "viewer", "recorder")
LIVENESS = KUBERNETES / "base" / "liveness.py"
TOKEN = "only-probes-know-this-one"  # noqa: S105 -- it opens nothing but these tests


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", [EVERYTHING, CLUSTER, "examples/door-camera"])
def test_every_object_is_as_kubernetes_own_schemas_say(folder: str, version: str) -> None:
    objects = [one for one in built(folder).all if one["kind"] not in FOREIGN]

    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)

    assert objects


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_not_kubernetes_own_has_the_fields_that_its_makers_document(folder: str) -> None:
    for kind, shape in FOREIGN.items():
        for one in built(folder).of(kind):
            msgspec.convert(one["spec"], shape, strict=True)

            assert set(one) == {"apiVersion", "kind", "metadata", "spec"}


def test_how_fast_it_scales_is_as_kubernetes_own_schema_says() -> None:
    for one in built(EVERYTHING).of("ScaledObject"):
        spec = {
            "scaleTargetRef": {"kind": "Deployment", "name": one["spec"]["scaleTargetRef"]["name"]},
            "maxReplicas": one["spec"]["maxReplicaCount"],
            "behavior": one["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
        }
        scaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {}, "spec": spec}

        assert kubernetes_validate.validate(scaler, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_pod_may_do_more_than_it_must(folder: str) -> None:
    for workload in built(folder).workloads():
        pod = workload["spec"]["template"]["spec"]

        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert 5 <= pod["terminationGracePeriodSeconds"] <= 10
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & set(pod)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_container_is_locked_and_limited(folder: str) -> None:
    for name, container in built(folder).containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert set(container["resources"]["requests"]) >= {"cpu", "memory"}, name
        assert "memory" in container["resources"]["limits"], name


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_process_has_its_three_probes(folder: str) -> None:
    for workload in built(folder).workloads():
        for container in workload["spec"]["template"]["spec"]["containers"]:
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), container["name"]


@pytest.mark.parametrize("folder", [EVERYTHING, CLUSTER])
def test_what_redis_writes_and_what_is_temporary_stays_in_memory(folder: str) -> None:
    for workload in built(folder).workloads():
        mounted = {mount["mountPath"]: mount["name"] for _, one in mounts(workload) for mount in one}
        volumes = {volume["name"]: volume for volume in workload["spec"]["template"]["spec"]["volumes"]}

        assert volumes[mounted["/tmp"]]["emptyDir"]["medium"] == "Memory"  # noqa: S108 -- the pod's
        assert all(one["emptyDir"]["medium"] == "Memory" for one in volumes.values() if "emptyDir" in one)
        assert not any("hostPath" in one for one in volumes.values())
        if workload["metadata"]["name"] == "redis":
            assert "emptyDir" in volumes[mounted["/data"]]


def test_every_volume_that_is_mounted_is_there() -> None:
    objects = built(EVERYTHING)
    claims = {one["metadata"]["name"] for one in objects.of("PersistentVolumeClaim")}
    settings = {one["metadata"]["name"]: one["data"] for one in objects.of("ConfigMap")}

    for workload in objects.workloads():
        volumes = {volume["name"]: volume for volume in workload["spec"]["template"]["spec"]["volumes"]}
        made = {one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", [])}
        wanted = {mount["name"] for _, one in mounts(workload) for mount in one}

        assert wanted == set(volumes) | made
        assert {
            one["persistentVolumeClaim"]["claimName"] for one in volumes.values() if "persistentVolumeClaim" in one
        } <= claims
        assert {one["configMap"]["name"] for one in volumes.values() if "configMap" in one} <= set(settings)


@pytest.mark.parametrize("name", ["detector", "classifier"])
def test_workers_use_the_registry_that_they_mount_and_cannot_write_it(name: str) -> None:
    (workload,) = [one for one in built(EVERYTHING).workloads() if one["metadata"]["name"] == name]
    pod = workload["spec"]["template"]["spec"]

    (container,) = pod["containers"]
    assert {"name": "MASKWATCH_MODELS", "value": "/models"} in container["env"]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in container["volumeMounts"]
    claim = {"claimName": "models", "readOnly": True}
    assert {"name": "models", "persistentVolumeClaim": claim} in pod["volumes"]


def test_redis_and_probes_start_from_files_that_are_mounted() -> None:
    objects = built(EVERYTHING)
    files = {name for one in objects.of("ConfigMap") for name in one["data"]}
    commands = [
        one.get("command", []) + one.get("livenessProbe", {}).get("exec", {}).get("command", [])
        for _, one in objects.containers()
    ]

    named = {
        Path(word).name for command in commands for word in command if word.startswith(("/etc/maskwatch/", "/probes/"))
    }

    assert named == {"start.sh", "redis.conf", "users.acl.template", "jobs.conf", "jobs.acl.template", "liveness.py"}
    of_clusters, of_pictures = {"join.sh", "cluster.conf", "replica.acl.template"}, {"labeller.acl.template"}
    assert files == named | of_clusters | of_pictures, "start.sh reads these, too"


def test_classifiers_and_trainer_on_gpus_have_one_each_and_the_image_for_it() -> None:
    objects = built("overlays/gpu")

    for name, container in objects.containers():
        on_gpu = name in ("classifier", "trainer")
        waits = container["name"] == "registry"  # what prepares a pod works on files alone
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (on_gpu and not waits)
        assert (container["image"] == "maskwatch-train-gpu") == (name == "trainer")
        assert (container["image"] == "maskwatch-gpu") == (name == "classifier" and not waits)
    classifier, detector = (
        objects.named("Deployment", name)["spec"]["template"]["spec"]["volumes"] for name in ("classifier", "detector")
    )
    assert [one for one in classifier if one["name"] == "tmp"] == [one for one in detector if one["name"] == "tmp"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_setting_is_one_that_the_command_reads(folder: str) -> None:
    for name, container in built(folder).containers():
        if container["image"] not in OURS or "args" not in container:
            continue
        command = maskwatch.cli.commands[container["args"][0]]
        read = {variable for one in command.params for variable in envvars(one)}
        given = {one["name"] for one in container["env"] if one["name"].startswith("MASKWATCH_")}

        assert given - read == set(), name


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_process_gets_its_own_password_and_no_other(folder: str) -> None:
    allowed = {role: {f"REDIS_{role.upper()}_PASSWORD", "MASKWATCH_METRICS_TOKEN"} for role in WORKERS}
    allowed["viewer"] |= {"MASKWATCH_PASSWORD_HASH", "MASKWATCH_SESSION_KEY"}
    allowed["trainer"] = {"JOBS_PASSWORD", "MASKWATCH_METRICS_TOKEN"}

    for _, container in built(folder).containers():
        secrets = {key for name, key in secret_keys(container) if name == "maskwatch"}
        if container["name"] in allowed:
            assert secrets == allowed[container["name"]]
        for variable, value in values(container).items():
            for used in re.findall(r"\$\((\w+)\)", value or ""):
                before = [one["name"] for one in container["env"]]
                assert before.index(used) < before.index(variable), "Kubernetes fills in what was named before"


def test_the_documented_command_makes_a_secret_with_every_key_that_is_asked_for(tmp_path: Path) -> None:
    subprocess.run([sys.executable, REPOSITORY / "scripts" / "make_env.py", tmp_path / ".env"], check=True)
    command = documented(r"grep -E '\^\(REDIS.*?-o yaml")
    objects = built(EVERYTHING)
    asked = {
        key for _, container in objects.containers() for name, key in secret_keys(container) if name == "maskwatch"
    }
    asked |= {
        end["authorization"]["credentials"]["key"]
        for one in objects.of("PodMonitor")
        for end in one["spec"]["podMetricsEndpoints"]
    }

    secret = yaml.safe_load(said(command, tmp_path))

    kubernetes_validate.validate(secret, VERSIONS[-1], strict=True)
    assert (secret["kind"], secret["metadata"]["name"], secret["metadata"]["namespace"]) == (
        "Secret",
        "maskwatch",
        "maskwatch",
    )
    assert set(secret["data"]) >= asked
    assert not {"VIEWER_PASSWORD", "GRAFANA_PASSWORD"} & set(secret["data"]), "no pod needs what a person types"


def test_the_documented_command_makes_rules_of_the_alerts() -> None:
    command = documented(r"\{ printf 'apiVersion: monitoring.*?alerts\.yml; \}")

    rules = yaml.safe_load(said(command, REPOSITORY))

    assert (rules["apiVersion"], rules["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rules["spec"] == yaml.safe_load((REPOSITORY / "deploy" / "monitoring" / "alerts.yml").read_text())


def test_the_documented_overlay_takes_other_images_and_another_camera(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "deploy", tmp_path / "deploy")
    overlay = next(text for text in yaml_blocks() if "kind: Kustomization" in text)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(overlay)

    objects = built(str(tmp_path / "mine"))

    images = {container["image"] for _, container in objects.containers()}
    assert images == {"images.example.org/maskwatch:1.0", "images.example.org/maskwatch-train:1.0", "redis:7-bookworm"}
    assert {"camera", "camera-door"} <= {one["metadata"]["name"] for one in objects.of("Deployment")}
    assert len(objects.selected(objects.named("Deployment", "camera")["spec"]["selector"])) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_the_documented_ingress_leads_to_the_viewer_with_tls(tmp_path: Path, version: str) -> None:
    shutil.copytree(REPOSITORY / "deploy", tmp_path / "deploy")
    overlay = "".join(text for text in yaml_blocks() if "kind: Kustomization" in text or "kind: Ingress" in text)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(overlay)

    objects = built(str(tmp_path / "mine"))
    service = objects.named("Service", "viewer")

    assert {one["metadata"]["name"] for one in objects.of("Ingress")} == {"viewer", "viewer-label", "viewer-rules"}
    for ingress in objects.of("Ingress"):
        kubernetes_validate.validate(ingress, version, strict=True)
        (rule,), (tls,) = ingress["spec"]["rules"], ingress["spec"]["tls"]
        backend = rule["http"]["paths"][0]["backend"]["service"]
        assert backend == {"name": service["metadata"]["name"], "port": {"name": service["spec"]["ports"][0]["name"]}}
        assert rule["host"] == tls["hosts"][0] == "cameras.example.org"
        assert f"secret tls {tls['secretName']} " in README
        assert ingress["metadata"]["namespace"] == service["metadata"]["namespace"]
        assert (f"ingress-{ingress['spec']['ingressClassName']}", "viewer", 8000) in leaves(objects)


def test_the_ingress_passes_large_bodies_on_the_paths_that_take_them_and_no_picture_to_a_disk() -> None:
    file = REPOSITORY / "deploy" / "kubernetes" / "components" / "ingress" / "ingress.yaml"
    found = {}
    for ingress in yaml.safe_load_all(file.read_text()):
        (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
        options = {name.rpartition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
        found[path["path"], path["pathType"]] = (options["proxy-body-size"], options["proxy-request-buffering"])

    assert found == {
        ("/", "Prefix"): ("4k", "on"),
        ("/api/v1/label", "Exact"): ("20m", "off"),
        ("/api/v1/rules", "Exact"): ("256k", "on"),
    }


def test_pictures_are_labelled_with_a_user_and_tokens_from_secrets(tmp_path: Path) -> None:
    parts = {"resources": ["../deploy/kubernetes/base"], "components": ["../deploy/kubernetes/components/labels"]}
    shutil.copytree(REPOSITORY / "deploy", tmp_path / "deploy")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(yaml.safe_dump(parts))

    objects = built(str(tmp_path / "mine"))

    variables = {
        name: {one["name"]: one for one in container["env"]}
        for name, container in objects.containers()
        if name in ("redis", "viewer") and "env" in container
    }
    of_secret = {"secretKeyRef": {"name": "maskwatch", "key": "REDIS_LABELLER_PASSWORD"}}
    pod = objects.named("Deployment", "viewer")["spec"]["template"]["spec"]
    (tokens,) = (one["secret"] for one in pod["volumes"] if one["name"] == "tokens")
    assert {name: one["REDIS_LABELLER_PASSWORD"]["valueFrom"] for name, one in variables.items()} == {
        "redis": of_secret,
        "viewer": of_secret,
    }
    assert variables["viewer"]["MASKWATCH_LABEL_REDIS"]["value"].startswith(
        "redis://labeller:$(REDIS_LABELLER_PASSWORD)@"
    )
    assert variables["viewer"]["MASKWATCH_TOKENS"]["value"] == "/tokens/tokens.json"
    assert tokens == {"secretName": "maskwatch-tokens", "defaultMode": 0o440}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_selector_finds_its_pods(folder: str) -> None:
    objects = built(folder)

    for workload in objects.workloads():
        assert objects.selected(workload["spec"]["selector"]) == [workload["metadata"]["name"]]
        for spread in workload["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            assert objects.selected(spread["labelSelector"]) == [workload["metadata"]["name"]]
    for service in objects.of("Service"):
        assert objects.selected({"matchLabels": service["spec"]["selector"]}) == [service["metadata"]["name"]]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named_ports(
            objects, service["metadata"]["name"]
        )
    for budget in objects.of("PodDisruptionBudget"):
        (kept,) = objects.selected(budget["spec"]["selector"])
        (workload,) = (one for one in objects.workloads() if one["metadata"]["name"] == kept)
        assert workload["spec"].get("replicas", 2) > budget["spec"]["minAvailable"]
    for scaled in objects.of("ScaledObject"):
        target = objects.named("Deployment", scaled["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in target["spec"], "it would be set anew by each apply"
    for monitor in objects.of("PodMonitor"):
        for name in objects.selected(monitor["spec"]["selector"]):
            assert {end["port"] for end in monitor["spec"]["podMetricsEndpoints"]} <= named_ports(objects, name)


def test_every_pod_is_asked_for_its_metrics_once() -> None:
    objects = built(EVERYTHING)

    asked = [name for one in objects.of("PodMonitor") for name in objects.selected(one["spec"]["selector"])]

    assert sorted(asked) == ["camera", "classifier", "detector", "recorder", "trainer", "viewer"]


def test_policies_let_through_what_each_role_needs_and_nothing_else() -> None:
    objects = built(EVERYTHING)
    roles = {workload["metadata"]["name"] for workload in objects.workloads()}

    let_through = leaves(objects)

    assert fenced(objects) == roles
    assert let_through == (
        {(role, "redis", 6379) for role in WORKERS}
        | {("trainer", "redis-jobs", 6379)}
        | {(role, "kube-system", 53) for role in (*WORKERS, "trainer")}
        | {("camera", ELSEWHERE, port) for port in (80, 443, 554, 8080, 8554)}
        | {("trainer", ELSEWHERE, 443)}
        | {("recorder", ELSEWHERE, port) for port in (443, 465, 587, 8883)}
        | {("ingress-nginx", "viewer", 8000)}
        | {("monitoring", role, 9400) for role in ("camera", "detector", "classifier", "recorder", "trainer")}
        | {("monitoring", "viewer", 8000)}
    )


def test_the_nodes_of_a_redis_cluster_reach_each_other_and_nobody_else_reaches_their_bus() -> None:
    objects = built(CLUSTER)

    let_through = leaves(objects)

    assert let_through - leaves(built("base")) == {
        ("redis", "redis", 6379),
        ("redis", "redis", 16379),
        ("redis", "kube-system", 53),
    }
    assert leaves(built("base")) - let_through == set()
    assert {6379, 16379} <= open_ports(objects, "redis")


def test_a_redis_cluster_has_the_nodes_that_it_and_all_programs_name(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "deploy", tmp_path / "deploy")
    folders = ["../deploy/kubernetes/base", "../deploy/kubernetes/examples/door-camera"]
    parts = {"resources": folders, "components": ["../deploy/kubernetes/components/redis-cluster"]}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(yaml.safe_dump(parts))

    objects = built(str(tmp_path / "mine"))

    nodes, service = objects.named("StatefulSet", "redis"), objects.named("Service", "redis")
    names = [f"redis-{number}.{nodes['spec']['serviceName']}" for number in range(nodes["spec"]["replicas"])]
    (node,) = nodes["spec"]["template"]["spec"]["containers"]
    assert values(node)["REDIS_NODES"] == " ".join(names)
    assert len(names) == 6
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
    assert [one["metadata"]["name"] for one in objects.of("Deployment") if one["metadata"]["name"] == "redis"] == []
    programs = [container for _, container in objects.containers() if container["name"] in WORKERS]
    assert len(programs) == len(WORKERS) + 1
    for program in programs:
        role = program["name"]
        hosts = ",".join(f"{name}:6379" for name in names)
        assert values(program)["MASKWATCH_REDIS_URL"] == (
            f"redis-cluster://{role}:$(REDIS_{role.upper()}_PASSWORD)@{hosts}/0"
        )
        assert values(program)["MASKWATCH_SHARDS"] == "3"


def test_each_stage_of_an_image_that_pods_use_is_in_the_dockerfile() -> None:
    stages = set(re.findall(r"^FROM .* AS ([\w-]+)$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE))
    images = {container["image"] for folder in FOLDERS for _, container in built(folder).containers()}

    ours = {image.removeprefix("maskwatch-") if image != "maskwatch" else "run" for image in images & set(OURS)}

    assert ours <= stages
    assert images - set(OURS) == set(re.findall(r"image: (redis:\S+)", (REPOSITORY / "docker-compose.yml").read_text()))


def test_policies_name_ports_that_the_containers_have() -> None:
    objects = built(EVERYTHING)
    ours = {
        workload["metadata"]["name"]: open_ports(objects, workload["metadata"]["name"])
        for workload in objects.workloads()
    }

    for _, to, port in leaves(objects):
        if to in ours:
            assert port in ours[to]


def test_no_pod_reaches_the_address_where_clouds_tell_secrets() -> None:
    for policy in built(EVERYTHING).of("NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            for block in (one["ipBlock"] for one in rule["to"] if "ipBlock" in one):
                metadata = {"0.0.0.0/0": "169.254.0.0/16", "::/0": "fd00:ec2::254/128"}[block["cidr"]]
                assert metadata in block["except"]


def test_scaling_asks_for_metrics_and_labels_that_processes_tell() -> None:
    told = {family.name + "_total" for metric in (metrics.busy, metrics.settled) for family in collected(metric)}

    for one in built(EVERYTHING).of("ScaledObject"):
        role = one["spec"]["scaleTargetRef"]["name"]
        (stream,) = {"detector": ["frames"], "classifier": ["faces"]}[role]
        for trigger in one["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            assert set(re.findall(r"maskwatch_\w+", query)) <= told
            assert set(re.findall(r'role="(\w+)"', query)) <= {role}
            assert set(re.findall(r'stream="(\w+)"', query)) <= {stream}
            outcomes = {name for found in re.findall(r'outcome=~"([^"]+)"', query) for name in found.split("|")}
            assert outcomes <= set(metrics.OUTCOMES[stream])
            assert set(re.findall(r'namespace="([^"]+)"', query)) == {one["metadata"]["namespace"]}


def test_scaling_queries_answer_as_prometheus_understands_them(tmp_path: Path) -> None:
    promtool = shutil.which("promtool") or missing("there is no promtool on this machine: Debian's package prometheus")
    triggers = {
        one["name"]: one["metadata"]["query"]
        for one in built("overlays/cluster").named("ScaledObject", "detector")["spec"]["triggers"]
    }
    busy, dropped = triggers["busy"], triggers["dropped"]

    def series(name: str, labels: str, a_minute: int) -> dict[str, str]:
        return {"series": f'{name}{{namespace="maskwatch", {labels}}}', "values": f"0+{a_minute / 12:g}x60"}

    def told(pod: str, stale: int, forwarded: int) -> list[dict[str, str]]:
        return [
            series("maskwatch_settled_total", f'pod="{pod}", stream="frames", outcome="{outcome}"', count)
            for outcome, count in (("stale", stale), ("expired", 0), ("forwarded", forwarded))
        ]

    def world(given: list[dict[str, str]], *expected: tuple[str, float | None]) -> dict[str, Any]:
        samples = [
            {
                "expr": query,
                "eval_time": "4m",
                "exp_samples": [] if value is None else [{"labels": "{}", "value": value}],
            }
            for query, value in expected
        ]
        return {"interval": "5s", "input_series": given, "promql_expr_test": samples}

    working = [series("maskwatch_busy_seconds_total", f'pod="{pod}", role="detector"', 45) for pod in "ab"]
    others = [series("maskwatch_busy_seconds_total", 'pod="c", role="classifier"', 60)]
    worlds = [
        world(working + others + told("a", 120, 480) + told("b", 0, 600), (busy, 1.5), (dropped, 0.1)),
        world(working + told("a", 0, 0) + told("b", 0, 0), (dropped, 0)),
        world(others, (busy, None), (dropped, 0)),
    ]
    (tmp_path / "worlds.yml").write_text(yaml.safe_dump({"rule_files": [], "tests": worlds}))

    tested = subprocess.run([str(promtool), "test", "rules", tmp_path / "worlds.yml"], capture_output=True, text=True)

    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize(
    ("age_s", "shown", "status"),
    [(0.0, TOKEN, 0), (STUCK_S, TOKEN, 0), (STUCK_S + 1, TOKEN, 1), (0.0, "another-token", 1)],
    ids=["turns", "slow", "stuck", "stranger"],
)
def test_the_liveness_probe_tells_whether_the_loop_turns(age_s: float, shown: str, status: int) -> None:
    metrics.register_metrics("detector")
    metrics.loop_age_s.set(age_s)

    with metrics_server.serve_metrics(0, TOKEN) as port:
        probe = probed(port, shown)

    assert probe.returncode == status, probe.stdout + probe.stderr
    assert len(probe.stdout.splitlines()) == 1


def test_the_liveness_probe_fails_where_nobody_listens() -> None:
    with metrics_server.serve_metrics(0, TOKEN) as port:
        pass

    probe = probed(port, TOKEN)

    assert (probe.returncode, probe.stderr) == (1, "")


def probed(port: int, token: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, LIVENESS, str(port)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MASKWATCH_METRICS_TOKEN": token})


def mounts(workload: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    pod = workload["spec"]["template"]["spec"]
    return [(one["name"], one["volumeMounts"]) for one in pod["containers"] + pod.get("initContainers", [])]


def secret_keys(container: dict[str, Any]) -> set[tuple[str, str]]:
    found = [one["valueFrom"]["secretKeyRef"] for one in container.get("env", []) if "valueFrom" in one]
    return {(one["name"], one["key"]) for one in found}


def values(container: dict[str, Any]) -> dict[str, str | None]:
    return {one["name"]: one.get("value") for one in container.get("env", [])}


def envvars(parameter: Any) -> list[str]:
    return [parameter.envvar] if isinstance(parameter.envvar, str) else list(parameter.envvar or [])


def named_ports(objects: Objects, workload: str) -> set[str]:
    return {port["name"] for name, one in objects.containers() if name == workload for port in one.get("ports", [])}


def open_ports(objects: Objects, workload: str) -> set[int]:
    return {
        port["containerPort"] for name, one in objects.containers() if name == workload for port in one.get("ports", [])
    }


def collected(collector: Collector) -> list[Any]:
    return list(collector.collect())


def documented(pattern: str) -> str:
    """Return a command of the README."""
    found = re.search(pattern, README, re.DOTALL)
    assert found, pattern
    return found[0]


def said(command: str, folder: Path) -> str:
    """Return what a shell command prints, with the tests' kubectl."""
    path = f"{Path(kubectl()).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        check=True,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PATH": path},
    ).stdout


def yaml_blocks() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)

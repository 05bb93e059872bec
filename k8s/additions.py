"""What a cluster needs and Jina's exporter leaves out, as plain manifests (dicts)."""

from typing import Any

Manifest = dict[str, Any]

NAMESPACE = "attune"
DATA = "/data"
EXECUTOR_PORT, MONITORING_PORT = 8080, 9090  # Jina's own choice for every exported pod
PROMETHEUS_NAMESPACE = "monitoring"
CLIENT_LABEL = {"attune-client": "true"}
USER_ID = 1000  # `attune` in the Dockerfile

ENVIRONMENT = {
    "ATTUNE_HOME": DATA,
    "ATTUNE_HOST": "0.0.0.0",  # of the gateway, in its pod
    "ATTUNE_TOKENS": f"{DATA}/tokens.json",  # named, so that nobody gets in before there is one
    "HF_HOME": f"{DATA}/huggingface",
    "JINA_OPTOUT_TELEMETRY": "1",
}
SMALL = {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"cpu": "2", "memory": "4Gi"}}
LARGE = {"requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"cpu": "8", "memory": "32Gi"}}
RESOURCES = {
    "data-validator": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "4", "memory": "8Gi"}},
    "trainer": LARGE,
    "evaluator": LARGE,
    "exporter": {"requests": {"cpu": "500m", "memory": "4Gi"}, "limits": {"cpu": "4", "memory": "16Gi"}},
    "encoder": {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"cpu": "4", "memory": "16Gi"}},
    "indexer": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "4", "memory": "8Gi"}},
}
ON_GPU = {"trainer", "evaluator", "encoder"}
SHARED_MEMORY = {"trainer": "2Gi"}  # several GPUs exchange gradients through /dev/shm; 64 MB by default
GRACE_SECONDS = {"trainer": 120}  # to end its training processes when the pod is asked to stop
DEFAULT_GRACE_SECONDS = 30


def labels(flow: str, app: str, component: str) -> dict[str, str]:
    """Labels by which a Flow's objects are found, `component` being `gateway` or `executor`."""
    return {
        "app": app,
        "app.kubernetes.io/part-of": "attune",
        "app.kubernetes.io/instance": flow,
        "app.kubernetes.io/component": component,
    }


def namespace() -> Manifest:
    """The namespace of both Flows: they share it as they share the volume."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def volume_claim(storage_class: str | None) -> Manifest:
    """The volume of every pod; ReadWriteMany because pods of one run may be on different nodes."""
    spec: dict[str, Any] = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "100Gi"}}}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "attune", "namespace": NAMESPACE},
        "spec": spec,
    }


def pod_settings(app: str) -> dict[str, Any]:
    """Everything of a pod's spec beside its containers."""
    volumes: list[dict[str, Any]] = [{"name": "data", "persistentVolumeClaim": {"claimName": "attune"}}]
    if app in SHARED_MEMORY:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY[app]}})
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS.get(app, DEFAULT_GRACE_SECONDS),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",  # a large volume is not walked at every start
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": volumes,
    }


def container_settings(app: str, port: int, gpus: int) -> dict[str, Any]:
    """What a container needs beside its image, command and arguments; `port` speaks gRPC."""
    mounts = [{"name": "data", "mountPath": DATA}]
    if app in SHARED_MEMORY:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    return {
        "resources": resources(app, gpus),
        "volumeMounts": mounts,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        # Jina's own `jina ping` imports all of Jina each time: 1.5 to 2 s of CPU, in every pod, every 5 s.
        "startupProbe": _probe(port, period_seconds=5, failures=120),  # 10 minutes, to load a model
        "readinessProbe": _probe(port, period_seconds=10, failures=3),
        "livenessProbe": _probe(port, period_seconds=20, failures=6),
    }


def resources(app: str, gpus: int) -> dict[str, dict[str, Any]]:
    """Requests and limits of a container; `gpus` counts only where one is used."""
    found = RESOURCES.get(app, SMALL)
    limits: dict[str, Any] = dict(found["limits"])
    if gpus and app in ON_GPU:
        limits["nvidia.com/gpu"] = gpus
    return {"requests": dict(found["requests"]), "limits": limits}


def network_policies(flow: str, gateway: str, ports: list[int]) -> list[Manifest]:
    """Who may open connections: to executors only the gateway, to the gateway only run_manager and labelled pods.

    Executors have no authentication of their own. A kubelet's probes and `kubectl port-forward` are not pods' traffic
    and pass. Outgoing connections are free, because models are fetched by name.
    """
    clients = [_pods({"app": "run-manager"}), _pods(CLIENT_LABEL)]
    return [
        _policy(f"{flow}-executors", flow, "executor", [_pods({"app": gateway})], [EXECUTOR_PORT]),
        _policy(f"{flow}-gateway", flow, "gateway", clients if flow == "finetune" else clients[1:], ports),
    ]


def _policy(name: str, flow: str, component: str, callers: list[dict[str, Any]], ports: list[int]) -> Manifest:
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": PROMETHEUS_NAMESPACE}}}
    selected = {"app.kubernetes.io/instance": flow, "app.kubernetes.io/component": component}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "podSelector": {"matchLabels": selected},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": callers, "ports": [{"protocol": "TCP", "port": port} for port in ports]},
                {"from": [prometheus], "ports": [{"protocol": "TCP", "port": MONITORING_PORT}]},
            ],
        },
    }


def _pods(match: dict[str, str]) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": dict(match)}}


def _probe(port: int, period_seconds: int, failures: int) -> dict[str, Any]:
    return {
        "grpc": {"port": port},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }

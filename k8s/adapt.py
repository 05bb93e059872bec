"""Fits what Jina's exporter writes to Attune's image, ports and names."""

from dataclasses import dataclass
from typing import Any

from k8s.additions import (
    ENVIRONMENT,
    EXECUTOR_PORT,
    MONITORING_PORT,
    Manifest,
    container_settings,
    labels,
    pod_settings,
)


@dataclass(frozen=True)
class App:
    """One Deployment with its Service, as it is to be."""

    name: str
    uses: str  # class, which the image has installed
    ports: dict[str, int]  # protocol -> port; the first is gRPC
    labels: dict[str, str]


def adapt(manifests: list[Manifest], flow: dict[str, Any], name: str, gateway: str, gpus: int) -> dict[str, list[Manifest]]:
    """The manifests of each app, ready to apply.

    Args:
        manifests: what Jina's exporter wrote.
        flow: the Flow file's content.
        name: the Flow's name, `finetune` or `search`.
        gateway: what the Flow's gateway is to be called.
        gpus: GPUs of each pod that uses one.
    """
    apps = _apps(flow, name, gateway)
    adapters = {"Service": _adapt_service, "Deployment": _adapt_deployment, "ServiceMonitor": _adapt_monitor}
    found: dict[str, list[Manifest]] = {}
    for manifest in manifests:
        # Others are left out: a ConfigMap with nothing that is used, a Service of its own for the gateway's HTTP port.
        app = apps.get(manifest["metadata"]["name"])
        if app is not None and manifest["kind"] in adapters:
            manifest["metadata"] |= {"name": app.name, "labels": app.labels}
            adapters[manifest["kind"]](manifest["spec"], app)
            if manifest["kind"] == "Deployment":
                manifest["spec"]["template"]["spec"] |= pod_settings(app.name)
                _adapt_container(manifest["spec"]["template"]["spec"]["containers"][0], app, gpus)
            found.setdefault(app.name, []).append(manifest)
    return found


def _apps(flow: dict[str, Any], name: str, gateway: str) -> dict[str, App]:
    """The apps by the names that Jina gives them."""
    part = flow["gateway"]
    ports = dict(zip(part["protocol"], part["port"], strict=True))
    apps = {"gateway": App(gateway, part["uses"], ports, labels(name, gateway, "gateway"))}
    for part in flow["executors"]:
        app = part["name"].replace("_", "-")
        apps[app] = App(app, part["uses"], {"grpc": EXECUTOR_PORT}, labels(name, app, "executor"))
    return apps


def _adapt_service(spec: dict[str, Any], app: App) -> None:
    spec["ports"] = [
        {"name": name, "port": port, "protocol": "TCP", "targetPort": port}
        for name, port in {**app.ports, "monitoring": MONITORING_PORT}.items()
    ]
    spec["selector"] = {"app": app.name}


def _adapt_monitor(spec: dict[str, Any], app: App) -> None:
    spec["selector"] = {"matchLabels": {"app": app.name}}


def _adapt_deployment(spec: dict[str, Any], app: App) -> None:
    spec["selector"] = {"matchLabels": {"app": app.name}}
    # Jina starts the new pod beside the old one: it would wait for a GPU that the old one holds, and for a while two
    # run managers would drive the same runs.
    spec["strategy"] = {"type": "Recreate"}
    # Jina's own labels and the annotation for the linkerd mesh are dropped: nothing here reads them.
    spec["template"]["metadata"] = {"labels": app.labels}


def _adapt_container(container: dict[str, Any], app: App, gpus: int) -> None:
    container["args"] = _with_values(
        container["args"],
        {"--uses": [app.uses], "--port": [str(port) for port in app.ports.values()]},
    )
    del container["envFrom"]
    container["env"] += [{"name": name, "value": value} for name, value in ENVIRONMENT.items()]
    container["ports"] = [
        {"name": name, "containerPort": port} for name, port in {**app.ports, "monitoring": MONITORING_PORT}.items()
    ]
    container |= container_settings(app.name, app.ports["grpc"], gpus)


def _with_values(arguments: list[str], values: dict[str, list[str]]) -> list[str]:
    """The arguments of a command line, with the values of some options replaced.

    Example: `--uses config.yml --port 1 2 --native` with `{"--port": ["3"]}` is `--uses config.yml --port 3 --native`.
    """
    result: list[str] = []
    option = ""
    for argument in arguments:
        if argument.startswith("--"):
            option = argument
            result += [argument, *values.get(option, [])]
        elif option not in values:
            result.append(argument)
    return result

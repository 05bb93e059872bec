import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES_VERSION = "1.32"
FLOWS = ("finetune", "search")
ON_GPU = {"trainer", "evaluator", "encoder"}
MANIFESTS = sorted(path for flow in FLOWS for path in (ROOT / "k8s" / flow).glob("*.yml"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")

# Any connection or look-up ends the process with an error.
OFFLINE = """
import sys
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise SystemExit(f"went online: {event} {args}")
sys.addaudithook(refuse)
from k8s.export import main
main()
"""


def load(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def flow_of(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "flows" / f"{name}.yml").read_text(encoding="utf-8"))


def of_kind(flow: str, kind: str) -> dict[str, dict[str, Any]]:
    found = [part for path in MANIFESTS if path.parent.name == flow for part in load(path) if part["kind"] == kind]
    return {part["metadata"]["name"]: part for part in found}


def pods() -> list[tuple[str, dict[str, Any]]]:
    return [
        (name, deployment["spec"]["template"]["spec"])
        for flow in FLOWS
        for name, deployment in of_kind(flow, "Deployment").items()
    ]


def each_pod() -> pytest.MarkDecorator:
    found = pods()
    return pytest.mark.parametrize(("name", "pod"), found, ids=[name for name, _ in found])


def option(container: dict[str, Any], name: str) -> str:
    return container["args"][container["args"].index(name) + 1]


def export(folder: Path, *options: str) -> None:
    command = [sys.executable, "-c", OFFLINE, "--output", str(folder), *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr


def test_regenerating_offline_gives_the_committed_files(tmp_path: Path) -> None:
    export(tmp_path)
    committed = {path.relative_to(ROOT / "k8s"): path.read_text() for path in (ROOT / "k8s").glob("*/*.yml")}
    assert {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.yml")} == committed


def test_exports_for_a_cluster_without_gpus(tmp_path: Path) -> None:
    export(tmp_path, "--gpus", "0", "--image", "registry.example/attune:cpu", "--storage-class", "nfs")
    text = "".join(path.read_text() for path in tmp_path.rglob("*.yml"))
    assert "nvidia.com/gpu" not in text
    assert set(re.findall(r" image: (.*)", text)) == {"registry.example/attune:cpu"}
    assert "storageClassName: nfs" in text


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_manifest_is_valid(path: Path) -> None:
    import kubernetes_validate

    for manifest in load(path):
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("path", sorted((ROOT / "k8s").glob("*/*.yml")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_manifest_says_where_it_comes_from(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    flow = path.stem if path.parent.name == "monitoring" else path.parent.name
    assert first.startswith(f"# Generated from flows/{flow}.yml by `make k8s`. Do not edit")


@pytest.mark.parametrize("flow", FLOWS)
def test_every_executor_runs_its_class(flow: str) -> None:
    deployments = of_kind(flow, "Deployment")
    for executor in flow_of(flow)["executors"]:
        container = deployments[executor["name"].replace("_", "-")]["spec"]["template"]["spec"]["containers"][0]
        assert container["command"] == ["jina"]
        assert container["args"][0] == "executor"
        assert option(container, "--uses") == executor["uses"]
    assert len(deployments) == len(flow_of(flow)["executors"]) + 1  # and the gateway


@pytest.mark.parametrize(("flow", "name"), [("finetune", "gateway"), ("search", "search-gateway")])
def test_gateway_runs_its_class_on_the_ports_of_the_flow(flow: str, name: str) -> None:
    container = of_kind(flow, "Deployment")[name]["spec"]["template"]["spec"]["containers"][0]
    gateway = flow_of(flow)["gateway"]
    assert container["args"][0] == "gateway"
    assert option(container, "--uses") == gateway["uses"]
    at = container["args"].index("--port")
    assert container["args"][at + 1 : at + 3] == [str(port) for port in gateway["port"]]
    assert [port["port"] for port in of_kind(flow, "Service")[name]["spec"]["ports"][:2]] == gateway["port"]


@pytest.mark.parametrize("flow", FLOWS)
def test_gateway_is_told_of_services_that_exist(flow: str) -> None:
    container = next(
        deployment["spec"]["template"]["spec"]["containers"][0]
        for name, deployment in of_kind(flow, "Deployment").items()
        if name.endswith("gateway")
    )
    addresses = re.findall(r"grpc://([a-z-]+)\.attune\.svc:(\d+)", option(container, "--deployments-addresses"))
    services = of_kind(flow, "Service")
    assert len(addresses) == len(flow_of(flow)["executors"])
    for name, port in addresses:
        assert services[name]["spec"]["ports"][0]["port"] == int(port)


def test_run_manager_calls_the_gateway_service() -> None:
    container = of_kind("finetune", "Deployment")["run-manager"]["spec"]["template"]["spec"]["containers"][0]
    assert option(container, "--uses-with") == '{"gateway": "grpc://gateway:51000"}'


@each_pod()
def test_pod_has_a_gpu_where_one_is_used(name: str, pod: dict[str, Any]) -> None:
    assert pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") == (1 if name in ON_GPU else None)


@each_pod()
def test_pod_states_its_cpu_and_memory(name: str, pod: dict[str, Any]) -> None:
    resources = pod["containers"][0]["resources"]
    assert {"cpu", "memory"} <= resources["requests"].keys() & resources["limits"].keys()


@each_pod()
def test_pod_keeps_its_data_on_the_shared_volume(name: str, pod: dict[str, Any]) -> None:
    container = pod["containers"][0]
    assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "attune"}} in pod["volumes"]
    environment = {item["name"]: item.get("value") for item in container["env"]}
    assert environment["ATTUNE_HOME"] == "/data"
    assert environment["JINA_OPTOUT_TELEMETRY"] == "1"


@pytest.mark.parametrize("flow", FLOWS)
def test_volume_can_be_mounted_on_several_nodes(flow: str) -> None:
    assert of_kind(flow, "PersistentVolumeClaim")["attune"]["spec"]["accessModes"] == ["ReadWriteMany"]


@each_pod()
def test_pod_is_probed_on_its_grpc_port(name: str, pod: dict[str, Any]) -> None:
    container = pod["containers"][0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": int(option(container, "--port"))}
        assert "exec" not in container[probe]


@each_pod()
def test_pod_listens_beyond_itself(name: str, pod: dict[str, Any]) -> None:
    container = pod["containers"][0]
    assert "127.0.0.1" not in str(pod)
    assert "--host" not in container["args"] or option(container, "--host") == "0.0.0.0"


@each_pod()
def test_pod_asks_for_tokens_and_those_are_on_the_volume(name: str, pod: dict[str, Any]) -> None:
    environment = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
    assert environment["ATTUNE_HOST"] == "0.0.0.0"
    assert environment["ATTUNE_TOKENS"] == f"{environment['ATTUNE_HOME']}/tokens.json"
    assert "ATTUNE_INSECURE" not in environment


@each_pod()
def test_pod_runs_without_privileges(name: str, pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]
    assert f"useradd --uid {pod['securityContext']['runAsUser']} " in DOCKERFILE
    assert not pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"]


def test_trainer_has_shared_memory_and_time_to_write_a_checkpoint() -> None:
    pod = of_kind("finetune", "Deployment")["trainer"]["spec"]["template"]["spec"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
    assert pod["terminationGracePeriodSeconds"] >= 60


@pytest.mark.parametrize(("flow", "gateway"), [("finetune", "gateway"), ("search", "search-gateway")])
def test_only_the_gateway_reaches_executors(flow: str, gateway: str) -> None:
    policy = of_kind(flow, "NetworkPolicy")[f"{flow}-executors"]["spec"]
    for name, deployment in of_kind(flow, "Deployment").items():
        pod_labels = deployment["spec"]["template"]["metadata"]["labels"]
        selected = policy["podSelector"]["matchLabels"].items() <= pod_labels.items()
        assert selected == (name != gateway)
    callers = [rule["from"] for rule in policy["ingress"] if {"protocol": "TCP", "port": 8080} in rule["ports"]]
    assert callers == [[{"podSelector": {"matchLabels": {"app": gateway}}}]]


def test_run_manager_reaches_the_gateway() -> None:
    policy = of_kind("finetune", "NetworkPolicy")["finetune-gateway"]["spec"]
    assert {"podSelector": {"matchLabels": {"app": "run-manager"}}} in policy["ingress"][0]["from"]
    assert {"protocol": "TCP", "port": 51000} in policy["ingress"][0]["ports"]


def test_flows_share_a_namespace_without_sharing_names() -> None:
    for kind in ("Deployment", "Service", "NetworkPolicy"):
        assert not of_kind("finetune", kind).keys() & of_kind("search", kind).keys()


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_dockerfile_has_the_target(target: str) -> None:
    assert re.search(rf"^FROM \S+ AS {target}$", DOCKERFILE, re.MULTILINE)


def test_dockerfile_copies_what_is_there_and_not_ignored() -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert sources
    for source in {name for line in sources for name in line.split()}:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in allowed, source


def test_dockerfile_turns_the_pins_into_constraints(tmp_path: Path) -> None:
    script = re.search(r"^RUN (sed .*) requirements.txt >", DOCKERFILE, re.MULTILINE)
    assert script
    command = f"{script[1]} {ROOT / 'requirements.txt'}"
    lines = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout.splitlines()
    assert any(line.startswith("jina==") for line in lines)
    assert all(re.match(r"[A-Za-z0-9._-]+==[0-9.]+\s*(#.*)?$", line) for line in lines)

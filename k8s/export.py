"""Writes the Kubernetes manifests of the Flows: `python -m k8s.export`, which is what `make k8s` runs.

Jina's exporter draws the topology: which pods and Services there are, who is told whose address, and the arguments of
each process. `k8s/adapt.py` fits that to one image, and `k8s/additions.py` holds what Jina leaves out. Needs no
network, and writes the same files every time.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

import attune
from k8s.adapt import adapt
from k8s.additions import NAMESPACE, Manifest, namespace, network_policies, volume_claim

ROOT = Path(__file__).resolve().parents[1]
IMAGE = f"attune:{attune.__version__}-cuda"
# Flow file -> name of its gateway: Jina calls every gateway `gateway`, and both Flows live in one namespace.
FLOWS = {"flows/finetune.yml": "gateway", "flows/search.yml": "search-gateway"}
HEADER = "# Generated from {flow} by `make k8s`. Do not edit: change the Flow or k8s/*.py and generate again.\n"


class PlainDumper(yaml.SafeDumper):
    """Writes equal parts out each time, where YAML would refer from one to the other."""

    def ignore_aliases(self, _: Any) -> bool:
        """No part is referred to."""
        return True


def main() -> None:
    """Writes the manifests of all Flows, in place of those that are there."""
    parser = argparse.ArgumentParser(description="Writes the Kubernetes manifests of the Flows.")
    parser.add_argument("--image", default=IMAGE, help="image of every pod (default: %(default)s)")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of each pod that uses one; 0 for the CPU image")
    parser.add_argument("--storage-class", help="storage class of the volume (default: the cluster's)")
    parser.add_argument("--output", type=Path, default=ROOT / "k8s", help="folder to write to (default: %(default)s)")
    arguments = parser.parse_args()
    for flow_file, gateway in FLOWS.items():
        flow = yaml.safe_load((ROOT / flow_file).read_text(encoding="utf-8"))
        name = Path(flow_file).stem
        parts = adapt(exported(flow, arguments.image), flow, name, gateway, arguments.gpus)
        # kubectl applies a folder's files in the order of their names: the namespace comes first.
        files = {
            "00-namespace": [namespace()],
            "01-volume": [volume_claim(arguments.storage_class)],
            "02-network": network_policies(name, gateway, flow["gateway"]["port"]),
            **{app: [part for part in found if part["kind"] != "ServiceMonitor"] for app, found in parts.items()},
        }
        write(arguments.output / name, files, flow_file)
        # A kind of the Prometheus operator: in a folder of its own, because a cluster without it refuses the kind.
        monitors = [part for found in parts.values() for part in found if part["kind"] == "ServiceMonitor"]
        write(arguments.output / "monitoring", {name: monitors}, flow_file, keep={Path(file).stem for file in FLOWS})


def exported(flow: dict[str, Any], image: str) -> list[Manifest]:
    """What Jina's exporter writes for a Flow, with `image` in every pod."""
    os.environ["JINA_OPTOUT_TELEMETRY"] = "1"
    os.environ["JINA_LOG_CONFIG"] = "QUIET"  # it would tell to apply the temporary folder
    import jina.orchestrate.deployments.config.helper
    import jina.orchestrate.deployments.config.k8s
    from jina import Flow

    # Both ask servers on the internet about images that are named in full here.
    jina.orchestrate.deployments.config.helper.get_image_name = lambda uses: uses.removeprefix("docker://")
    jina.orchestrate.deployments.config.k8s.get_base_executor_version = lambda: ""

    config = yaml.safe_dump(cluster_config(flow, image), sort_keys=False)
    with tempfile.TemporaryDirectory() as folder:
        Flow.load_config(config).to_kubernetes_yaml(folder, k8s_namespace=NAMESPACE)
        files = sorted(Path(folder).rglob("*.yml"))
        return [manifest for file in files for manifest in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def cluster_config(flow: dict[str, Any], image: str) -> dict[str, Any]:
    """The Flow as Jina's exporter wants it: images in place of classes, Services in place of the local machine.

    Without `host`, an executor listens on every address of its pod; the local Flow's 127.0.0.1 would shut it off. The
    gateway listens where ATTUNE_HOST says.
    """
    uses = f"docker://{image}"
    executors = []
    for executor in flow["executors"]:
        part = {key: value for key, value in executor.items() if key != "host"} | {"uses": uses}
        if "gateway" in part.get("uses_with", {}):
            part["uses_with"] = part["uses_with"] | {"gateway": f"grpc://gateway:{flow['gateway']['port'][0]}"}
        executors.append(part)
    gateway = {key: value for key, value in flow["gateway"].items() if key != "host"} | {"uses": uses}
    return flow | {"gateway": gateway, "executors": executors}


def write(folder: Path, files: dict[str, list[Manifest]], flow_file: str, keep: set[str] | None = None) -> None:
    """Writes one YAML file per name, and removes those of executors that the Flow no longer has."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.yml"):
        if old.stem not in files.keys() | (keep or set()):
            old.unlink()
    for name, manifests in files.items():
        text = yaml.dump_all(manifests, Dumper=PlainDumper, sort_keys=False, width=120)
        (folder / f"{name}.yml").write_text(HEADER.format(flow=flow_file) + text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Kubernetes manifests of the Flows, and the script that writes them."""

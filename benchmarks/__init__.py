"""Attune beside its peers, measured side by side: each benchmark is a module that is run with `python -m`."""

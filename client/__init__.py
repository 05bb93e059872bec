"""The Python client of an Attune service, and its command line. Loads no torch."""

from attune.models.catalog import describe_models
from client.callbacks import EvaluationCallback
from client.client import AttuneClient
from client.login import login
from client.run import Run

__all__ = ["AttuneClient", "EvaluationCallback", "Run", "describe_models", "login"]

"""The Python client of an Attune service, and its command line. Loads no torch."""

from attune.models.catalog import describe_models
from client.callbacks import (
    BestModelCheckpoint,
    EarlyStopping,
    EvaluationCallback,
    MLflowLogger,
    OwnCallback,
    TensorBoardLogger,
    TrainingCheckpoint,
    WandBLogger,
    WiSEFTCallback,
)
from client.client import AttuneClient
from client.login import login
from client.run import Run

__all__ = [
    "AttuneClient",
    "BestModelCheckpoint",
    "EarlyStopping",
    "EvaluationCallback",
    "MLflowLogger",
    "OwnCallback",
    "Run",
    "TensorBoardLogger",
    "TrainingCheckpoint",
    "WandBLogger",
    "WiSEFTCallback",
    "describe_models",
    "login",
]

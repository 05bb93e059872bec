"""What can be known of a run's loggers before it trains: whether they are installed, and allowed to go where they are to."""

import os
from importlib.util import find_spec
from urllib.parse import urlsplit

from attune.callback_settings import Logger, MLflowLogger, OwnCallback, WandBLogger
from attune.data.web import WebError, WebRefused, checked
from attune.errors import SettingsError
from attune.service.settings import service_settings
from attune.settings import FinetuningSettings
from attune.training.loggers.own import find

INSTALL = {"mlflow": "mlflow-skinny"}
"""What to install, where it has another name than what is imported."""


def check_loggers(settings: FinetuningSettings) -> None:
    """Passes if all loggers of a run can begin. No server is asked: it may be there later.

    Raises:
        SettingsError: which one cannot, and what to do.
    """
    for logger in settings.callbacks_of(Logger):
        package = logger.package
        if package and find_spec(package) is None:
            raise SettingsError(
                f"callbacks: {type(logger).__name__} needs {package}, which the service does not have. Ask its operator to "
                f"pip install {INSTALL.get(package, package)}, or leave the callback out"
            )
        if isinstance(logger, MLflowLogger) and logger.tracking_uri is not None:
            check_tracking_uri(logger.tracking_uri)
        elif isinstance(logger, WandBLogger):
            check_wandb(logger)
        elif isinstance(logger, OwnCallback):
            find(logger)


def check_tracking_uri(uri: str) -> None:
    """Passes if figures may be sent there, or the host is not found: that may change.

    Raises:
        SettingsError: if not.
    """
    if uri == os.environ.get("MLFLOW_TRACKING_URI"):
        return  # where the operator sends them by default
    try:
        checked(uri, service_settings().tracking_hosts)
    except WebError:
        return
    except WebRefused as error:
        raise SettingsError(
            f"callbacks: the service may not send figures to {uri!r}: it goes only to the hosts of ATTUNE_TRACKING_HOSTS, "
            "which by name must be on the public internet. Ask the operator to add it, or leave tracking_uri out"
        ) from error


def check_wandb(logger: WandBLogger) -> None:
    """Passes if it writes files, or may send to Weights & Biases.

    Raises:
        SettingsError: if it may not, or the service has no key for it.
    """
    if logger.mode == "offline":
        return
    host = urlsplit(wandb_address()).netloc.lower()  # the operator's choice: that it is in the list is enough
    if host not in service_settings().tracking_hosts:
        raise SettingsError(
            f"callbacks: the service may not send figures to {host}. Use mode='offline', or ask the operator to add it to "
            "ATTUNE_TRACKING_HOSTS"
        )
    if not os.environ.get("WANDB_API_KEY"):
        raise SettingsError(
            "callbacks: WandBLogger has mode='online', and the service has no WANDB_API_KEY. Use mode='offline', or ask the "
            "operator to set it"
        )


def wandb_address() -> str:
    """Of the server that the service's operator has chosen."""
    return os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"

"""Calls over Jina's gRPC protocol."""

import asyncio
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

from attune.errors import AttuneError, error_from_name
from client.address import Address


class GrpcTransport:
    """Calls a Flow through `jina.Client`. Jina is imported at the first call: it takes two seconds."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def call(self, endpoint: str, documents: Sequence[Any], parameters: dict[str, Any] | None = None) -> list[Any]:
        """See `client.transport.Transport`."""
        client = self._client
        from docarray import DocList
        from grpc import RpcError  # type: ignore[import-untyped]
        from jina.excepts import BadServer, BadServerFlow

        from attune.schemas import ENDPOINTS

        executor, takes, gives, _ = ENDPOINTS[endpoint]

        def post() -> list[Any]:
            return list(
                client.post(
                    on=endpoint,
                    inputs=DocList[takes](documents),
                    return_type=DocList[gives],
                    target_executor=f"^{executor}$" if executor else None,  # Jina matches it as a regular expression
                    parameters=parameters or {},
                    request_size=max(1, len(documents)),  # all of them in one request
                    results_in_order=True,
                )
            )

        try:
            return _away_from_event_loop(post)
        except BadServer as error:
            raise _raised_by_server(error.args[0].status) from None
        except ConnectionError:
            raise self.address.unavailable() from None
        except (BadServerFlow, RpcError) as error:
            if "UNAVAILABLE" in str(error):
                raise self.address.unavailable() from None
            raise AttuneError(f"{self.address.url} could not answer {endpoint}: {error}") from error

    @cached_property
    def _client(self) -> Any:
        # Jina reports every client it creates to its maker unless this is set, to whatever value.
        os.environ.setdefault("JINA_OPTOUT_TELEMETRY", "1")
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a lost connection is an error of ours, not a line of gRPC's
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Jina's imports are full of deprecations, of no use to our users
            import jina

            client = jina.Client(
                host=self.address.host,
                port=self.address.port,
                protocol="grpc",
                tls=self.address.scheme == "grpcs",
                log_config="quiet",
            )
        # "quiet" leaves no handler, and Python prints errors of loggers without one.
        client.logger.logger.handlers = [logging.NullHandler()]
        return client


def _away_from_event_loop(function: Callable[[], list[Any]]) -> list[Any]:
    """Calls a function where no event loop runs: under a notebook's, Jina's client loses the exception."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return function()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def _raised_by_server(status: Any) -> AttuneError:
    """The error in the status of Jina's answer: its class name and message, or a description if there is no more."""
    raised = status.exception
    if not raised.name:
        return AttuneError(status.description)
    return error_from_name(raised.name, " ".join(raised.args) or status.description)

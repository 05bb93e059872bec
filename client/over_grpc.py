"""Calls over Jina's gRPC protocol."""

import os
import warnings
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

from attune.errors import AttuneError, LimitExceeded, error_from_name
from client.address import Address
from client.limits import limit_exceeded, when_allowed

TIMEOUT_SECONDS = 300.0
OWN = ("grpc.use_local_subchannel_pool", 1)
"""A new channel then really is one, and not a share in an older one's connection."""


class GrpcTransport:
    """Calls a Flow over one lasting channel. Jina is imported at the first call: it takes two seconds.

    The messages and the service are Jina's own. `jina.Client` is not used: it opens a channel and an event loop for each
    call, its calls have no deadline, and under load an answer was lost and waited for without end.
    """

    def __init__(self, address: Address) -> None:
        self.address = address

    def call(self, endpoint: str, documents: Sequence[Any], parameters: dict[str, Any] | None = None) -> list[Any]:
        """See `client.transport.Transport`."""
        process = self._process
        from docarray import DocList
        from jina.types.request.data import DataRequest

        from attune.schemas import ENDPOINTS

        executor, takes, gives, *_ = ENDPOINTS[endpoint]
        request = DataRequest()
        request.document_array_cls = DocList[takes]
        request.data.docs = DocList[takes](documents)
        request.header.exec_endpoint = endpoint
        request.header.target_executor = f"^{executor}$" if executor else ""  # Jina matches it as a regular expression
        request.parameters = parameters or {}
        answer = when_allowed(partial(self._send, process, request))
        if answer.status.code == answer.status.ERROR:
            raise _raised_by_server(answer.status)
        answer.document_array_cls = DocList[gives]
        return list(answer.docs)

    def _send(self, process: Any, request: Any) -> Any:
        from grpc import RpcError  # type: ignore[import-untyped]

        authorization = self.address.authorization
        metadata = [("authorization", authorization)] if authorization else []
        try:
            return process(request, timeout=TIMEOUT_SECONDS, metadata=metadata)
        except RpcError as error:
            if _is_away(error):
                # Between calls nobody works for a channel, so one that lost its service does not find it again.
                self.__dict__.pop("_process", None)
            raise self._refusal(error, request.header.exec_endpoint) from None

    def _refusal(self, error: Any, endpoint: str) -> AttuneError:
        """Why there is no answer: what the gateway says in its metadata, or else gRPC's status."""
        from grpc import StatusCode

        trailing = dict(error.trailing_metadata() or ())
        name, message = trailing.get("attune-error", ""), str(error.details())
        if name == LimitExceeded.__name__ or error.code() == StatusCode.RESOURCE_EXHAUSTED:
            return limit_exceeded(message, trailing.get("retry-after"))
        if name:
            return error_from_name(name, message)
        if _is_away(error):
            return self.address.unavailable()
        return AttuneError(f"{self.address.url} could not answer {endpoint}: {message}")

    @cached_property
    def _process(self) -> Any:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a lost connection is an error of ours, not a line of gRPC's
        import grpc

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Jina's imports are full of deprecations, of no use to our users
            from jina.proto import jina_pb2_grpc

        target = f"{self.address.host}:{self.address.port}"
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1), OWN]
        if self.address.is_encrypted:
            authority = self.address.authority
            credentials = grpc.ssl_channel_credentials(authority.read_bytes() if authority else None)
            channel = grpc.secure_channel(target, credentials, options)
        else:
            channel = grpc.insecure_channel(target, options)
        return jina_pb2_grpc.JinaSingleDataRequestRPCStub(channel).process_single_data


def _is_away(error: Any) -> bool:
    """Whether nobody answers, or a service that stopped has broken the call off."""
    from grpc import StatusCode

    return error.code() in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)


def _raised_by_server(status: Any) -> AttuneError:
    """The error in the status of Jina's answer: its class name and message, or a description if there is no more."""
    raised = status.exception
    if not raised.name:
        return AttuneError(status.description)
    return error_from_name(raised.name, " ".join(raised.args) or status.description)

"""The gateway: Jina's gRPC protocol unchanged, and beside it every endpoint as an HTTP POST with OpenAPI."""

from typing import Any

from fastapi import FastAPI
from jina.serve.runtimes.gateway.gateway import BaseGateway
from jina.serve.runtimes.gateway.http.fastapi import FastAPIBaseGateway
from jina.serve.runtimes.servers.composite import CompositeBaseServer
from jina.serve.runtimes.servers.grpc import GRPCServer

from executors.gateway.http import make_app


class HttpGateway(FastAPIBaseGateway):
    """The HTTP side."""

    @property
    def app(self) -> FastAPI:
        """A FastAPI app with the endpoints that this Flow's executors serve."""
        return make_app(self.streamer)


class AttuneGateway(CompositeBaseServer, BaseGateway):
    """gRPC and HTTP in one process; which ports speak which is set by `port` and `protocol` in the Flow."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        classes = {"GRPC": GRPCServer, "HTTP": HttpGateway}
        self.servers = [
            classes[protocol.name](**server_kwargs)
            for protocol, server_kwargs in zip(self.protocols, self._server_kwargs, strict=True)
        ]
        self.gateways = self.servers

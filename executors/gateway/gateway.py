"""The gateway: Jina's gRPC protocol, and beside it every endpoint as an HTTP POST with OpenAPI, behind one guard."""

from typing import Any

from jina.serve.runtimes.gateway.gateway import BaseGateway
from jina.serve.runtimes.servers.composite import CompositeBaseServer

from attune.service.settings import service_settings
from attune.service.tls import certificate_name
from attune.service.tokens import check_exposure
from executors.gateway.grpc import GrpcGateway
from executors.gateway.guard import Guard
from executors.gateway.http import HttpGateway


class AttuneGateway(CompositeBaseServer, BaseGateway):
    """gRPC and HTTP in one process; which ports speak which is set by `port` and `protocol` in the Flow."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_exposure()
        settings = service_settings()
        tls = {}
        if settings.tls_certificate and settings.tls_key:
            certificate_name(settings.tls_certificate, settings.tls_key)  # says now what is wrong with them
            tls = {"ssl_certfile": str(settings.tls_certificate), "ssl_keyfile": str(settings.tls_key)}
        self.guard = Guard()
        classes = {"GRPC": GrpcGateway, "HTTP": HttpGateway}
        self.servers = [
            classes[protocol.name](guard=self.guard, **{**server_kwargs, **tls})
            for protocol, server_kwargs in zip(self.protocols, self._server_kwargs, strict=True)
        ]
        self.gateways = self.servers

    async def setup_server(self) -> None:
        """Waits until the executors answer, or it is asked to stop: Jina tells that to the whole, but not to its parts."""
        for server in self.servers:
            server.is_cancel = self.is_cancel
        await super().setup_server()

    async def shutdown(self) -> None:
        """Takes no more requests, and waits for those it has."""
        self.guard.is_closing = True
        await super().shutdown()

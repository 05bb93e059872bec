"""The gRPC side of the gateway: Jina's protocol, behind the guard.

A refusal is a gRPC status with the message as its details, and in the trailing metadata `attune-error`, the error's
class, and `retry-after` in seconds if asking again will help. What an executor raises stays in Jina's own status.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.message import DecodeError
from jina.proto import jina_pb2
from jina.serve.runtimes.gateway.streamer import GatewayStreamer
from jina.serve.runtimes.servers.grpc import GRPCServer
from jina.types.request.data import DataRequest

from attune import errors
from attune.characters import visible
from attune.schemas import ENDPOINTS
from attune.service.settings import service_settings
from executors.gateway.ask import ask
from executors.gateway.door import too_large
from executors.gateway.guard import LARGEST_PARAMETERS, Caller, Guard, check_size, largest_request
from executors.gateway.raised import error_of, write_error

ONE = "/jina.JinaSingleDataRequestRPC/process_single_data"
STREAM = "/jina.JinaRPC/Call"
HEALTH = "/grpc.health.v1.Health/Check"  # `Watch` would be an open stream for everybody
# Jina's clients ask for these; they tell about the service, so they want a token, of any role.
ABOUT = ("/jina.JinaDiscoverEndpointsRPC/", "/jina.JinaGatewayDryRunRPC/", "/jina.JinaInfoRPC/", "/grpc.reflection.")

MESSAGE_SECONDS = 300.0
"""For a request to arrive."""

CODES = {
    errors.AuthenticationError: grpc.StatusCode.UNAUTHENTICATED,
    errors.AuthorizationError: grpc.StatusCode.PERMISSION_DENIED,
    errors.LimitExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ServiceUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DataError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.AttuneError: grpc.StatusCode.INTERNAL,
}


class GrpcGateway(GRPCServer):
    """The gRPC side."""

    def __init__(self, guard: Guard, grpc_server_options: dict[str, Any] | None = None, **kwargs: Any) -> None:
        limit = {"grpc.max_receive_message_length": service_settings().max_request}
        super().__init__(grpc_server_options={**(grpc_server_options or {}), **limit}, **kwargs)
        self.grpc_tracing_server_interceptors = [
            *(self.grpc_tracing_server_interceptors or []),
            GuardInterceptor(guard, self.streamer),
        ]

    @property
    def host(self) -> str:
        """Where it listens."""
        return service_settings().host


class GuardInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Asks who calls, reads each request and passes it on if it may be."""

    def __init__(self, guard: Guard, streamer: GatewayStreamer) -> None:
        self.guard = guard
        self.streamer = streamer

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """The handler of a method, with the guard before it."""
        handler = await continuation(details)
        if handler is None or details.method == HEALTH:
            return handler
        if details.method == ONE:
            # As a stream of one, which is the same on the wire: nothing of it is read before its caller is known.
            return grpc.stream_unary_rpc_method_handler(self._one, None, handler.response_serializer)
        if details.method == STREAM:
            return grpc.stream_stream_rpc_method_handler(self._stream, None, handler.response_serializer)
        if details.method.startswith(ABOUT):
            return self._for_callers(handler)
        return grpc.unary_unary_rpc_method_handler(_unimplemented)

    async def _one(self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> DataRequest:
        try:
            caller = self._caller(context)
            async with asyncio.timeout(MESSAGE_SECONDS):
                message = await anext(messages, None)
            if message is None:
                raise errors.DataError("There is no request")
            return await self._answer(message, caller)
        except TimeoutError:
            await _refuse(context, errors.LimitExceeded(f"The request did not come within {MESSAGE_SECONDS:g} s"))
        except Exception as error:
            await _refuse(context, error_of(error))

    async def _stream(self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[DataRequest]:
        """One message after the other: what a caller sends ahead waits in the connection, not in memory."""
        try:
            self._caller(context)
            async for message in messages:  # each is a request of its own: the token may have been removed since
                yield await self._answer(message, self._caller(context))
        except Exception as error:
            await _refuse(context, error_of(error))

    async def _answer(self, message: bytes, caller: Caller) -> DataRequest:
        async with self.guard.room.take(len(message)):
            return await self._pass_on(_read(message), caller)

    async def _pass_on(self, request: DataRequest, caller: Caller) -> DataRequest:
        path = request.header.exec_endpoint
        # What callers have no business with: Jina would take it for its own.
        request.header.ClearField("status")
        request.header.request_id = uuid4().hex
        del request.routes[:]
        self.guard.admit(caller, path, self.streamer._endpoints_models_map or {})
        check_size(path, len(request.proto_with_data.data.docs.docs), request.parameters)
        executor = ENDPOINTS[path].executor
        request.header.target_executor = f"^{executor}$" if executor else ""
        answer, error = await ask(self.streamer, self.guard, request)
        if error:
            write_error(answer, error)
        return answer

    def _caller(self, context: grpc.aio.ServicerContext) -> Caller:
        metadata = dict(context.invocation_metadata() or ())
        return self.guard.caller(str(metadata.get("authorization", "")), _address(context.peer()))

    def _for_callers(self, handler: Any) -> Any:
        if handler.unary_unary is not None:

            async def ask(request: Any, context: grpc.aio.ServicerContext) -> Any:
                try:
                    self._caller(context)
                except errors.AttuneError as error:
                    await _refuse(context, error)
                return await handler.unary_unary(request, context)

            return grpc.unary_unary_rpc_method_handler(ask, handler.request_deserializer, handler.response_serializer)

        async def ask_on(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            try:
                self._caller(context)
            except errors.AttuneError as error:
                await _refuse(context, error)
            async for answer in handler.stream_stream(requests, context):
                yield answer

        return grpc.stream_stream_rpc_method_handler(ask_on, handler.request_deserializer, handler.response_serializer)


def _read(message: bytes) -> DataRequest:
    try:
        proto = jina_pb2.DataRequestProto.FromString(message)
        limit = largest_request(proto.header.exec_endpoint)
        if len(message) > limit:
            raise too_large(limit)
        if proto.parameters.ByteSize() > LARGEST_PARAMETERS:
            raise errors.LimitExceeded(f"The request's parameters are larger than {LARGEST_PARAMETERS:,} bytes")
        request = DataRequest(proto)
        request.parameters  # noqa: B018  # a struct may hold what JSON cannot
    except (DecodeError, ValueError) as error:
        raise errors.DataError(f"The message is no request of Jina's: {error}") from error
    if request.proto_with_data.data.WhichOneof("documents") == "docs_bytes":
        raise errors.DataError("The request's documents are packed in `docs_bytes`. Send them in `docs`")
    return request


def _address(peer: str) -> str:
    """The host in what gRPC calls a peer, such as `ipv4:127.0.0.1:50000` or `ipv6:%5B::1%5D:50000`."""
    return peer.partition(":")[2].rpartition(":")[0].replace("%5B", "").replace("%5D", "")


async def _refuse(context: grpc.aio.ServicerContext, error: errors.AttuneError) -> None:
    code = next(code for kind, code in CODES.items() if isinstance(error, kind))
    trailing = [("attune-error", type(error).__name__)]
    if seconds := getattr(error, "seconds", 0):
        trailing.append(("retry-after", str(seconds)))
    await context.abort(code, visible(str(error))[:2000], tuple(trailing))


async def _unimplemented(_: Any, context: grpc.aio.ServicerContext) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "This service does not offer this method")

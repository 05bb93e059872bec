"""The HTTP side of the gateway.

Every endpoint of `attune.schemas.ENDPOINTS` is `POST /endpoint` with a body `{"data": [...], "parameters": {...}}`
and an answer `{"data": [...]}`. Bytes are base64. A token comes as `Authorization: Bearer TOKEN`. An error is a status of
4xx or 5xx with `{"error": class name, "message": text}`. `GET /runs/RUN/events` streams a run's history as server-sent
events; RUN is `name`, or `experiment/name`.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

from docarray import BaseDoc
from fastapi import FastAPI, Header, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from jina.serve.runtimes.gateway.http import FastAPIBaseGateway
from jina.serve.runtimes.gateway.streamer import GatewayStreamer
from pydantic import BaseModel, Field, ValidationError, create_model
from starlette.exceptions import HTTPException

import attune
from attune.characters import visible
from attune.errors import AttuneError, DataError, LimitExceeded
from attune.schemas import END_STATES, ENDPOINTS, Endpoint, FinetuningRun, RunEvent, RunQuery
from attune.service.settings import service_settings
from executors.gateway.ask import ask
from executors.gateway.connection import Connection
from executors.gateway.door import DOCS, Door, answer_of
from executors.gateway.guard import Guard, check_size, most_documents, too_many_documents
from executors.gateway.json_docs import from_json, json_model, to_json
from executors.gateway.raised import error_of
from executors.request import make_request, read_answer

POLL_SECONDS = 0.5
STREAMS = 100  # event streams at once
STREAMS_OF_ONE = 20  # of them, one address's
CONNECTIONS = 500  # at once; who is one too many is told to come later
LEAVE_SECONDS = 5  # for connections, when the gateway stops: an open event stream, or a peer that is gone, never ends
TOO_MANY = ("too_long", ("data",))
"""How pydantic says that a request has too many documents, and where."""
ERROR_NAMES = {404: "ServiceUnavailable", 405: "ServiceUnavailable", 413: "LimitExceeded"}


class HttpGateway(FastAPIBaseGateway):
    """The HTTP side."""

    def __init__(self, guard: Guard, uvicorn_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        bounds = {
            "limit_concurrency": CONNECTIONS,
            "timeout_graceful_shutdown": LEAVE_SECONDS,
            "http": Connection,
            "proxy_headers": False,  # anybody may send them
        }
        super().__init__(uvicorn_kwargs={**bounds, **(uvicorn_kwargs or {})}, **kwargs)
        self.guard = guard

    @property
    def host(self) -> str:
        """Where it listens."""
        return service_settings().host

    @property
    def app(self) -> FastAPI:
        """A FastAPI app with the endpoints that this Flow's executors serve, behind the guard."""
        return make_app(self.streamer, self.guard)


def make_app(streamer: GatewayStreamer, guard: Guard) -> FastAPI:
    """The app; it offers the endpoints whose executors are in the Flow behind `streamer`."""
    app = FastAPIOffline(
        docs_url=DOCS,
        redoc_url=None,
        static_url=f"{DOCS}/static",
        title="Attune",
        version=attune.__version__,
        summary="Fine-tuning of CLIP models on your own machines",
        # It only tells the documentation page about tokens: the door asks for them, before anything is read.
        dependencies=[Security(HTTPBearer(auto_error=False))],
    )
    served = set(streamer._endpoints_models_map or {}) & ENDPOINTS.keys()
    for path in sorted(served, key=list(ENDPOINTS).index):
        _add_route(app, streamer, guard, path, ENDPOINTS[path])
    if "/runs/events" in served:
        _add_event_stream(app, streamer, guard)
    _add_error_handlers(app)
    app.add_middleware(Door, guard=guard, served=served)
    return app


async def post(
    streamer: GatewayStreamer, guard: Guard, path: str, docs: list[BaseDoc], parameters: dict[str, Any]
) -> list[BaseDoc]:
    """Sends documents to an endpoint of the Flow.

    Raises:
        AttuneError: what the executor raised, or what cannot be sent.
    """
    check_size(path, len(docs), parameters)
    try:
        request = make_request(path, docs, parameters)
        request.parameters  # noqa: B018  # a number that is none can be written, and not be read again
    except Exception as error:  # numbers beyond 64 bits, lone surrogates, dictionaries without end: each its own class
        raise DataError(f"The request cannot be passed on: {str(error)[:300]}") from error
    answer, error = await ask(streamer, guard, request)
    if error:
        raise error
    return read_answer(path, answer)


def _add_route(app: FastAPI, streamer: GatewayStreamer, guard: Guard, path: str, endpoint: Endpoint) -> None:
    name = path.strip("/").replace("/", "_")
    takes: Any = create_model(
        f"{name}_request",
        data=(list[json_model(endpoint.takes)], Field(max_length=most_documents(path))),  # type: ignore[misc]
        parameters=(dict[str, Any], Field(default_factory=dict)),
    )
    gives: type[BaseModel] = create_model(f"{name}_answer", data=(list[json_model(endpoint.gives)], ...))  # type: ignore[misc]

    async def route(body: takes) -> JSONResponse:
        docs = [from_json(endpoint.takes, item) for item in body.data]
        return JSONResponse({"data": [to_json(doc) for doc in await post(streamer, guard, path, docs, body.parameters)]})

    app.post(path, summary=endpoint.summary, operation_id=name, response_model=gives)(route)


def _add_event_stream(app: FastAPI, streamer: GatewayStreamer, guard: Guard) -> None:
    streams: Counter[str] = Counter()

    async def follow(name: str, after: int, address: str, authorization: str) -> AsyncIterator[str]:
        with _counted(streams, address):
            while _has_place(streams, address):  # many may have asked at the same moment
                with suppress(LimitExceeded):
                    guard.caller(authorization, address)  # a token that was removed ends what was opened with it
                # The state is asked for before the events: a run that has ended has written its last one.
                run = (await post(streamer, guard, "/runs/get", [RunQuery(name=name)], {}))[0]
                events = await post(streamer, guard, "/runs/events", [RunQuery(name=name, after=after)], {})
                for event in events:
                    assert isinstance(event, RunEvent)
                    after = event.number
                    yield f"id: {after}\nevent: {event.kind}\ndata: {event.model_dump_json(exclude={'id'})}\n\n"
                assert isinstance(run, FinetuningRun)
                if run.state in END_STATES and not events:
                    return
                if not events:
                    await asyncio.sleep(POLL_SECONDS)

    @app.get("/runs/{run:path}/events", summary="A run's history as server-sent events, until it ends")
    async def run_events(
        run: str,
        request: Request,
        after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
        last_event_id: Annotated[str, Header()] = "",
        authorization: Annotated[str, Header(include_in_schema=False)] = "",
    ) -> StreamingResponse:
        address = request.client.host if request.client else ""
        if streams.total() >= STREAMS or streams[address] >= STREAMS_OF_ONE:
            raise _too_many(streams[address])
        await post(streamer, guard, "/runs/get", [RunQuery(name=run)], {})  # an unknown run is a 404, not a broken stream
        if last_event_id.isdecimal() and len(last_event_id) < 19:  # a browser that reconnects says what it has
            after = int(last_event_id)
        return StreamingResponse(follow(run, after, address, authorization), media_type="text/event-stream")


@contextmanager
def _counted(streams: Counter[str], address: str) -> Iterator[None]:
    streams[address] += 1
    try:
        yield
    finally:
        streams[address] -= 1
        if not streams[address]:
            del streams[address]


def _has_place(streams: Counter[str], address: str) -> bool:
    return streams.total() <= STREAMS and streams[address] <= STREAMS_OF_ONE


def _too_many(own: int) -> LimitExceeded:
    error = LimitExceeded(
        f"Too many event streams are open, {own} of them yours. Close some, or ask for /runs/events instead"
    )
    error.seconds = 5.0
    return error


def _add_error_handlers(app: FastAPI) -> None:
    """Every error is answered in the same form, whatever raised it."""

    def answer(error: AttuneError) -> JSONResponse:
        status, body, headers = answer_of(error)
        return JSONResponse(body, status, headers)

    @app.exception_handler(ValidationError)
    @app.exception_handler(RequestValidationError)
    async def on_bad_body(request: Request, error: ValidationError | RequestValidationError) -> JSONResponse:
        if any((item["type"], item["loc"][-1:]) == TOO_MANY for item in error.errors()):
            return answer(too_many_documents(request.url.path))
        lines = [f"- {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:20]]
        return answer(DataError("\n".join(["The request's body cannot be used:", *lines])))

    @app.exception_handler(HTTPException)
    async def on_refused(request: Request, error: HTTPException) -> JSONResponse:
        name = ERROR_NAMES.get(error.status_code, "DataError")
        message = error.detail
        if name == "ServiceUnavailable":
            message = (
                f"This service does not serve {request.method} {request.url.path[:100]!r}. See /docs for what it serves"
            )
        return JSONResponse({"error": name, "message": visible(message)}, error.status_code, error.headers)

    @app.exception_handler(AttuneError)
    async def on_error(_: Request, error: AttuneError) -> JSONResponse:
        return answer(error)

    @app.exception_handler(Exception)
    async def on_anything(_: Request, error: Exception) -> JSONResponse:
        return answer(error_of(error))

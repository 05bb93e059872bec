"""The HTTP side of the gateway.

Every endpoint of `attune.schemas.ENDPOINTS` is `POST /endpoint` with a body `{"data": [...], "parameters": {...}}`
and an answer `{"data": [...]}`. Bytes are base64. An error is a status of 4xx or 5xx with
`{"error": class name, "message": text}`. `GET /runs/NAME/events` streams a run's history as server-sent events.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from docarray import BaseDoc
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from jina.excepts import InternalNetworkError
from jina.serve.runtimes.gateway.streamer import GatewayStreamer
from pydantic import BaseModel, Field, ValidationError, create_model

import attune
from attune import errors
from attune.schemas import END_STATES, ENDPOINTS, Endpoint, FinetuningRun, RunEvent, RunQuery
from executors.gateway.json_docs import from_json, json_model, to_json
from executors.request import make_request, read_answer

STATUS = {
    errors.DatasetNotFound: 404,
    errors.RunNotFound: 404,
    errors.RunExists: 409,
    errors.RunFailed: 500,
    errors.TrainingError: 500,
    errors.ExportError: 500,
    errors.AttuneError: 422,
}
POLL_SECONDS = 0.5


def make_app(streamer: GatewayStreamer) -> FastAPI:
    """The app; it offers the endpoints whose executors are in the Flow behind `streamer`."""
    app = FastAPI(title="Attune", version=attune.__version__, summary="Fine-tuning of CLIP models on your own machines")
    served = set(streamer._endpoints_models_map or {})
    for path, endpoint in ENDPOINTS.items():
        if path in served:
            _add_route(app, streamer, path, endpoint)
    if "/runs/events" in served:
        _add_event_stream(app, streamer)

    @app.exception_handler(errors.AttuneError)
    async def on_error(_: Request, error: errors.AttuneError) -> JSONResponse:
        status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
        return JSONResponse({"error": type(error).__name__, "message": str(error)}, status)

    @app.exception_handler(InternalNetworkError)
    async def on_lost_executor(_: Request, error: InternalNetworkError) -> JSONResponse:
        message = f"A part of the service does not answer ({error.details()}). Start the service again"
        return JSONResponse({"error": "ServiceUnavailable", "message": message}, 503)

    @app.exception_handler(ValidationError)
    @app.exception_handler(RequestValidationError)
    async def on_bad_body(_: Request, error: ValidationError | RequestValidationError) -> JSONResponse:
        lines = [f"- {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        message = "\n".join(["The request's body cannot be used:", *lines])
        return JSONResponse({"error": "DataError", "message": message}, 422)

    return app


async def post(streamer: GatewayStreamer, path: str, docs: list[BaseDoc], parameters: dict[str, Any]) -> list[BaseDoc]:
    """Sends documents to an endpoint of the Flow.

    Raises:
        AttuneError: what the executor raised.
    """
    return read_answer(path, await streamer.process_single_data(make_request(path, docs, parameters)))


def _add_route(app: FastAPI, streamer: GatewayStreamer, path: str, endpoint: Endpoint) -> None:
    name = path.strip("/").replace("/", "_")
    takes: Any = create_model(
        f"{name}_request",
        data=(list[json_model(endpoint.takes)], ...),  # type: ignore[misc]
        parameters=(dict[str, Any], Field(default_factory=dict)),
    )
    gives: type[BaseModel] = create_model(f"{name}_answer", data=(list[json_model(endpoint.gives)], ...))  # type: ignore[misc]

    async def route(body: takes) -> JSONResponse:
        docs = [from_json(endpoint.takes, item) for item in body.data]
        return JSONResponse({"data": [to_json(doc) for doc in await post(streamer, path, docs, body.parameters)]})

    app.post(path, summary=endpoint.summary, operation_id=name, response_model=gives)(route)


def _add_event_stream(app: FastAPI, streamer: GatewayStreamer) -> None:
    async def follow(name: str, after: int) -> AsyncIterator[str]:
        while True:
            # The state is asked for before the events: a run that has ended has written its last one.
            run = (await post(streamer, "/runs/get", [RunQuery(name=name)], {}))[0]
            events = await post(streamer, "/runs/events", [RunQuery(name=name, after=after)], {})
            for event in events:
                assert isinstance(event, RunEvent)
                after = event.number
                yield f"id: {after}\nevent: {event.kind}\ndata: {event.model_dump_json(exclude={'id'})}\n\n"
            assert isinstance(run, FinetuningRun)
            if run.state in END_STATES and not events:
                return
            if not events:
                await asyncio.sleep(POLL_SECONDS)

    @app.get("/runs/{name}/events", summary="A run's history as server-sent events, until it ends")
    async def run_events(name: str, request: Request, after: int = 0) -> StreamingResponse:
        await post(streamer, "/runs/get", [RunQuery(name=name)], {})  # an unknown run is a 404, not a broken stream
        last = request.headers.get("last-event-id", "")  # a browser that reconnects says what it has
        return StreamingResponse(follow(name, int(last) if last.isdigit() else after), media_type="text/event-stream")

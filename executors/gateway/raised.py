"""What an executor raised, as an error that a caller can use, and without the traceback that Jina puts beside it."""

import logging
import traceback
from typing import Any

from docarray import DocList
from jina.excepts import EstablishGrpcConnectionError, InternalNetworkError
from jina.proto import jina_pb2
from jina.types.request.data import DataRequest
from pydantic import ValidationError

from attune.characters import shortened, visible
from attune.errors import AttuneError, DataError, ServiceUnavailable, error_from_name
from attune.schemas import ENDPOINTS
from attune.service.settings import service_settings

logger = logging.getLogger(__name__)

LONGEST_TRACE = 20_000  # characters


def raised_in(answer: DataRequest, request: DataRequest) -> AttuneError | None:
    """The error that an answer holds, if it does.

    Args:
        answer: what came back from the executors.
        request: what was sent; an error that is not Attune's own is blamed on its documents if these cannot be read.
    """
    status = answer.status
    if status.code != status.ERROR:
        return None
    raised = status.exception
    error = error_from_name(raised.name, " ".join(raised.args))
    if type(error).__name__ == raised.name:
        return error
    return unreadable(request) or _unexpected(raised.name, "".join(raised.stacks))


def unreadable(request: DataRequest) -> DataError | None:
    """Why a request's documents are not what its endpoint takes; None if they are."""
    takes = ENDPOINTS[request.header.exec_endpoint].takes
    try:
        DocList[takes].from_protobuf(request.proto_with_data.data.docs)
    except Exception as error:  # docarray raises whatever comes up on the way
        return DataError(f"The request's documents are no {takes.__name__}: {_shortly(error)}")
    return None


def error_of(error: Exception) -> AttuneError:
    """The error for a caller, of any that came up in the gateway."""
    if isinstance(error, AttuneError):
        return error
    if isinstance(error, InternalNetworkError | EstablishGrpcConnectionError) or _was_broken_off(error):
        logger.error(
            "a part of the service does not answer: %s",
            error.details() if isinstance(error, InternalNetworkError) else error,
        )
        return ServiceUnavailable("A part of the service does not answer. It may be starting again: ask again in a while")
    return _unexpected(type(error).__name__, "".join(traceback.format_exception(error)))


def _was_broken_off(error: Exception) -> bool:
    """Whether an executor that stops has cancelled each attempt at a call: Jina then unpacks an answer that is not there."""
    return isinstance(error, TypeError) and traceback.extract_tb(error.__traceback__)[-1].name == "_wait_previous_and_send"


def write_error(answer: DataRequest, error: AttuneError) -> None:
    """Puts an error in the place of whatever an answer says went wrong, in Jina's way."""
    status = answer.status
    stacks = list(status.exception.stacks) if service_settings().debug else []
    status.Clear()
    for route in answer.routes:  # each executor on the way has noted its own traceback
        route.ClearField("status")
    status.code = jina_pb2.StatusProto.ERROR
    status.description = str(error)
    status.exception.name = type(error).__name__
    status.exception.args.append(str(error))
    status.exception.stacks.extend(stacks)


def _unexpected(name: str, trace: str) -> AttuneError:
    name = shortened(" ".join(visible(name).split()), 200)
    logger.error("unexpected %s\n%s", name, visible(trace[-LONGEST_TRACE:]))
    shown = f"\n{trace}" if service_settings().debug else ""
    return AttuneError(f"The service failed at this request, by a mistake of its own ({name}). Its log says more{shown}")


def _shortly(error: Any) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
    return (str(error).splitlines() or [""])[0][:300] or type(error).__name__

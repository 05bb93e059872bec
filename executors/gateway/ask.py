"""What the executors behind the gateway say to a request."""

from jina.serve.runtimes.gateway.streamer import GatewayStreamer
from jina.types.request.data import DataRequest

from attune.errors import AttuneError, ServiceUnavailable
from executors.gateway.guard import Guard
from executors.gateway.raised import raised_in


async def ask(streamer: GatewayStreamer, guard: Guard, request: DataRequest) -> tuple[DataRequest, AttuneError | None]:
    """Passes a request on.

    Returns:
        What came back, and the error that an executor raised, if one did.

    Raises:
        ServiceUnavailable: if the gateway is about to stop. Jina closes its connections to the executors, and these stop
            themselves, while it still takes requests: what then goes wrong is nobody's mistake.
    """
    if guard.is_closing:
        raise _stopping()
    try:
        answer = await streamer.process_single_data(request)
    except Exception:
        if guard.is_closing:
            raise _stopping() from None
        raise
    error = raised_in(answer, request)
    if guard.is_closing and type(error) is AttuneError:
        raise _stopping()
    return answer, error


def _stopping() -> ServiceUnavailable:
    return ServiceUnavailable("The service is about to stop. Ask again when it is back")

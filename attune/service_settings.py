"""What the operator of a service sets, by environment variables, once for all of its processes."""

import os
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from attune.errors import SettingsError

PREFIX = "ATTUNE_"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", re.IGNORECASE)


def parse_size(value: Any) -> Any:
    """Bytes of a size such as `200GB` or `500 MB`; what is no text is left as it is.

    Raises:
        ValueError: if it is no size.
    """
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None:
        raise ValueError("is no size. Write a number and B, KB, MB, GB or TB: 200GB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


Bytes = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]


class ServiceSettings(BaseModel):
    """Each is the environment variable `ATTUNE_` and its name in capitals."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    concurrent_runs: int = Field(default=1, ge=1, description="Runs at work at once on one device; the others wait.")
    disk_quota: Bytes = Field(
        default=0, description="The most that `ATTUNE_HOME` may hold, such as `200GB`; 0 is all there is."
    )
    keep_uploads_hours: float = Field(
        default=24, gt=0, description="Pushes that nobody went on with for so long are removed."
    )
    keep_checkpoints_days: float = Field(
        default=30, ge=0, description="What an unfinished training goes on from is removed so long after a run's end."
    )
    max_request: Bytes = Field(default=128 * 10**6, ge=10**6, description="The largest request, such as `128MB`.")
    requests_per_second: float = Field(
        default=200, ge=0, description="Of one caller, over a minute; more are refused. 0 is no such limit."
    )
    tokens: Path | None = Field(default=None, description="File of access tokens; without one nobody is asked for a token.")
    tls_certificate: Path | None = Field(default=None, description="PEM file of the gateway's certificate chain.")
    tls_key: Path | None = Field(default=None, description="PEM file of its private key.")


@cache
def service_settings() -> ServiceSettings:
    """The settings of this process's environment.

    Raises:
        SettingsError: with everything that is wrong with them.
    """
    given = {name: os.environ.get(f"{PREFIX}{name.upper()}") for name in ServiceSettings.model_fields}
    try:
        return ServiceSettings.model_validate({name: value for name, value in given.items() if value})
    except ValidationError as error:
        lines = [f"- {PREFIX}{str(item['loc'][0]).upper()} = {item['input']!r}: {item['msg']}" for item in error.errors()]
        raise SettingsError("\n".join(["The service's settings cannot be used:", *lines])) from error

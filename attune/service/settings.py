"""What the operator of a service sets, by environment variables, once for all of its processes."""

import os
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from attune.choices import did_you_mean
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


def parse_folders(value: Any) -> Any:
    """The folders of a list with a colon between them; what is no text is left as it is.

    Raises:
        ValueError: if one of them is not absolute.
    """
    if not isinstance(value, str):
        return value
    folders = [Path(part).expanduser() for part in value.split(os.pathsep) if part]
    relative = [str(folder) for folder in folders if not folder.is_absolute()]
    if relative:
        raise ValueError(f"has folders that are not absolute: {', '.join(relative)}. Write them from / on")
    return tuple(folders)


def parse_packages(value: Any) -> Any:
    """The packages of a list with commas between them; what is no text is left as it is.

    Raises:
        ValueError: if one of them cannot be a package's name.
    """
    if not isinstance(value, str):
        return value
    packages = tuple(value.replace(",", " ").split())
    if wrong := [name for name in packages if not all(part.isidentifier() for part in name.split("."))]:
        raise ValueError(f"has names that are no Python package's: {', '.join(wrong)}. Write them as in `import`")
    return packages


def parse_hosts(value: Any) -> Any:
    """The hosts of a list with commas between them, in small letters; what is no text is left as it is."""
    return tuple(value.lower().replace(",", " ").split()) if isinstance(value, str) else value


Bytes = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]
Folders = Annotated[tuple[Path, ...], BeforeValidator(parse_folders)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(parse_hosts)]
Packages = Annotated[tuple[str, ...], BeforeValidator(parse_packages)]

OTHER_VARIABLES = {
    f"{PREFIX}{name}" for name in ("HOME", "ARTIFACT", "INDEX", "URL", "SEARCH_URL", "TOKEN", "CA", "LAUNCHER")
}
"""Of the search Flow, of clients, and of processes that start each other."""


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
    host: str = Field(
        default="127.0.0.1", description="Address the gateway listens on; `0.0.0.0` for all of this machine's. Needs tokens."
    )
    max_request: Bytes = Field(default=128 * 10**6, ge=10**6, description="The largest request, such as `128MB`.")
    requests_per_second: float = Field(
        default=200,
        ge=0,
        description="Of one caller, for longer than ten seconds; more are asked to wait. 0 is no such limit.",
    )
    tokens: Path | None = Field(
        default=None,
        description="File of access tokens; `tokens.json` in `ATTUNE_HOME` if that is there. "
        "Without either nobody is asked for a token.",
    )
    uri_roots: Folders = Field(
        default=(), description="Folders below which the service reads pictures by path, `/pictures:/more`; none by default."
    )
    uri_hosts: Hosts = Field(
        default=(),
        description="Hosts from which the service reads pictures by http(s) address, `images.example.org,10.0.0.7:8080`; "
        "none by default. A name must resolve to public addresses; an IP address written here may be a private one.",
    )
    model_roots: Folders | None = Field(
        default=None,
        description="Folders below which requests may name models, checkpoints and prompt files, beside the runs' own. "
        "Without it: anywhere, but nowhere once there are tokens or `ATTUNE_INSECURE`.",
    )
    tracking_hosts: Hosts = Field(
        default=(),
        description="Hosts to which runs may send their figures: `mlflow.example.org,10.0.0.7:5000` for an `MLflowLogger` "
        "that names one, `api.wandb.ai` for a `WandBLogger` that is online; none by default. Names and addresses as in "
        "`ATTUNE_URI_HOSTS`. What the environment has for such servers, as `MLFLOW_TRACKING_TOKEN`, is sent to them.",
    )
    callback_packages: Packages = Field(
        default=(),
        description="Python packages from which runs may use callbacks of their own, `mypackage,other.callbacks`; none by "
        "default. Their code runs as the service's.",
    )
    tls_certificate: Path | None = Field(default=None, description="PEM file of the gateway's certificate chain.")
    tls_key: Path | None = Field(default=None, description="PEM file of its private key.")
    insecure: bool = Field(default=False, description="`1` lets the gateway listen beyond this machine without tokens.")
    debug: bool = Field(default=False, description="`1` sends the traceback of an error to the caller, too.")

    @field_validator("tls_certificate", "tls_key")
    @classmethod
    def _is_a_file(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError("is no file. Give the path of a PEM file")
        return path

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("ATTUNE_TLS_CERTIFICATE and ATTUNE_TLS_KEY belong together: set both, or neither")
        return self


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
        raise SettingsError("\n".join(["The service's settings cannot be used:", *map(_line, error.errors())])) from error


def unknown_variables() -> dict[str, str]:
    """Variables of this process's environment that look like settings and are none, each with the one it may be meant as."""
    known = {f"{PREFIX}{name.upper()}" for name in ServiceSettings.model_fields} | OTHER_VARIABLES
    return {name: did_you_mean(name, known) for name in sorted(os.environ) if name.startswith(PREFIX) and name not in known}


def _line(item: Any) -> str:
    name = f"{PREFIX}{str(item['loc'][0]).upper()} = {item['input']!r}: " if item["loc"] else ""
    return f"- {name}{item['msg'].removeprefix('Value error, ')}"

"""Access tokens: who may call the service, and whether they may change anything.

The file holds names, roles and SHA-256 hashes; a token itself is shown once, when it is made. It is 256 random bits, so
its hash needs no salt and no slow function. Whoever can read the service's home can act as the service: its own token,
by which its processes call each other, lies there in plain text, readable by its user alone.
"""

import hashlib
import hmac
import ipaddress
import json
import logging
import os
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from attune.errors import SettingsError
from attune.files import locked, whole_file
from attune.home import home
from attune.names import is_name
from attune.service.settings import service_settings

logger = logging.getLogger(__name__)

ROLES = ("read", "full")
SERVICE = "service"


@dataclass(frozen=True)
class Token:
    """What is kept of a token.

    Attributes:
        name: who holds it.
        role: `read`: may look at everything and change nothing; `full`: may do all.
        sha256: hash of the token, hexadecimal.
        created_at: ISO 8601, UTC.
    """

    name: str
    role: str
    sha256: str
    created_at: str


class Tokens:
    """The tokens of a file, read again whenever it has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version: tuple[int, int, int] | None = None
        self._tokens: list[Token] = []

    def holder(self, token: str) -> Token | None:
        """Whose token it is; None if nobody's. All are compared, so the time taken tells nothing."""
        found = None
        for known in self._current():
            if hmac.compare_digest(known.sha256, _hash(token)):
                found = known
        return found

    def _current(self) -> list[Token]:
        try:
            status = self.path.stat()
            version = status.st_mtime_ns, status.st_size, status.st_ino
            if version != self._version:
                self._tokens, self._version = read_tokens(self.path), version
        except (OSError, SettingsError) as error:  # nobody gets in by a file that cannot be read
            logger.error("No token is accepted: %s", error)
            self._tokens, self._version = [], None
        return self._tokens


def tokens_file() -> Path:
    """Where the tokens are: the setting `tokens`, else `tokens.json` in the service's home."""
    return service_settings().tokens or home() / "tokens.json"


def tokens_required() -> bool:
    """Whether callers need a token: there is a file of tokens, or one was named that is yet to come."""
    return service_settings().tokens is not None or tokens_file().exists()


def read_tokens(path: Path) -> list[Token]:
    """The tokens of a file; none if it is not there.

    Raises:
        SettingsError: if it is no file of tokens.
    """
    try:
        return [Token(**fields) for fields in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            f"{path} is no file of tokens ({type(error).__name__}). Make one with `python -m flows.tokens add NAME`"
        ) from error


def add_token(path: Path, name: str, role: str) -> str:
    """A new token; it is kept nowhere.

    Raises:
        SettingsError: if the name or the role cannot be used, or the name is taken.
    """
    if not is_name(name) or name == SERVICE:
        raise SettingsError(f"{name!r} cannot be a token's name. Use letters, digits, '.', '_' and '-'")
    if role not in ROLES:
        raise SettingsError(f"role = {role!r} is unknown. Choose one of: {', '.join(ROLES)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(_lock(path)):
        tokens = read_tokens(path)
        if name in [token.name for token in tokens]:
            raise SettingsError(f"There is a token of the name {name!r}. Remove it first, or choose another name")
        token = f"attune_{secrets.token_urlsafe(32)}"
        _write(path, [*tokens, Token(name, role, _hash(token), datetime.now(UTC).isoformat(timespec="seconds"))])
    return token


def remove_token(path: Path, name: str) -> None:
    """Makes a token worthless, at once.

    Raises:
        SettingsError: if there is none of that name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(_lock(path)):
        tokens = read_tokens(path)
        left = [token for token in tokens if token.name != name]
        if len(left) == len(tokens):
            known = ", ".join(token.name for token in tokens)
            raise SettingsError(f"There is no token of the name {name!r} in {path}. Tokens: {known or 'none'}")
        _write(path, left)


def service_token() -> str:
    """The token of the service's own processes, the same in each of them; made by the first that asks."""
    path = home() / ".service-token"
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(_lock(path)):
        if not path.exists():
            _write_private(path, f"attune_{secrets.token_urlsafe(32)}")
        return path.read_text(encoding="utf-8")


def is_loopback(host: str) -> bool:
    """Whether the name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_exposure() -> None:
    """Refuses to listen beyond this machine where nobody is asked who they are.

    Raises:
        SettingsError: saying what to do.
    """
    settings = service_settings()
    if not (is_loopback(settings.host) or tokens_required() or settings.insecure):
        raise SettingsError(
            f"ATTUNE_HOST = {settings.host!r} would open the service to the network, and it has no tokens. Make one with "
            "`python -m flows.tokens add NAME`; or set ATTUNE_INSECURE=1 if something else keeps others out"
        )


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _lock(path: Path) -> Path:
    return path.with_name(f".{path.name.removeprefix('.')}.lock")


def _write(path: Path, tokens: list[Token]) -> None:
    _write_private(path, json.dumps([asdict(token) for token in tokens], indent=2) + "\n")


def _write_private(path: Path, text: str) -> None:
    with whole_file(path) as draft:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        draft.write_text(text, encoding="utf-8")

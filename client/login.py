"""Tokens that a user keeps, one for each service address, in a file that only this user can read."""

import json
import os
from pathlib import Path

from attune.errors import AuthenticationError, ServiceUnavailable, SettingsError
from attune.files import whole_file


def login(url: str, token: str) -> None:
    """Keeps the token for this service address, if the service takes it. `AttuneClient(url)` then uses it.

    Args:
        url: as `AttuneClient` takes it: `grpcs://attune.example.org:51000`.
        token: what `python -m flows.tokens add NAME` printed.

    Raises:
        AuthenticationError: if the service does not know the token, or it would travel unencrypted.
        ServiceUnavailable: if nothing answers there.
    """
    from attune.schemas import RunQuery
    from client.transport import connect

    transport = connect(url, "flows/finetune.yml", token)
    if not transport.address.authorization:
        raise AuthenticationError("There is no token to keep: it is empty")
    try:
        transport.call("/runs/list", [RunQuery(limit=1)])
    except ServiceUnavailable as error:
        if "does not serve" not in str(error):  # a search service, which has looked at the token first
            raise
    tokens = _read()
    tokens[transport.address.url] = token.strip()
    _write(tokens)


def logout(url: str) -> None:
    """Forgets the token of a service address; that there is none is no error."""
    tokens = _read()
    if tokens.pop(url.rstrip("/"), None) is not None:
        _write(tokens)


def stored_token(url: str) -> str | None:
    """The token kept for a service address, if there is one.

    Raises:
        SettingsError: if the file of tokens cannot be read.
    """
    return _read().get(url)


def login_file() -> Path:
    """Where tokens are kept: `attune/tokens.json` in the user's configuration folder."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "attune" / "tokens.json"


def _read() -> dict[str, str]:
    try:
        return dict(json.loads(login_file().read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"{login_file()} cannot be read ({type(error).__name__}). Remove it and log in again") from error


def _write(tokens: dict[str, str]) -> None:
    login_file().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with whole_file(login_file()) as draft:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        draft.write_text(json.dumps(tokens, indent=2) + "\n", encoding="utf-8")

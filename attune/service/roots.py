"""Paths that come with a request: which of them the service may touch."""

from collections.abc import Sequence
from pathlib import Path

from attune.home import home
from attune.service.settings import service_settings
from attune.service.tokens import tokens_required


def is_below(path: Path, roots: Sequence[Path]) -> bool:
    """Whether the path, with all links followed, lies in one of the folders or is one of them."""
    try:
        resolved = path.resolve()
        return any(resolved.is_relative_to(root.resolve()) for root in roots)
    except (OSError, ValueError, RuntimeError):  # a name that is too long, a NUL, links that lead in a circle
        return False


def request_roots() -> tuple[Path, ...] | None:
    """Folders below which a request may name models and prompt files; None is anywhere.

    A service without tokens listens on its own machine only, where whoever asks could read the files anyway. One that
    asks for tokens, or was told to do without them, serves people who could not.
    """
    settings = service_settings()
    if settings.model_roots is None and not (tokens_required() or settings.insecure):
        return None
    return (home() / "runs", *(settings.model_roots or ()))


def local_path(text: str, roots: Sequence[Path] | None) -> Path | None:
    """The file or folder of that name; None if there is none, or a request may not name it.

    The two are not told apart: nobody learns what lies elsewhere.

    Args:
        text: as it came.
        roots: folders that it must lie in; None is anywhere.
    """
    try:
        path = Path(text).expanduser()
        if roots is not None and not is_below(path, roots):
            return None
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):
        return None

"""Where Puna keeps what is its own on this machine. A place that cannot be known is None."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path


def models() -> Path | None:
    """The models directory, where no setting names one. None: this user has no home."""
    import platformdirs

    base = _known(platformdirs.user_data_path)
    return None if base is None else base / "models"


def ollama_models() -> tuple[Path, ...]:
    """Where an Ollama keeps its models, unless it was told otherwise: this user's own, and the service's on Linux."""
    services = (Path("/usr/share/ollama/.ollama/models"), Path("/var/lib/ollama/models"))
    try:
        return (Path.home() / ".ollama" / "models", *services)
    except RuntimeError:  # this user has no home
        return services


def key() -> Path | None:
    """The private key by which registries know this user, unless Ollama has made one. None: this user has no home."""
    import platformdirs

    base = _known(platformdirs.user_data_path)
    return None if base is None else base / "id_ed25519"


def state() -> Path | None:
    """Logs, the record of running servers, the history of conversations. None: this user has no home."""
    import platformdirs

    return _known(platformdirs.user_state_path)


def cache() -> Path | None:
    """What can be made anew. None: this user has no home."""
    import platformdirs

    return _known(platformdirs.user_cache_path)


def temporary() -> Path | None:
    """For what belongs into `state` where that cannot be written. None where it is not ours alone."""
    if sys.platform == "win32":
        return None  # there is always a home
    path = Path(tempfile.gettempdir()) / f"puna-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError:
        return None
    return path if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() else None


def _known(base: Callable[..., Path]) -> Path | None:
    """None without a home: platformdirs raises then, or, older ones, leaves a '~' that would be a directory's name."""
    try:
        path = base("puna", appauthor=False)
    except RuntimeError:
        return None
    return path if path.is_absolute() else None

"""What to tell whoever named a path that leads to no regular file."""

from __future__ import annotations

from pathlib import Path

from puna.errors import InvalidRequest, NotFound, PunaError


def no_file(path: Path, said: str = "") -> PunaError:
    """Of a path that is no regular file: whether there is nothing, or something else. `said`: as it was named."""
    named = said or path
    return InvalidRequest(f"{named}: not a regular file") if path.exists() else NotFound(f"no such file: {named}")

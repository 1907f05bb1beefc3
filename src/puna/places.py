"""Where Puna keeps what is its own on this machine. Nothing is made here; a place that cannot be known is None."""

from __future__ import annotations

from pathlib import Path


def models() -> Path | None:
    """The models directory, where no setting names one. None: this user has no home."""
    from platformdirs import user_data_path

    return _known(user_data_path("puna", appauthor=False), "models")


def state() -> Path | None:
    """Logs, the record of running servers, the history of conversations. None: this user has no home."""
    from platformdirs import user_state_path

    return _known(user_state_path("puna", appauthor=False))


def _known(base: Path, *parts: str) -> Path | None:
    """A '~' that nobody could resolve is left as it is: that would be a directory below the working one."""
    return base.joinpath(*parts) if base.is_absolute() else None

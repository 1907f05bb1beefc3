"""What the settings say of state becomes a State."""

from __future__ import annotations

from puna import places
from puna.settings import Settings
from puna.state.none import NoState
from puna.state.sqlite import SqliteState
from puna.state.state import DAY_SECONDS, State, StateLimits


def open_state(settings: Settings) -> State:
    """Nothing is made on the disk before something is kept. A user without a home has a temporary directory."""
    directory = settings.state
    if directory is None:
        place = places.state() or places.temporary()
        directory = "off" if place is None else place / "objects"
    if directory == "off":
        return NoState()
    return SqliteState(
        directory, StateLimits(settings.state_records, settings.state_bytes, settings.state_days * DAY_SECONDS)
    )

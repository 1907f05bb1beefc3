"""ResponseIds of responses and of their items: an item's says which response it is of. Pure."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field

_BYTES = 24
_ITEM = re.compile(rf"[a-z]+_([0-9a-f]{{{2 * _BYTES}}})[0-9a-f]{{6}}")


@dataclass(slots=True)
class ResponseIds:
    """ResponseIds of one response, or of what is added to a conversation at once; no two are alike."""

    stem: str = field(default_factory=lambda: secrets.token_hex(_BYTES))
    given: int = 0

    def whole(self, prefix: str) -> str:
        return f"{prefix}_{self.stem}"

    def next(self, prefix: str) -> str:
        """An item's."""
        self.given += 1
        return f"{prefix}_{self.stem}{self.given:06x}"


def response_of(item: str) -> str | None:
    """The response that gave an item this id; None for an id that has another form."""
    found = _ITEM.fullmatch(item)
    return None if found is None else f"resp_{found.group(1)}"

"""Fields of the house's requests, and what one request of a dialect calls them. Pure.

Below `server/` an error or a report names a field as `puna.types` does: `output`, `num_predict`, `tools[3].parameters`.
The client reads its own word for it: `guided_json`, `options.num_predict`, `functions[3].parameters`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_INDEX = re.compile(r"\[([0-9]+)\]")
_BORDER = re.compile(r"[./\[]")


@dataclass(frozen=True, slots=True)
class FieldNames:
    """What a request calls the house's fields.

    `paths`: from the house's path to the request's; `[]` in both stands for an index, which is kept. A path with its
    index is that place alone.

    A longer path of the house wins over a shorter one; a field that has none is called the same in both.
    """

    paths: Mapping[str, str] = field(default_factory=dict)

    def of(self, path: str) -> str:
        """The request's path of a field, or of a place inside it. What follows a `/` is the place in a schema."""
        borders = [found.start() for found in _BORDER.finditer(path)]
        for end in (len(path), *reversed(borders)):
            if path[:end] in self.paths:
                return self.paths[path[:end]] + path[end:]
            named = self.paths.get(_INDEX.sub("[]", path[:end]))
            if named is not None:
                return _indexed(named, _INDEX.findall(path[:end])) + path[end:]
        return path


def _indexed(path: str, indexes: list[str]) -> str:
    """`path` with its `[]` filled in order; an index that it has no place for is left out."""
    for index in indexes:
        path = path.replace("[]", f"[{index}]", 1)
    return path

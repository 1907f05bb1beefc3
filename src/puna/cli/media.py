"""Paths of pictures and sounds inside a prompt: found, read, and taken out of the text."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from puna.errors import InvalidRequest
from puna.plainfile import read_plain

LIMIT = 100 * 1024 * 1024

# A bare `cat.png` is more likely a word than a file: a path begins with a slash or a dot and a slash.
_PATH = re.compile(
    r"(?P<quote>')?(?P<path>(?:[A-Za-z]:)?(?:\./|/|\\)(?:\\.|[^\s\\'])+?\.(?:jpe?g|png|webp|wav))(?(quote)')(?=\s|$|[,;:!?.])",
    re.IGNORECASE,
)
_ESCAPED = re.compile(r"\\([ ()\[\]{}$&;'\\*?~])")


@dataclass(frozen=True, slots=True)
class Attached:
    """A prompt without its paths, and the files behind them. `data`: base64. `notes`: what to tell the user."""

    text: str
    data: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def attach(prompt: str, capabilities: Collection[str]) -> Attached:
    """Paths mean files only to a model that can see or hear, as its `capabilities` say.

    A path that does not exist stays text. InvalidRequest for a file that is too large or of another kind.
    """
    if not {"vision", "audio"} & set(capabilities):
        return Attached(prompt)
    data: list[str] = []
    notes: list[str] = []

    def take(match: re.Match[str]) -> str:
        path = Path(_ESCAPED.sub(r"\1", match["path"]))
        if not path.is_file():
            return match[0]
        try:
            content = read_plain(path, LIMIT)
        except OSError as error:
            raise InvalidRequest(f"{path}: {error.strerror}") from error
        kind = media_kind(content)
        if kind is None:
            raise InvalidRequest(f"invalid file type: {path} is neither jpeg, png, webp nor wave")
        data.append(base64.b64encode(content).decode())
        notes.append(f"Added {kind} '{path}'")
        return ""

    text = _PATH.sub(take, prompt)
    return Attached(text.strip() if data else prompt, tuple(data), tuple(notes))


def media_kind(content: bytes) -> str | None:
    """'image' or 'audio', told from the first bytes."""
    if content.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        return "image"
    if content[:4] == b"RIFF":
        return {b"WEBP": "image", b"WAVE": "audio"}.get(content[8:12])
    return None

"""Text from outside: what is piped in, and the words of the command line. Bytes that are no text are told."""

from __future__ import annotations

import codecs
import sys

from puna.errors import InvalidRequest

LIMIT = 64 * 1024 * 1024
"""Bytes of stdin. A server takes no longer a request unless it is told to."""


def piped_text() -> str:
    """All of stdin, unless it is a terminal. InvalidRequest when it cannot be read, or does not end."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    try:
        data = sys.stdin.buffer.read(LIMIT + 1)
    except OSError as error:
        raise InvalidRequest(f"what is piped in cannot be read: {error.strerror or error}") from error
    if len(data) > LIMIT:
        raise InvalidRequest(f"what is piped in is longer than {LIMIT // 1024 // 1024} MiB: send less of it")
    return _decoded(data.removeprefix(codecs.BOM_UTF8), "what is piped in")


def words_text(words: tuple[str, ...]) -> str:
    """The words of the command line, joined; Python keeps bytes in them that are no text as surrogates."""
    text = " ".join(words)
    try:
        text.encode()
    except UnicodeEncodeError:
        return _decoded(text.encode("utf-8", "surrogateescape"), "the prompt")
    return text


def _decoded(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        print(
            f"Warning: {what} is not UTF-8 (from byte {error.start}): what could not be read is sent as \ufffd",
            file=sys.stderr,
        )
        return data.decode("utf-8", "replace")

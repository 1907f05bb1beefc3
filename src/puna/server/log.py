"""The server's log: one event a line, on stderr, or in a file that is rotated before it grows large."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import ClassVar, Literal

import structlog

MAX_BYTES = 10_000_000
"""A log file that has grown past this is put aside."""

KEPT_FILES = 4
"""Files put aside, `LOG.1` being the youngest; older ones are removed."""


def configure_logging(
    *, debug: bool, quiet: bool = False, file: Path | None = None, form: Literal["text", "json"] = "text"
) -> None:
    """From here on everything that is logged goes to stderr; given `file`, stdout and stderr are that file.

    `form`: a line of words, or one JSON object a line, with `timestamp`, `level`, `event` and what belongs to it.
    `quiet`: warnings and errors only, and none that the request's client is told.
    OSError when the file cannot be written.
    """
    level = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
    stream = LogFile(file) if file is not None else LogStream()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            *([_untold] if quiet else []),
            stream.tell_lost,
            *_rendering(form, colors=file is None and sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # It needs no more of a file than `write` and `flush`.
        logger_factory=structlog.PrintLoggerFactory(file=stream),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=stream, format="%(name)s: %(message)s", force=True)


def _rendering(form: Literal["text", "json"], *, colors: bool) -> tuple[structlog.typing.Processor, ...]:
    if form == "json":
        return structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=True)
    console = structlog.dev.ConsoleRenderer(
        colors=colors,
        exception_formatter=structlog.dev.plain_traceback,
        pad_event_to=0,
        pad_level=False,
        sort_keys=False,
    )
    return _printable, console


class LogStream:
    """stderr, for a log that must never be why a request fails: what cannot be written is lost, and the next line that
    can be says how many were (`lost`).
    """

    descriptor = 2

    lost_by_all: ClassVar[int] = 0
    """Lines that this process has lost since it began."""

    lost = 0
    """Lines since the last one that was written."""

    _torn = False

    def write(self, text: str) -> int:
        line = not text.isspace()
        data = (b"\n" if self._torn and line else b"") + text.encode(errors="backslashreplace")
        left = data
        try:
            while left:
                left = left[os.write(self.descriptor, left) :]
        except OSError:
            self._torn = self._torn or len(left) < len(data)
            if line:
                self.lost += 1
                LogStream.lost_by_all += 1
        else:
            self._torn = False
            if line:
                self.lost = 0
        return len(text)

    def tell_lost(self, _: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Adds it to an event."""
        return {**event, "lost": self.lost} if self.lost else event

    def flush(self) -> None:
        pass


class LogFile(LogStream):
    """`path` in the place of stdout and stderr, so that whatever this process prints is in it. Readable by its user."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, kept: int = KEPT_FILES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        path.parent.mkdir(parents=True, exist_ok=True)
        self._take()

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            if os.fstat(self.descriptor).st_size > self._max_bytes:
                self._rotate()
        return super().write(text)

    def _rotate(self) -> None:
        for number in range(self._kept - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._aside(number).replace(self._aside(number + 1))
        self._path.replace(self._aside(1))
        self._take()

    def _aside(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _take(self) -> None:
        opened = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for descriptor in (1, 2):
            os.dup2(opened, descriptor)
        os.close(opened)


_TOLD = frozenset({"request failed", "stream failed"})


def _untold(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if event["event"] in _TOLD:
        raise structlog.DropEvent
    return event


def _printable(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Texts of clients, such as a path, cannot forge a line or colour the terminal. A traceback keeps its lines."""
    told = {key: _escaped(value) if isinstance(value, str) else value for key, value in event.items()}
    if (request := told.pop("request_id", None)) is not None:
        told["id"] = request  # last: the eye looks for the rest
    return told


def _escaped(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)

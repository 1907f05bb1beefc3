"""A process that reads the text of one PDF: bytes on its stdin, the text or what is wrong with it on its stdout.

Its arguments are the seconds of a processor and the bytes of memory that it may take.

A PDF is a program of a stranger. A small one may say that it has a million pages, or unpack to all of the memory; here
that ends this process alone.
"""

from __future__ import annotations

import io
import sys

from puna.engine import leash
from puna.engine.confines import bound_memory, bound_time

CPU_SECONDS = 10.0
"""Of a processor, that one PDF may take. A page of text takes some milliseconds."""

ROOM = 512 << 20
"""Bytes of memory beyond those that the process has when it begins."""

MAX_TEXT = 32 << 20
"""Bytes of text of one PDF. No model has a context for so many."""

READ, BROKEN, TOO_LARGE = 0, 3, 4
"""Return codes: the text is told; what is wrong is told; it takes more memory than it may."""


def main(seconds: float, room: int) -> int:
    leash.ignore_interrupt()
    from pypdf import PdfReader

    bound_memory(room)
    bound_time(seconds)
    try:
        text, size = [], 0
        for page in PdfReader(io.BytesIO(sys.stdin.buffer.read())).pages:
            text.append(page.extract_text())
            size += len(text[-1])
            if size > MAX_TEXT:
                return TOO_LARGE
        told, code = "\n".join(text), READ
    except MemoryError:
        return TOO_LARGE
    except Exception as error:  # noqa: BLE001 - whatever its reader makes of a stranger's bytes
        told, code = str(error) or type(error).__name__, BROKEN
    sys.stdout.buffer.write(told.encode("utf-8", "replace"))
    return code


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2])))

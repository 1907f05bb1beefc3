"""A process that reads the text of one PDF (see `strangers`).

A PDF is a program of a stranger. A small one may say that it has a million pages, or unpack to all of the memory; here
that ends this process alone.
"""

from __future__ import annotations

import io
import sys

from puna.server.strangers import Overlong, Rations, told_within

BOUNDS = Rations(cpu_seconds=10.0, wait_seconds=30.0, room=512 << 20)
"""A page of text takes some milliseconds."""

MAX_TEXT = 32 << 20
"""Bytes of text of one PDF. No model has a context for so many."""


def main() -> int:
    from pypdf import PdfReader

    def read(data: bytes) -> bytes:
        text, size = [], 0
        for page in PdfReader(io.BytesIO(data)).pages:
            text.append(page.extract_text())
            size += len(text[-1])
            if size > MAX_TEXT:
                raise Overlong
        return "\n".join(text).encode("utf-8", "replace")

    return told_within(read)


if __name__ == "__main__":
    sys.exit(main())

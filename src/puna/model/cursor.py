"""Cursor: reads forward through a window of a file whose lengths are claims. Nothing is taken beyond the file's end.

Texts lie there as GGUF has them, each behind its length in eight bytes. Only walking over one tells where the next
begins, and a vocabulary has a hundred thousand: those that are short are walked by a pattern, many at a time.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterable
from functools import lru_cache
from io import FileIO
from itertools import groupby

MAX_HEADER_BYTES = 1 << 27
STRETCH = 1 << 8
"""Texts that are walked together, no more than a processor's caches hold; where each so-many-th begins is noted."""
SHORT = 255
"""Bytes of the longest text that a pattern walks over."""
_USUAL = 8
"""Bytes that most texts have about."""
_CHUNK = 1 << 17
_AHEAD = STRETCH * 64
"""Bytes that a stretch of short texts may have together for a pattern to walk over them."""
_MISSES = 64
"""Stretches that a pattern may fail at: each costs as much as five that are walked one by one."""

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")


class Malformed(Exception):
    """What is wrong with a file, in words."""


class Cursor:
    """`size`: of the file in bytes."""

    def __init__(self, file: FileIO, size: int) -> None:
        self.size = size
        self._file = file
        self._start = 0
        self._buffer = b""
        self._at = 0
        self._misses = _MISSES

    @property
    def position(self) -> int:
        return self._start + self._at

    def take(self, count: int) -> bytes:
        at = self._at
        if at + count > len(self._buffer):
            at = self._need(count)
        self._at = at + count
        return self._buffer[at : at + count]

    def number(self, form: struct.Struct) -> int:
        at = self._at
        if at + form.size > len(self._buffer):
            at = self._need(form.size)
        self._at = at + form.size
        value: int = form.unpack_from(self._buffer, at)[0]
        return value

    def skip(self, count: int) -> None:
        self._check(count)
        self.seek(self.position + count)

    def seek(self, position: int) -> None:
        at = position - self._start
        if 0 <= at <= len(self._buffer):
            self._at = at
            return
        self._start, self._buffer, self._at = position, b"", 0
        self._file.seek(position)

    def walk_texts(self, count: int, longest: int = 0) -> tuple[list[int], int]:
        """Walk over texts. Gives where each STRETCH-th begins, and the bytes of the longest, or `longest`."""
        marks: list[int] = []
        for begin in range(0, count, STRETCH):
            marks.append(self.position)
            many = min(STRETCH, count - begin)
            if many < STRETCH or not longest or not self._leap(longest):
                longest = max(longest, self._walk(many))
        return marks, longest

    def texts(self, count: int, budget: int, key: str = "") -> tuple[list[str], int]:
        """Read texts of at most `budget` bytes together; gives what is left of it. `key`: whose they are."""
        texts: list[str] = []
        keep = texts.append
        unpack = U64.unpack_from
        for _ in range(count):
            at = self._at
            if at + 8 > len(self._buffer):
                at = self._need(8)
            length = unpack(self._buffer, at)[0]
            budget -= length
            if budget < 0:
                what = f"the text of {key}" if key else "its texts"
                raise Malformed(f"{what}: {length} bytes are larger than the bound on a header")
            at += 8
            self._at = at
            if at + length > len(self._buffer):
                at = self._need(length)
            self._at = at + length
            keep(str(self._buffer[at : self._at], "utf-8", "replace"))
        return texts, budget

    def texts_at(self, places: Iterable[int], budget: int) -> tuple[list[str], int]:
        """Of the texts ahead those at `places`, which are in order: 0 is the next one. As `texts`."""
        found: list[str] = []
        behind = 0
        for _, group in groupby(enumerate(places), key=lambda pair: pair[1] - pair[0]):
            run = [place for _, place in group]  # one after the other
            self._walk(run[0] - behind)
            texts, budget = self.texts(len(run), budget)
            found += texts
            behind = run[-1] + 1
        return found, budget

    def _leap(self, longest: int) -> bool:
        """Go over a stretch of texts none of which is longer than that. False: stayed where it was."""
        if not self._misses:
            return False
        if len(self._buffer) - self._at < _AHEAD:
            self._check(0)
            self._fill(_AHEAD)
        match = _stretch(min(longest, SHORT)).match(self._buffer, self._at)
        if match is None:
            self._misses -= 1
            return False
        self._at = match.end()
        return True

    def _walk(self, count: int) -> int:
        """Go over texts one by one. Gives the bytes of the longest."""
        longest = 0
        unpack = U64.unpack_from
        buffer, at = self._buffer, self._at
        end = len(buffer)
        for _ in range(count):
            if at + 8 > end:
                self._at = at
                at = self._need(8)
                buffer, end = self._buffer, len(self._buffer)
            length = unpack(buffer, at)[0]
            if length > longest:  # noqa: PLR1730 - max() takes twice as long
                longest = length
            at += 8 + length
            if at > end:
                self._at = end
                self.skip(at - end)
                buffer, at, end = self._buffer, self._at, len(self._buffer)
        self._at = at
        return longest

    def _check(self, count: int) -> None:
        if self.position + count > self.size:
            raise Malformed(
                f"truncated or damaged: {count} more bytes are named at byte {self.position} of {self.size}"
            )
        if self.position + count > MAX_HEADER_BYTES:
            raise Malformed(f"its header is larger than {MAX_HEADER_BYTES} bytes")

    def _need(self, count: int) -> int:
        """Have the next `count` bytes in the buffer, which has fewer; gives where they are in it."""
        self._check(count)
        self._fill(count)
        if len(self._buffer) < count:
            raise Malformed("the file became shorter while it was read")
        return self._at

    def _fill(self, count: int) -> None:
        """Have `count` bytes more in the buffer and perhaps others, or all that there are."""
        parts = [self._buffer[self._at :]]
        have = len(parts[0])
        self._start, self._at = self.position, 0
        while have < count:
            part = self._file.read(max(_CHUNK, count - have))
            if not part:
                break
            parts.append(part)
            have += len(part)
        self._buffer = b"".join(parts)


@lru_cache(maxsize=SHORT)
def _stretch(longest: int) -> re.Pattern[bytes]:
    """STRETCH texts, each behind its length, none longer than that. The lengths tell them apart, so that no text is
    tried in two ways, and none is tried again."""
    lengths = sorted(range(longest + 1), key=lambda length: abs(length - _USUAL))  # they are tried in turn
    one = b"|".join(re.escape(U64.pack(length)) + b".{%d}" % length for length in lengths)
    once = b"+" if sys.version_info >= (3, 11) else b""
    return re.compile(b"(?:%b){%d}%b" % (one, STRETCH, once), re.DOTALL)

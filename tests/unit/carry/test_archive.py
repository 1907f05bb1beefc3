"""Models leave a store in one file and come into another, whole or not at all, whatever the file holds."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.gguf_files import CHATML, gguf_bytes, write_tiny_llama
from fakes.stores import put_model
from puna.carry.incoming import Taken, read_archive
from puna.carry.outgoing import write_archive
from puna.errors import (
    DigestMismatch,
    InvalidRequest,
    ModelFileError,
    ModelNotFound,
    PunaError,
    StoreError,
    Unsupported,
)
from puna.model.digest import Digest
from puna.model.manifest import CONFIG_TYPE, MODEL_TYPE, Layer, Manifest
from puna.model.name import Name
from puna.model.reference import Reference
from puna.store.library import Library
from puna.types import Progress

WEIGHTS = gguf_bytes(chat_template=CHATML)
ONE, TWO = Name.parse("one"), Name.parse("someone/two:v2")


@pytest.fixture
def origin(tmp_path: Path) -> Library:
    root = tmp_path / "origin"
    put_model(root, "one/latest", WEIGHTS, {"system": b"Be brief."})
    put_model(root, "registry.ollama.ai/someone/two/v2", WEIGHTS, {"params": b'{"stop":["<end>"]}'})
    return Library.open(root)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.open(tmp_path / "models")


def quiet(_: Progress) -> None:
    pass


def exported(origin: Library, tmp_path: Path, *names: Name) -> Path:
    path = tmp_path / "a.tar"
    write_archive([Reference(name) for name in names or (ONE, TWO)], origin, path, quiet)
    return path


def taken(data: bytes | Path, library: Library, **more: Any) -> tuple[Taken, ...]:
    return read_archive(io.BytesIO(data.read_bytes() if isinstance(data, Path) else data), library, quiet, **more)


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]


def tar(
    files: Mapping[str, bytes] | Sequence[tuple[str, bytes]],
    change: Callable[[tarfile.TarInfo], None] = lambda info: None,
    **options: Any,
) -> bytes:
    """An archive as another tool writes it; `change` is given each member before."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as archive:
        for name, data in files.items() if isinstance(files, Mapping) else files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            change(info)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def left(library: Library) -> list[Path]:
    """Files of a store, but for its lock."""
    return [path for path in library.root.rglob("*") if path.is_file() and path.name != ".lock"]


def test_what_goes_out_comes_in_to_the_byte(origin: Library, library: Library, tmp_path: Path) -> None:
    path = exported(origin, tmp_path)
    models = taken(path, library)
    assert models == tuple(Taken(name, Digest(origin.resolve(name).digest)) for name in (ONE, TWO))
    for name in (ONE, TWO):
        assert library.manifest_bytes(name) == origin.manifest_bytes(name)
        assert library.resolve(name).weights.read_bytes() == WEIGHTS
    assert {path.name for path in left(library)} == {
        *(path.name for path in (origin.root / "blobs").iterdir()), "latest", "v2"
    }  # fmt: skip


def test_the_same_models_give_the_same_bytes(origin: Library, tmp_path: Path) -> None:
    first = exported(origin, tmp_path, ONE, TWO).read_bytes()
    assert exported(origin, tmp_path, TWO, ONE, TWO).read_bytes() == first
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        infos = archive.getmembers()
    assert [info.name for info in infos] == ["oci-layout", "index.json", *sorted(info.name for info in infos[2:])]
    assert {(info.mtime, info.uid, info.gid, info.uname, info.mode, info.type) for info in infos} == {
        (0, 0, 0, "", 0o644, tarfile.REGTYPE)
    }


def test_the_archive_is_an_image_layout(origin: Library, tmp_path: Path) -> None:
    found = members(exported(origin, tmp_path))
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(found["index.json"])
    assert (index["schemaVersion"], index["mediaType"]) == (2, "application/vnd.oci.image.index.v1+json")
    for entry, name in zip(index["manifests"], (ONE, TWO), strict=True):
        assert entry["annotations"]["org.opencontainers.image.ref.name"] == name.full
        data = found["blobs/sha256/" + entry["digest"].partition(":")[2]]
        assert (Digest.of(data), len(data)) == (Digest.parse(entry["digest"]), entry["size"])
        manifest = json.loads(data)
        for layer in [*manifest["layers"], manifest["config"]]:
            assert len(found["blobs/sha256/" + layer["digest"].partition(":")[2]]) == layer["size"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_others(origin: Library, library: Library, tmp_path: Path, form: int) -> None:
    """In another order, with directories, dots, long names, and files that mean something to somebody else."""
    found = members(exported(origin, tmp_path))
    index = json.loads(found["index.json"])
    for entry in index["manifests"]:
        entry["annotations"].pop("io.containerd.image.name")
    files = {f"./{name}": data for name, data in reversed(found.items()) if name != "index.json"}
    long = "a/" * 60 + "note.txt"
    files = {"manifest.json": b"[]", long: b"?", **files, "index.json": json.dumps(index).encode()}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        directory = tarfile.TarInfo("blobs/sha256/")
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
    steps: list[Progress] = []
    data = out.getvalue()[:512] + tar(files, format=form)
    assert len(read_archive(io.BytesIO(data), library, steps.append)) == 2
    assert f"passing over {long!r}" in [step.status for step in steps]
    assert library.manifest_bytes(TWO) == origin.manifest_bytes(TWO)


def test_members_of_no_model_are_counted_where_they_are_many(origin: Library, library: Library, tmp_path: Path) -> None:
    found = members(exported(origin, tmp_path, ONE))
    steps: list[Progress] = []
    strange = {f"\x1b[2J{number}": b"" for number in range(3000)}
    read_archive(io.BytesIO(tar(found | strange)), library, steps.append)
    told = [step.status for step in steps if step.status.startswith("passing over")]
    assert len(told) == 21
    assert told[-1] == "passing over 2980 more that are no part of a model"
    assert "\x1b" not in "".join(told)


@pytest.mark.parametrize(
    ("mark", "kind"),
    [
        (b'{"imageLayoutVersion":"2.0"}', Unsupported),
        (b"1", ModelFileError),
        (b'{"imageLayoutVersion":1}', Unsupported),
    ],
)
def test_a_layout_of_another_version(
    origin: Library, library: Library, tmp_path: Path, mark: bytes, kind: type[PunaError]
) -> None:
    found = members(exported(origin, tmp_path, ONE)) | {"oci-layout": mark}
    with pytest.raises(kind):
        read_archive(io.BytesIO(tar(found)), library, quiet)
    assert library.names() == []


def test_a_name_for_one_that_has_none(origin: Library, library: Library, tmp_path: Path) -> None:
    found = members(exported(origin, tmp_path, ONE))
    index = json.loads(found["index.json"])
    del index["manifests"][0]["annotations"]
    data = tar(found | {"index.json": json.dumps(index).encode()})
    with pytest.raises(InvalidRequest, match="does not say what sha256"):
        taken(data, library)
    assert left(library) == []
    name = Name.parse("mine")
    taken(data, library, name=name)
    assert library.manifest_bytes(name) == origin.manifest_bytes(ONE)
    with pytest.raises(InvalidRequest, match="2 models"):
        taken(exported(origin, tmp_path), library, name=name)


def test_it_mends_what_is_damaged(origin: Library, library: Library, tmp_path: Path) -> None:
    path = exported(origin, tmp_path, ONE)
    taken(path, library)
    weights = library.resolve(ONE).weights
    weights.write_bytes(bytes(len(WEIGHTS)))
    taken(path, library)
    assert weights.read_bytes() == WEIGHTS


def test_what_is_not_there_or_damaged_does_not_go_out(origin: Library, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"before")
    weights = origin.resolve(ONE).weights
    with pytest.raises(ModelNotFound):
        write_archive([Reference.parse("absent")], origin, path, quiet)
    weights.write_bytes(b"x" * len(WEIGHTS))
    with pytest.raises(ModelFileError, match=f"{Digest.of(WEIGHTS)} is damaged: its bytes"):
        write_archive([Reference(ONE)], origin, path, quiet)
    weights.write_bytes(WEIGHTS[:-1])
    with pytest.raises(ModelFileError, match="is damaged: it has"):
        write_archive([Reference(ONE)], origin, path, quiet)
    weights.unlink()
    with pytest.raises(StoreError, match=str(Digest.of(WEIGHTS))):
        write_archive([Reference(ONE)], origin, path, quiet)
    assert path.read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"origin", "a.tar"}


# ------------------------------------------------------------------------------------------------------ refusals

WEIGHTS_MEMBER = f"blobs/sha256/{Digest.of(WEIGHTS).hex}"


def _changed_index(**changes: Any) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    def change(found: dict[str, bytes]) -> dict[str, bytes]:
        index = json.loads(found["index.json"])
        index["manifests"][0] |= changes
        return found | {"index.json": json.dumps(index).encode()}

    return change


def _remade(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """With another manifest, whose digest and size the index tells rightly."""

    def remake(found: dict[str, bytes]) -> dict[str, bytes]:
        index = json.loads(found["index.json"])
        entry = index["manifests"][0]
        manifest = json.loads(found["blobs/sha256/" + entry["digest"].partition(":")[2]])
        change(manifest)
        data = json.dumps(manifest).encode()
        entry |= {"digest": str(Digest.of(data)), "size": len(data)}
        return found | {f"blobs/sha256/{Digest.of(data).hex}": data, "index.json": json.dumps(index).encode()}

    return remake


def _renamed(manifest: dict[str, Any]) -> None:
    manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar"


def _larger(manifest: dict[str, Any]) -> None:
    manifest["layers"][0]["size"] += 1


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda found: found | {WEIGHTS_MEMBER: WEIGHTS[:-1] + b"!"}, DigestMismatch, WEIGHTS_MEMBER),
        (lambda found: found | {WEIGHTS_MEMBER: WEIGHTS[:-1]}, DigestMismatch, WEIGHTS_MEMBER),
        (lambda found: found | {WEIGHTS_MEMBER: WEIGHTS + b"!"}, DigestMismatch, WEIGHTS_MEMBER),
        (lambda found: {k: v for k, v in found.items() if k != WEIGHTS_MEMBER}, ModelFileError, WEIGHTS_MEMBER),
        (lambda found: {k: v for k, v in found.items() if k != "index.json"}, ModelFileError, "no index.json"),
        (lambda found: found | {"index.json": b"{"}, ModelFileError, "index.json of the archive is damaged"),
        (lambda found: found | {"index.json": b"[1]"}, ModelFileError, "index.json of the archive is damaged"),
        (lambda found: found | {"index.json": b'{"manifests":[]}'}, ModelFileError, "names no model"),
        (lambda found: found | {"index.json": b" " * (4 << 20) + b"{}"}, ModelFileError, "'index.json' is larger"),
        (_changed_index(digest="sha256:" + "0" * 64), ModelFileError, "lacks blobs/sha256/0000"),
        (_changed_index(digest="../../etc/passwd"), ModelFileError, "is no digest"),
        (_changed_index(size=7), ModelFileError, "not as said"),
        (_changed_index(size="7"), ModelFileError, "no number of bytes"),
        (_changed_index(mediaType="application/vnd.oci.image.index.v1+json"), Unsupported, "index of images"),
        (
            _changed_index(annotations={"org.opencontainers.image.ref.name": "../../x"}),
            ModelFileError,
            "a name that is none",
        ),
        (_remade(_renamed), Unsupported, "is no model"),
        (_remade(_larger), ModelFileError, WEIGHTS_MEMBER),
        (_remade(lambda manifest: manifest.pop("config")), ModelFileError, "damaged manifest"),
    ],
)
def test_refusals_by_name(
    origin: Library,
    library: Library,
    tmp_path: Path,
    change: Callable[[dict[str, bytes]], dict[str, bytes]],
    kind: type[PunaError],
    words: str,
) -> None:
    found = members(exported(origin, tmp_path, ONE))
    with pytest.raises(kind) as caught:
        taken(tar(change(found)), library)
    assert words in str(caught.value)
    assert left(library) == []
    assert list(library.downloads.iterdir()) == []


@pytest.mark.parametrize(
    ("type_", "word"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a character device"),
        (tarfile.BLKTYPE, "a block device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.CONTTYPE, "a contiguous file"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"Z", "of an unknown kind"),
    ],
)
def test_only_plain_files(origin: Library, library: Library, tmp_path: Path, type_: bytes, word: str) -> None:
    def change(info: tarfile.TarInfo) -> None:
        if info.name == WEIGHTS_MEMBER:
            info.type, info.linkname = type_, "/etc/passwd"

    with pytest.raises(Unsupported, match=f"{WEIGHTS_MEMBER}' is {word}"):
        taken(tar(members(exported(origin, tmp_path, ONE)), change), library)
    assert left(library) == []


def test_members_that_come_twice(origin: Library, library: Library, tmp_path: Path) -> None:
    found = members(exported(origin, tmp_path, ONE))
    for name in (WEIGHTS_MEMBER, "index.json"):
        with pytest.raises(ModelFileError, match=f"{name}' twice"):
            taken(tar([*found.items(), (name, found[name])]), library)
    assert left(library) == []


@pytest.mark.parametrize(
    ("start", "what"), [(b"\x1f\x8b\x08", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"PK\x03\x04", "zip")]
)
def test_packed_archives_are_told(library: Library, start: bytes, what: str) -> None:
    with pytest.raises(Unsupported, match=f"no tar but {what}: unpack it first"):
        taken(start + bytes(2000), library)


def test_cut_short(origin: Library, library: Library, tmp_path: Path) -> None:
    data = exported(origin, tmp_path, ONE).read_bytes().rstrip(b"\0")
    for at in (0, 100, 511, 512, 700, len(data) // 2, len(data) - 1):
        with pytest.raises(ModelFileError):
            taken(data[:at], library)
        assert left(library) == []


def test_a_member_that_the_disk_has_no_room_for(library: Library) -> None:
    info = tarfile.TarInfo(WEIGHTS_MEMBER)
    info.size = 1 << 60
    with pytest.raises(StoreError, match="no space left") as caught:
        taken(info.tobuf(tarfile.GNU_FORMAT) + bytes(1000), library)
    assert caught.value.code == "disk_full"


def test_descriptions_are_bounded(library: Library) -> None:
    for type_ in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
        info = tarfile.TarInfo("x")
        info.type, info.size = type_, 1 << 40
        with pytest.raises(ModelFileError, match="more than a name takes"):
            taken(info.tobuf(tarfile.GNU_FORMAT) + bytes(1000), library)


class Zeros(io.RawIOBase):
    """A stream of one header, then nothing but zeros."""

    def __init__(self, header: bytes) -> None:
        self._left = header

    def read(self, size: int = -1) -> bytes:
        head, self._left = self._left[:size], self._left[size:]
        return head + bytes(size - len(head))


def test_memory_is_bounded(library: Library) -> None:
    info = tarfile.TarInfo("blobs/sha256/" + "0" * 64)
    info.size = 200 << 20
    tracemalloc.start()
    with pytest.raises(DigestMismatch):
        read_archive(Zeros(info.tobuf(tarfile.GNU_FORMAT)), library, quiet)  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


_NAMES = st.one_of(
    st.sampled_from(["../../x", "/etc/passwd", "blobs/sha256/../../x", "index.json", "blobs/sha256/", "oci-layout"]),
    st.just(WEIGHTS_MEMBER),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=120),
)
_FILES = st.dictionaries(_NAMES, st.one_of(st.binary(max_size=600), st.just(WEIGHTS), st.just(b'{"manifests":[{}]}')))


@given(files=_FILES, flips=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)), max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_is_ever_written_elsewhere(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], flips: list[tuple[int, int]]
) -> None:
    place = tmp_path_factory.mktemp("place")
    library = Library.open(place / "models")
    data = bytearray(tar(files))
    for at, by in flips:
        data[at % len(data)] ^= by
    with pytest.raises(PunaError):
        taken(bytes(data), library)
    assert left(library) == []
    assert [path.name for path in place.iterdir()] == ["models"]


def test_a_model_in_several_files(library: Library, tmp_path: Path) -> None:
    first = write_tiny_llama(tmp_path / "m.gguf", shards=2)
    files = sorted(first.parent.glob("m-0000*.gguf"))
    assert len(files) == 2
    origin = Library.open(tmp_path / "origin")
    layers = [Layer(MODEL_TYPE, origin.blobs.add_file(path), path.stat().st_size, name=path.name) for path in files]
    config = origin.blobs.add_layer(CONFIG_TYPE, b"{}")
    origin.write_manifest(ONE, Manifest(config, tuple(layers)))
    taken(exported(origin, tmp_path, ONE), library)
    assert library.manifest_bytes(ONE) == origin.manifest_bytes(ONE)
    assert library.resolve(ONE).header == origin.resolve(ONE).header

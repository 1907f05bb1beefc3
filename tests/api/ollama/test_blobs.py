"""Blobs: uploaded, or taken from where they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from fakes.gguf_files import CHATML, write_tiny_llama


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def own(serving: Any, tmp_path: Path) -> Iterator[Any]:
    with serving(models=tmp_path / "models") as server:
        yield server


def post(server: Any, digest: str, data: bytes = b"", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.post(f"/api/blobs/{digest}", data, headers=named)


def blob_path(tmp_path: Path, digest: str) -> Path:
    return tmp_path / "models" / "blobs" / digest.replace(":", "-")


def test_upload_then_there(own: Any) -> None:
    digest = digest_of(b"abc")
    assert own.request("HEAD", f"/api/blobs/{digest}").status == 404
    assert post(own, digest, b"abc").status == 201
    assert post(own, digest, b"abc").status == 200
    assert own.request("HEAD", f"/api/blobs/{digest}").status == 200


def test_a_large_blob_is_written_in_blocks(own: Any, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 3 + b"end"
    assert post(own, digest_of(data), data).status == 201
    assert blob_path(tmp_path, digest_of(data)).read_bytes() == data


def test_other_bytes_leave_nothing(own: Any, tmp_path: Path) -> None:
    wrong = digest_of(b"abd")
    answer = post(own, wrong, b"abc")
    assert answer.status == 400
    assert answer.json["error"] == f'digest mismatch, expected "{wrong}", got "{digest_of(b"abc")}"'
    assert list((tmp_path / "models" / "blobs").iterdir()) == []


@pytest.mark.parametrize("digest", ["sha256:abc", "md5:" + "0" * 64, "..%2F..%2Fx", "sha256:" + "g" * 64])
def test_what_is_no_digest_is_refused(own: Any, digest: str) -> None:
    assert post(own, digest, b"abc").status in {400, 404}


def test_a_local_file_is_taken_without_a_second_copy(own: Any, tmp_path: Path) -> None:
    file = tmp_path / "wëights.gguf"
    file.write_bytes(b"weights")
    digest = digest_of(b"weights")
    assert post(own, digest, x_puna_local_file=quote(str(file))).status == 201
    blob = blob_path(tmp_path, digest)
    assert blob.read_bytes() == b"weights"
    # Shared blocks where the file system has them, else the very same file.
    assert blob.stat().st_ino == file.stat().st_ino or blob.stat().st_nlink == 1


@pytest.mark.parametrize("case", ["other bytes", "missing", "directory", "relative", "null"])
def test_refusals_of_local_files_are_all_alike(own: Any, tmp_path: Path, case: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    path = {
        "other bytes": str(secret),
        "missing": str(tmp_path / "missing"),
        "directory": str(tmp_path),
        "relative": "secret",
        "null": "/a\0b",
    }[case]
    answer = post(own, digest_of(b"a guess"), x_puna_local_file=quote(path))
    assert answer.status == 400
    assert answer.json["error"] == "this file cannot be taken from where it is: send its bytes"
    assert not blob_path(tmp_path, digest_of(b"secret")).exists()


def test_a_page_in_a_browser_may_not_name_local_files(own: Any, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"x")
    origin = {"x_puna_local_file": quote(str(file)), "origin": "http://localhost:3000"}
    assert post(own, digest_of(b"x"), **origin).status == 403


def test_files_are_pulled_by_programs_of_this_machine_alone(serving: Any, tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "m.gguf", chat_template=CHATML)
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    with serving(models=tmp_path / "models") as server:
        body = {"model": "mine", "files": {str(path): digest}, "stream": False}
        answer = server.post("/api/pull", body, headers={"origin": "http://localhost"})
        assert (answer.status, server.get("/api/tags").json["models"]) == (403, [])
        assert server.post("/api/pull", body).json == {"status": "success"}
        assert server.chat("Hi", model="mine").status == 200
        shown = server.post("/api/show", {"model": "mine"}).json
        assert shown["source"] == "files of this machine"
        answer = server.post("/api/pull", body | {"files": {str(path): "sha256:12"}})
        assert answer.status == 400

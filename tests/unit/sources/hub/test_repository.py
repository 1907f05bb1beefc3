from pathlib import Path

import pytest

from puna.errors import SourceError
from puna.model.digest import Digest
from puna.settings import SettingError
from puna.sources.hub.access import access
from puna.sources.hub.cache import Cached
from puna.sources.hub.repository import RepoFile, parse_repository
from puna.types import JsonValue

REVISION, DIGEST, BLOB = "1" * 40, "a" * 64, "b" * 40


def test_what_the_api_lists() -> None:
    shape: JsonValue = {
        "id": "Org/Repo",
        "sha": REVISION,
        "tags": ["gguf", "license:mit"],
        "siblings": [
            {"rfilename": "m.gguf", "size": 5, "blobId": BLOB, "lfs": {"sha256": DIGEST, "size": 5}},
            {"rfilename": "template", "size": 3, "blobId": BLOB},
            {"rfilename": "x.gguf", "lfs": {"oid": f"sha256:{DIGEST}", "size": 7}},
            *({"rfilename": path, "size": 1} for path in ("../x", "/x", "a//b", "a\\b", "", "a/../../b")),
            *({"rfilename": "no", "size": size} for size in (None, -1, True, "3")),
            {"size": 3},
            "text",
        ],
    }
    found = parse_repository(shape, "org/repo")
    assert (found.id, found.revision, found.license) == ("Org/Repo", REVISION, "mit")
    assert found.files == (
        RepoFile("m.gguf", 5, Digest(DIGEST), BLOB),
        RepoFile("template", 3, None, BLOB),
        RepoFile("x.gguf", 7, Digest(DIGEST)),
    )
    assert parse_repository({**shape, "id": "other/thing"}, "org/repo").id == "org/repo"


@pytest.mark.parametrize(
    "shape",
    [
        None,
        [],
        {},
        {"sha": "main", "siblings": []},
        {"sha": REVISION},
        {"sha": REVISION, "siblings": {}},
        {"sha": REVISION, "siblings": [{}] * 20_001},
    ],
)
def test_what_is_no_description(shape: JsonValue) -> None:
    with pytest.raises(SourceError):
        parse_repository(shape, "org/repo")


def test_the_tokens_places_in_their_order(tmp_path: Path) -> None:
    home = tmp_path / "home"
    usual = home / ".cache" / "huggingface"
    usual.mkdir(parents=True)
    assert access({}, home).token is None
    assert "no token was sent" in access({}, home).whose
    (usual / "token").write_text("hf_usual\n")
    named = tmp_path / "named"
    named.write_text("hf_named")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_root")
    environment = {}
    for variable, value, token in [
        ("", "", "hf_usual"),
        ("HF_HOME", str(tmp_path / "hf"), "hf_root"),
        ("HF_TOKEN_PATH", str(named), "hf_named"),
        ("HF_TOKEN", "hf_first", "hf_first"),
    ]:
        environment |= {variable: value} if variable else {}
        found = access(environment, home)
        assert found.token is not None
        assert found.token.value == token
        assert token not in found.whose
    assert found.whose == "with the token of HF_TOKEN"
    assert access({"HF_TOKEN": "two words"}, None).token is None


def test_the_endpoint_and_the_cache(tmp_path: Path) -> None:
    plain = access({}, tmp_path)
    assert (plain.endpoint, plain.chosen, plain.offline) == ("https://huggingface.co", False, False)
    assert plain.cache == tmp_path / ".cache" / "huggingface" / "hub"
    own = access({"HF_ENDPOINT": "http://127.0.0.1:9/", "HF_HUB_CACHE": "/c", "HF_HUB_OFFLINE": "1"}, tmp_path)
    assert (own.endpoint, own.chosen, own.cache, own.offline) == ("http://127.0.0.1:9", True, Path("/c"), True)
    assert access({}, None).cache is None
    with pytest.raises(SettingError):
        access({"HF_ENDPOINT": "huggingface.co"}, None)


def test_a_cache_as_the_hubs_client_lays_it_out(tmp_path: Path) -> None:
    root = tmp_path / "models--Org--Repo-x"
    (root / "refs").mkdir(parents=True)
    (root / "blobs").mkdir()
    snapshot = root / "snapshots" / REVISION
    (snapshot / "sub").mkdir(parents=True)
    (root / "refs" / "main").write_text(REVISION)
    (root / "blobs" / DIGEST).write_bytes(b"GGUF")
    (root / "blobs" / BLOB).write_bytes(b"text")
    (snapshot / "sub" / "m.gguf").symlink_to(Path("../../../blobs") / DIGEST)
    (snapshot / "template").symlink_to(Path("../../blobs") / BLOB)
    cached = Cached(tmp_path, "org/repo-x")
    assert cached.blob(Digest(DIGEST)) == root / "blobs" / DIGEST
    assert cached.blob(Digest("c" * 64)) is None
    found = cached.repository()
    assert found is not None
    assert (found.id, found.revision) == ("Org/Repo-x", REVISION)
    assert found.files == (RepoFile("sub/m.gguf", 4, Digest(DIGEST)), RepoFile("template", 4))
    assert cached.file(REVISION, "template") == snapshot / "template"
    assert cached.file(REVISION, "../../refs/main") is None
    assert cached.file("main", "template") is None
    assert Cached(tmp_path, "org/none").repository() is None
    (root / "refs" / "main").write_text("../../..")
    assert cached.repository() is None

"""Pulls from a stand-in hub: which files, whose token, from the hub's own cache, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from fakes.gguf_files import CHATML, Tensor, gguf_bytes, write_tiny_llama
from fakes.hub import REVISION, StandInHub, StandInRepository
from puna.errors import AccessDenied, DigestMismatch, Forbidden, ModelFileError, PunaError, SourceNotFound, Unsupported
from puna.model.digest import Digest
from puna.model.name import Name
from puna.model.shards import ShardName
from puna.sources.hub.hub import Hub
from puna.sources.net import Net, Patience
from puna.sources.source import Terms
from puna.sources.sources import Sources, StoredModel
from puna.store.library import Library
from puna.types import Options

PLAIN = gguf_bytes(chat_template=CHATML, tensors=[Tensor("a", (1000, 2))])
HALF = gguf_bytes(chat_template=CHATML, tensors=[Tensor("a", (2000, 2))])
MMPROJ = gguf_bytes(architecture="clip", tensors=[Tensor("v", (8,))])
TERMS = Terms()


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StandInRepository]:
    directory = tmp_path_factory.mktemp("files")
    write_tiny_llama(directory / "Big-Q8_0.gguf", shards=3)
    shards = {f"Q8_0/{name}": (directory / name).read_bytes() for name in ShardName("Big-Q8_0", 1, 3).all}
    return {
        "Org/Seen-GGUF": StandInRepository(
            {
                "README.md": b"# Seen",
                "Seen-Q8_0.gguf": HALF,
                "Seen-Q4_K_M.gguf": PLAIN,
                "mmproj-Seen-F16.gguf": MMPROJ,
                "template": b"{{ .Prompt }}!",
                "system": b"Be brief.",
                "params": b'{"temperature": 0.5, "stop": ["</s>"]}',
                "LICENSE": b"Do as you like.",
            }
        ),
        "Org/Big-GGUF": StandInRepository(shards),
        "Org/Private-GGUF": StandInRepository({"p-Q4_0.gguf": PLAIN}, token="hf_right"),
        "Org/Gated-GGUF": StandInRepository({"g-Q4_0.gguf": PLAIN}, token="hf_right", gated=True),
        "Org/Odd-GGUF": StandInRepository(
            {
                "mmproj-F16.gguf": PLAIN,
                "adapter-F16.gguf": gguf_bytes(metadata={"general.type": "adapter"}, tensors=[Tensor("a", (8,))]),
                "ok-Q4_0.gguf": PLAIN,
                "cut-Q8_0.gguf": PLAIN[:-5],
            }
        ),
        "Org/Params-GGUF": StandInRepository({"m-Q4_0.gguf": PLAIN, "params": b"[]"}),
    }


@pytest.fixture
async def hub(repositories: dict[str, StandInRepository]) -> AsyncIterator[StandInHub]:
    async with StandInHub(repositories).serving() as running:
        yield running


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.open(tmp_path / "models")


async def pulled(hub: StandInHub, library: Library, name: str, limit: int = 0, **environment: str) -> list[str]:
    net = Net(patience=Patience(first=0.01, most=0.02, stall=2.0), environment={"HF_ENDPOINT": hub.url, **environment})
    try:
        sources = Sources(library, [Hub(net, None, limit=limit)])
        return [step.status async for step in sources.pull(Name.parse(name), TERMS)]
    finally:
        await net.close()


def revision(library: Library, name: str) -> str | None:
    pulled = library.pulls.of(Name.parse(name))
    return None if pulled is None else pulled.revision


async def offered(hub: StandInHub, name: str) -> Any:
    net = Net(environment={"HF_ENDPOINT": hub.url})
    try:
        return await Hub(net, None).offer(Name.parse(name), TERMS)
    finally:
        await net.close()


async def standing(hub: StandInHub, library: Library, name: str) -> str:
    net, parsed = Net(environment={"HF_ENDPOINT": hub.url}), Name.parse(name)
    try:
        stored = Digest.of(library.manifest_bytes(parsed))
        return (await Sources(library, [Hub(net, None)]).freshness([StoredModel(parsed, stored)]))[0].state
    finally:
        await net.close()


async def test_what_a_repository_says_becomes_the_model(hub: StandInHub, library: Library) -> None:
    steps = await pulled(hub, library, "hf.co/Org/Seen-GGUF")
    assert (steps[0], steps[-1]) == ("pulling manifest", "success")
    model = library.resolve(Name.parse("hf.co/Org/Seen-GGUF"))
    assert [path.read_bytes() for path in (model.weights, *model.projectors)] == [PLAIN, MMPROJ]
    assert (model.go_template, model.system, model.licenses) == ("{{ .Prompt }}!", "Be brief.", ("Do as you like.",))
    assert model.options == Options(temperature=0.5, stop=("</s>",))
    assert revision(library, "hf.co/Org/Seen-GGUF") == REVISION
    assert await offered(hub, "hf.co/Org/Seen-GGUF") == await offered(hub, "huggingface.co/org/seen-gguf")
    assert (await offered(hub, "hf.co/Org/Seen-GGUF")).revision == REVISION


async def test_a_second_pull_downloads_nothing_and_another_tag_its_own_weights(
    hub: StandInHub, library: Library
) -> None:
    await pulled(hub, library, "hf.co/Org/Seen-GGUF")
    before = library.resolve(Name.parse("hf.co/Org/Seen-GGUF"))
    hub.asked.clear()
    await pulled(hub, library, "hf.co/Org/Seen-GGUF")
    assert hub.downloads == []
    assert library.resolve(Name.parse("hf.co/Org/Seen-GGUF")).digest == before.digest
    await pulled(hub, library, "huggingface.co/Org/Seen-GGUF:q8_0")
    assert {path.rpartition("/")[2] for path in hub.downloads} == {"Seen-Q8_0.gguf"}


async def test_a_damaged_blob_is_fetched_again_alone(hub: StandInHub, library: Library) -> None:
    await pulled(hub, library, "hf.co/Org/Seen-GGUF")
    model = library.resolve(Name.parse("hf.co/Org/Seen-GGUF"))
    model.projectors[0].write_bytes(bytes(len(MMPROJ)))
    hub.asked.clear()
    await pulled(hub, library, "hf.co/Org/Seen-GGUF")
    assert {path.rpartition("/")[2] for path in hub.downloads} == {"mmproj-Seen-F16.gguf"}
    assert model.projectors[0].read_bytes() == MMPROJ


async def test_shards_stay_shards(hub: StandInHub, library: Library) -> None:
    await pulled(hub, library, "hf.co/Org/Big-GGUF:Q8_0")
    model = library.resolve(Name.parse("hf.co/Org/Big-GGUF:Q8_0"))
    assert [layer.name for layer in model.manifest.layers[:3]] == list(ShardName("Big-Q8_0", 1, 3).all)
    assert len(model.files) == 3
    assert model.licenses == ("apache-2.0",)


async def test_a_token_goes_to_the_hub_and_nowhere_else(hub: StandInHub, library: Library, tmp_path: Path) -> None:
    name = "hf.co/Org/Private-GGUF"
    with pytest.raises(SourceNotFound, match="or it is private \\(no token was sent: set HF_TOKEN"):
        await pulled(hub, library, name)
    with pytest.raises(SourceNotFound, match="or it is private \\(with the token of HF_TOKEN\\)") as caught:
        await pulled(hub, library, name, HF_TOKEN="hf_wrong")
    assert "hf_wrong" not in caught.value.message
    (tmp_path / "token").write_text("hf_right\n")
    await pulled(hub, library, name, HF_TOKEN_PATH=str(tmp_path / "token"))
    assert library.has(Name.parse(name))
    assert hub.tokens == {"hub": {"", "hf_wrong", "hf_right"}, "store": {""}}


async def test_a_gated_repository_says_where_its_terms_are(hub: StandInHub, library: Library) -> None:
    with pytest.raises(AccessDenied) as caught:
        await pulled(hub, library, "hf.co/Org/Gated-GGUF", HF_TOKEN="hf_other")
    where = f"hf.co/Org/Gated-GGUF is gated: accept its terms at {hub.url}/Org/Gated-GGUF (with the token of HF_TOKEN)"
    assert caught.value.message == where
    assert hub.downloads == []
    await pulled(hub, library, "hf.co/Org/Gated-GGUF", HF_TOKEN="hf_right")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("hf.co/Org/None", SourceNotFound, "no such repository"),
        ("hf.co/Org/Seen-GGUF:Q5_K_M", SourceNotFound, "has no quantisation 'Q5_K_M'; it has Q4_K_M, Q8_0"),
        ("hf.co/Org/Odd-GGUF:adapter-F16.gguf", Unsupported, "holds no model but is of the kind 'adapter'"),
        ("hf.co/Org/Odd-GGUF:Q4_0", ModelFileError, "mmproj-F16.gguf is no projector"),
        ("hf.co/Org/Odd-GGUF:Q8_0", ModelFileError, "truncated or damaged"),
        ("hf.co/Org/Params-GGUF", ModelFileError, "'params' is not an object"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_is_listed(
    hub: StandInHub, library: Library, name: str, kind: type[PunaError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        await pulled(hub, library, name)
    assert library.listed() == []
    assert not library.has(Name.parse(name))


async def test_other_bytes_than_listed_are_refused(hub: StandInHub, library: Library) -> None:
    hub.lies.add("Seen-Q4_K_M.gguf")
    with pytest.raises(DigestMismatch):
        await pulled(hub, library, "hf.co/Org/Seen-GGUF")
    assert not library.has(Name.parse("hf.co/Org/Seen-GGUF"))


async def test_a_pull_that_is_left_goes_on_where_it_was(library: Library) -> None:
    data = gguf_bytes(chat_template=CHATML, tensors=[Tensor("a", (1 << 20, 6))])
    repositories = {"Org/Slow-GGUF": StandInRepository({"s-Q4_0.gguf": data})}
    async with StandInHub(repositories, per_second=20_000_000).serving() as hub:
        net = Net(environment={"HF_ENDPOINT": hub.url})
        steps = Sources(library, [Hub(net, None)]).pull(Name.parse("hf.co/Org/Slow-GGUF"), TERMS)
        async with aclosing(steps):
            async for step in steps:
                if (step.completed or 0) >= len(data) // 2 and step.status.startswith("pulling"):
                    break
        await net.close()
        hub.per_second = 0
        half, hub.sent = hub.sent, 0
        await pulled(hub, library, "hf.co/Org/Slow-GGUF")
    assert hub.sent < len(data) - half // 2
    weights = library.resolve(Name.parse("hf.co/Org/Slow-GGUF")).weights
    assert hashlib.sha256(await asyncio.to_thread(weights.read_bytes)).digest() == hashlib.sha256(data).digest()


def cache_of(root: Path, repository: StandInRepository, *, damaged: bool = False) -> Path:
    """As the hub's client leaves it after a download of all files."""
    directory = root / "models--Org--Seen-GGUF"
    snapshot = directory / "snapshots" / REVISION
    for made in (directory / "refs", directory / "blobs", snapshot):
        made.mkdir(parents=True)
    (directory / "refs" / "main").write_text(REVISION)
    for path, data in repository.files.items():
        large = path.endswith(".gguf")
        name = hashlib.sha256(data).hexdigest() if large else hashlib.sha1(data).hexdigest()
        (directory / "blobs" / name).write_bytes(bytes(len(data)) if damaged and large else data)
        (snapshot / path).symlink_to(Path("../../blobs") / name)
    return root


async def test_the_hubs_own_cache_is_used_in_place(
    hub: StandInHub, library: Library, tmp_path: Path, repositories: dict[str, StandInRepository]
) -> None:
    cache = cache_of(tmp_path / "hub", repositories["Org/Seen-GGUF"])
    steps = await pulled(hub, library, "hf.co/Org/Seen-GGUF", HF_HUB_CACHE=str(cache))
    assert hub.downloads == []
    assert "using Seen-Q4_K_M.gguf of the hub's cache" in steps
    blob = cache / "models--Org--Seen-GGUF" / "blobs" / hashlib.sha256(PLAIN).hexdigest()
    model = library.resolve(Name.parse("hf.co/Org/Seen-GGUF"))
    # Blocks are shared where the file system can; elsewhere it is the same file.
    assert model.weights.samefile(blob) or model.weights.stat().st_blocks == blob.stat().st_blocks


@pytest.mark.parametrize("offline", [True, False])
async def test_without_the_hub_its_cache_is_enough(
    library: Library, tmp_path: Path, repositories: dict[str, StandInRepository], offline: bool
) -> None:
    cache = cache_of(tmp_path / "hub", repositories["Org/Seen-GGUF"])
    nobody = StandInHub({}, url="http://127.0.0.1:9")
    environment = {"HF_HUB_CACHE": str(cache)} | ({"HF_HUB_OFFLINE": "1"} if offline else {})
    steps = await pulled(nobody, library, "hf.co/org/seen-gguf:q8_0", **environment)
    assert any(step.startswith("using the hub's cache on this machine: ") for step in steps)
    model = library.resolve(Name.parse("hf.co/org/seen-gguf:q8_0"))
    assert (model.weights.read_bytes(), model.system) == (HALF, "Be brief.")
    assert revision(library, "hf.co/org/seen-gguf:q8_0") == REVISION
    with pytest.raises(PunaError, match="HF_HUB_OFFLINE is set" if offline else "127.0.0.1:9"):
        await pulled(nobody, library, "hf.co/org/other", **environment)


async def test_what_is_damaged_in_the_cache_is_downloaded(
    hub: StandInHub, library: Library, tmp_path: Path, repositories: dict[str, StandInRepository]
) -> None:
    cache = cache_of(tmp_path / "hub", repositories["Org/Seen-GGUF"], damaged=True)
    await pulled(hub, library, "hf.co/Org/Seen-GGUF", HF_HUB_CACHE=str(cache))
    assert library.resolve(Name.parse("hf.co/Org/Seen-GGUF")).weights.read_bytes() == PLAIN
    assert hub.downloads


async def test_a_new_revision_is_told_and_taken(
    hub: StandInHub, library: Library, repositories: dict[str, StandInRepository], monkeypatch: pytest.MonkeyPatch
) -> None:
    await pulled(hub, library, "hf.co/Org/Seen-GGUF")
    later = "f" * 40
    monkeypatch.setattr(repositories["Org/Seen-GGUF"], "revision", later)
    assert (await offered(hub, "hf.co/Org/Seen-GGUF")).revision == later
    assert await standing(hub, library, "hf.co/Org/Seen-GGUF") == "outdated"
    hub.asked.clear()
    await pulled(hub, library, "hf.co/Org/Seen-GGUF")
    assert hub.downloads == []
    assert revision(library, "hf.co/Org/Seen-GGUF") == later
    assert await standing(hub, library, "hf.co/Org/Seen-GGUF") == "current"


async def test_no_more_is_downloaded_than_is_allowed(
    hub: StandInHub, library: Library, repositories: dict[str, StandInRepository]
) -> None:
    """All files of a model together, before the first of them."""
    big = sum(len(data) for path, data in repositories["Org/Big-GGUF"].files.items() if path.endswith(".gguf"))
    with pytest.raises(Forbidden, match=f"hf.co/Org/Big-GGUF would make {big} bytes"):
        await pulled(hub, library, "hf.co/Org/Big-GGUF", limit=big - 1)
    assert hub.downloads == []
    await pulled(hub, library, "hf.co/Org/Big-GGUF", limit=big)
    await pulled(hub, library, "hf.co/Org/Big-GGUF", limit=1)  # all of it is here


async def test_search_and_push(hub: StandInHub, library: Library) -> None:
    net = Net(environment={"HF_ENDPOINT": hub.url})
    try:
        source = Hub(net, None)
        assert [one.name for one in (await source.search("seen", TERMS)).found] == ["hf.co/Org/Seen-GGUF"]
        with pytest.raises(Unsupported, match="cannot push"):
            source.push(Name.parse("hf.co/Org/Seen-GGUF"), library, TERMS)
    finally:
        await net.close()

"""An upload that broke goes on from what the registry has: over dropped connections, a stop, a kill."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.gguf_files import CHATML, Tensor, gguf_bytes
from fakes.registries import TestRegistry
from fakes.uploads import Buffering, Keeper
from puna.errors import Forbidden, SourceUnreachable
from puna.model.digest import Digest
from puna.model.manifest import parse_manifest
from puna.model.name import Name
from puna.sources.registry import push

from .conftest import NEAR, Place

KB = 1024
CHUNK = 256 * KB


def weights(text: str) -> bytes:
    """Some two megabytes, in no other registry's store."""
    return gguf_bytes(chat_template=CHATML, tensors=[Tensor("a", (64, 8200))], metadata={"general.name": text})


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "CHUNK", CHUNK)


def total(data: bytes) -> int:
    return sum(layer.size for layer in dict.fromkeys(parse_manifest(data).blobs))


async def test_connections_that_drop(place: Callable[..., Place]) -> None:
    """At any byte: nothing that the registry has is sent again, and no number of drops is too many that move on."""
    rnd = random.Random(15)
    here = place("here")
    name = Name.parse("127.0.0.1:1/a/dropped:1")
    data = here.put(name, weights=weights("dropped"))
    async with Keeper(breaks=[rnd.randrange(1, CHUNK) for _ in range(12)]).serving() as keeper:
        name = Name.parse(f"{keeper.host}/a/dropped:1")
        here.put(name, weights=weights("dropped"))
        await here.push(name)
        assert keeper.breaks == []
        assert keeper.received == total(data)
        assert keeper.manifests["1"] == here.library.manifest_bytes(name)
        assert {str(layer.digest) for layer in parse_manifest(data).blobs} == set(keeper.blobs)
    assert not here.library.uploads.exists()


async def test_a_registry_that_never_takes_more(place: Callable[..., Place]) -> None:
    here = place("here")
    async with Keeper().serving() as keeper:
        name = Name.parse(f"{keeper.host}/a/stuck:1")
        here.put(name, weights=weights("stuck"))

        async def gone(request: object, session: str) -> None:
            keeper.sessions.clear()
            request.transport.abort()  # type: ignore[attr-defined]

        keeper._patch = gone  # type: ignore[method-assign, assignment]
        with pytest.raises(SourceUnreachable, match=r"^cannot push .*: max retries exceeded"):
            await here.push(name)
        assert keeper.begun == here.net.patience.tries


async def test_uploads_that_go_to_another_host(place: Callable[..., Place]) -> None:
    """As near as the registry is, and no nearer: a public one sends nobody to this machine."""
    here = place("here")
    async with Keeper().serving() as keeper:
        keeper.elsewhere = f"http://localhost:{keeper.host.partition(':')[2]}"
        name = Name.parse(f"{keeper.host}/a/elsewhere:1")
        data = here.put(name, weights=weights("elsewhere"))
        await here.push(name)
        assert keeper.received == total(data)
        keeper.blobs.clear()
        keeper.elsewhere = "http://169.254.169.254"
        with pytest.raises(Forbidden) as caught:
            await here.push(name)
        assert caught.value.code == "private_address"


async def test_an_end_whose_answer_is_lost(place: Callable[..., Place]) -> None:
    here = place("here")
    async with Keeper(mute=True).serving() as keeper:
        name = Name.parse(f"{keeper.host}/a/mute:1")
        data = here.put(name, weights=weights("mute"))
        await here.push(name)
        assert keeper.received == total(data)


async def test_a_push_that_is_stopped(place: Callable[..., Place]) -> None:
    here = place("here")
    async with Keeper().serving() as keeper:
        name = Name.parse(f"{keeper.host}/a/stopped:1")
        data = here.put(name, weights=weights("stopped"))
        steps = here.sources.push(name, NEAR)
        async for step in steps:
            if step.status.startswith("pushing ") and (step.completed or 0) > 3 * CHUNK:
                break
        await steps.aclose()
        (noted,) = here.library.uploads.glob("*/location")
        assert noted.stat().st_mode & 0o077 == 0, "it may let in whoever has it"
        await here.push(name)
        assert keeper.received == total(data)
        assert keeper.begun == len(dict.fromkeys(parse_manifest(data).blobs))
    assert not here.library.uploads.exists()


CODE = """
import asyncio, sys
from pathlib import Path
from puna.model.name import Name
from puna.sources.net import Net, Patience
from puna.sources.registry import push
from puna.sources.registry.credentials import Credentials
from puna.sources.registry.registry import Registry
from puna.sources.source import Terms
from puna.sources.sources import Sources
from puna.store.library import Library
models, name, chunk = sys.argv[1:]
push.CHUNK = int(chunk)
async def main():
    registry = Registry(Net(), Credentials({}, None))
    async for step in Sources(Library.open(Path(models)), [registry]).push(Name.parse(name), Terms(insecure=True, local=True)):
        pass
asyncio.run(main())
"""  # noqa: E501


async def killed_while_held(front: Buffering, models: Path, name: Name) -> None:
    """A push in a process of its own, killed while the request after some others is on its way."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CODE, str(models), name.full, str(CHUNK))
    held, ended = asyncio.create_task(front.held.wait()), asyncio.create_task(process.wait())
    await asyncio.wait([held, ended], return_when=asyncio.FIRST_COMPLETED)
    assert held.done(), "it ended before it was held"
    process.send_signal(signal.SIGKILL)
    assert await ended == -signal.SIGKILL


async def test_a_push_that_is_killed(registry: TestRegistry, place: Callable[..., Place]) -> None:
    """Before a real registry, behind a proxy that hands on whole requests: no chunk that it has is sent again."""
    here = place("here")
    async with Buffering(registry.host, passes=4).serving() as front:
        name = Name.parse(f"{front.host}/ada/killed:1")
        data = here.put(name, weights=weights("killed"))
        await killed_while_held(front, here.library.root, name)
        patched, posted = front.count("PATCH"), front.count("POST")
        assert patched == 4
        assert list(here.library.uploads.glob("*/location"))
        front.passes = None
        steps = await here.push(name)
        blobs = dict.fromkeys(parse_manifest(data).blobs)
        assert front.count("PATCH") == sum(-(-layer.size // CHUNK) for layer in blobs)
        assert front.count("POST") == len(blobs)
        assert posted < len(blobs)
        assert steps[-1].status == "success"
        front.going_on.set()
        there = place("there")
        await there.pull(name)
        assert there.library.manifest_bytes(name) == data
    assert not here.library.uploads.exists()


@pytest.mark.parametrize("text", ["http://127.0.0.1:9/v2/x", "nothing", "ftp://x/y", "http://[", "{}/v2/no/such"])
async def test_a_note_that_holds_no_more(place: Callable[..., Place], text: str) -> None:
    """It begins anew."""
    here = place("here")
    async with Keeper().serving() as keeper:
        name = Name.parse(f"{keeper.host}/a/lost:1")
        data = here.put(name, weights=weights("lost"))
        steps = here.sources.push(name, NEAR)
        async for step in steps:
            if step.status.startswith("pushing ") and (step.completed or 0) > 2 * CHUNK:
                break
        await steps.aclose()
        (noted,) = here.library.uploads.glob("*/location")
        noted.write_text(text.format(f"http://{keeper.host}"))
        await here.push(name)
        assert {str(layer.digest) for layer in parse_manifest(data).blobs} == set(keeper.blobs)
    assert not here.library.uploads.exists()


async def test_two_at_once_send_for_themselves(place: Callable[..., Place]) -> None:
    here = place("here")
    async with Keeper().serving() as keeper:
        name = Name.parse(f"{keeper.host}/a/two:1")
        here.put(name, weights=weights("two"))
        await asyncio.gather(here.push(name), here.push(name))
        assert Digest.of(keeper.manifests["1"]) == Digest.of(here.library.manifest_bytes(name))
    assert not here.library.uploads.exists()

from __future__ import annotations

import asyncio

import pytest
from aiohttp.resolver import ThreadedResolver

from puna.addresses import check_public
from puna.errors import InvalidRequest
from puna.server.openai.fetch import fetch_image


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_public(address):
    check_public([address])


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
     "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "2002:7f00:1::",
     "64:ff9b::7f00:1", "192.0.2.1"],
)  # fmt: skip
def test_not_public(address):
    with pytest.raises(OSError, match="not a public address"):
        check_public(["8.8.8.8", address])


@pytest.mark.parametrize(
    "address",
    [
        "::ffff:127.0.0.1", "::127.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::808:808",
        "64:ff9b:1:7f00:0:100::", "2002:7f00:1::", "2002:c0a8:101::1", "2001:0:808:808::1", "2001:0:7f00:1::",
        "2001:0:808:808:0:0:80ff:fffe", "2a00::5efe:127.0.0.1", "2a00::200:5efe:10.0.0.1", "fe80::1%1", "fec0::1",
        "fd00::1", "ff02::1", "::", "::1", "0.0.0.0", "0.1.2.3", "100.64.0.1", "169.254.169.254", "224.0.0.1",
        "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1", "2001:db8::1",
        "192.0.0.192", "192.0.0.9", "192.88.99.1", "64:ff9b::c000:c0", "2001:1::1", "3fff::1", "5f00::1", "100::1",
    ],
)  # fmt: skip
def test_no_way_to_write_a_private_address_is_public(address):
    with pytest.raises(OSError, match="not a public address"):
        check_public([address])


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "2a00::5efe:8.8.8.8"],
)
def test_public_ones_are(address):
    check_public([address])


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "localhost", "localhost.", "127.0.0.1.",
     "[::1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "[fe80::1%251]", "017700000001", "①②⑦.0.0.1"],
)  # fmt: skip
async def test_no_way_to_write_a_host_reaches_this_machine(host):
    reached = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(host)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(InvalidRequest) as caught:
            await fetch_image(f"http://{host}:{port}/x.png", "messages[0]")
    assert caught.value.param == "messages[0]"
    assert reached == []


async def test_a_name_that_changes_its_mind_is_looked_at_where_it_is_called(monkeypatch):
    """DNS rebinding: the resolver says one thing, what is connected to is another."""
    reached = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(1)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    monkeypatch.setattr("puna.server.openai.fetch._PublicResolver.resolve", ThreadedResolver.resolve)
    monkeypatch.setattr("puna.server.openai.fetch._PublicResolver._loop", asyncio.get_running_loop(), raising=False)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(InvalidRequest, match="not a public address"):
            await fetch_image(f"http://localhost:{port}/x.png", "messages[0]")
    assert reached == []

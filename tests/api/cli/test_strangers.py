"""The command names whatever else is on its port, and uses nothing of it."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from fakes import strangers

COMMANDS = (
    ["run", "tiny", "hi"],
    ["list"],
    ["ps"],
    ["show", "tiny"],
    ["pull", "tiny"],
    ["rm", "tiny"],
    ["serve", "-b"],
)

SILENT = "something that does not answer within 2 s"
"""By the command's own clock: the others are named without waiting."""

KINDS: dict[str, tuple[Callable[[], AbstractContextManager[int]], str]] = {
    "files": (lambda: strangers.http(strangers.Files), r"another HTTP server \(SimpleHTTP.*\)"),
    "silent": (lambda: strangers.tcp(lambda connection: None), SILENT),
    "ssh": (lambda: strangers.tcp(lambda connection: connection.sendall(b"SSH-2.0-x\r\n")), "does not speak HTTP"),
    "closing": (
        lambda: strangers.tcp(lambda connection: connection.shutdown(socket.SHUT_RDWR)),
        "closes its connections",
    ),
}


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_an_ollama_is_named_and_asked_nothing(command: Callable[..., Any], arguments: list[str]) -> None:
    with strangers.ollama() as (port, asked):
        ended = command(f"127.0.0.1:{port}")(*arguments)
    assert (ended.status, ended.out) == (1, "")
    assert re.search(rf"^Error: at http://127.0.0.1:{port} there is Ollama 0\.12\.3 .*not Puna", ended.err)
    assert "--port" in ended.err
    assert "PUNA_HOST" in ended.err
    assert asked == []


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_else_is_there_is_named_soon(command: Callable[..., Any], kind: str) -> None:
    make, words = KINDS[kind]
    with make() as port:
        ended = command(f"127.0.0.1:{port}")("run", "tiny", "hi")
    assert ended.status == 1
    assert re.search(rf"at http://127.0.0.1:{port} there is .*{words}.*, not Puna", ended.err), ended.err
    assert "starting" not in ended.err


def test_serve_names_what_has_its_port(command: Callable[..., Any], server: Any) -> None:
    with strangers.ollama() as (port, _):
        ended = command(f"127.0.0.1:{port}")("serve")
    assert ended.status == 1
    assert "there is Ollama 0.12.3" in ended.err
    ended = command(f"127.0.0.1:{server.port}")("serve")
    assert ended.status == 1
    assert f"a Puna server, version {_version()}, runs at http://127.0.0.1:{server.port} already" in ended.err
    assert "Traceback" not in ended.err


def test_another_version_is_told(command: Callable[..., Any]) -> None:
    with strangers.http(type("Other", (strangers.OtherPuna,), {"asked": []})) as port:
        ended = command(f"127.0.0.1:{port}")("list")
    assert ended.status == 0
    assert "theirs:latest" in ended.out
    assert ended.err.startswith(f"Warning: the running server is Puna 9.9.9, this command is {_version()}")
    assert ended.err.count("Warning") == 1


def test_a_server_with_keys_says_so(command: Callable[..., Any], serving: Any) -> None:
    with serving(api_keys=("right",)) as server:
        without = command(server.url)("list")
        wrong = command(server.url, PUNA_API_KEYS="wrong")("list")
        right = command(server.url, PUNA_API_KEYS="right")("list")
    url = re.escape(server.url)
    assert without.status == wrong.status == 1
    assert re.search(rf"the Puna server at {url} asks for a key: set PUNA_API_KEYS", without.err)
    assert re.search(rf"the Puna server at {url} does not accept this key: set PUNA_API_KEYS", wrong.err)
    assert "tiny:latest" in right.out


def test_no_proxy_stands_before_this_machine(command: Callable[..., Any], server: Any) -> None:
    proxy = "http://127.0.0.1:9"
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    for host in (f"127.0.0.1:{server.port}", f"localhost:{server.port}"):
        ended = command(host, **dict.fromkeys(names, proxy))("list")
        assert (ended.status, ended.err) == (0, "")
        assert "tiny:latest" in ended.out


@pytest.mark.parametrize(
    "where", [["--port", "{port}"], ["--host", "127.0.0.1:{port}"], ["--host=localhost", "--port={port}"]]
)
def test_options_say_where_the_server_is(command: Callable[..., Any], server: Any, where: list[str]) -> None:
    ended = command("127.0.0.1:9")("list", *(item.format(port=server.port) for item in where))
    assert (ended.status, ended.err) == (0, "")
    assert "tiny:latest" in ended.out


def _version() -> str:
    from puna import __version__

    return __version__

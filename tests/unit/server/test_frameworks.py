"""What we rely on inside uvicorn and Starlette. A release that moves it fails here first, and says where to look."""

from __future__ import annotations

import ast
import hashlib
import inspect
from importlib.metadata import requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from packaging.requirements import Requirement
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

PINNED = {"uvicorn": "server/run.py and server/protocol.py", "starlette": "server/app.py"}
"""The packages whose insides are overridden, and where."""

REPLACED: list[tuple[str, str, str, str]] = [
    # What was replaced (module, name), the digest of its source as it was when it was read, what stands in its place.
    (
        "uvicorn.server",
        "Server.main_loop",
        "afccb353a119333f",
        "server/run.py: Server.main_loop calls on_tick(0) once a second",
    ),
    (
        "uvicorn.server",
        "Server.on_tick",
        "60ea49b06ccf68c1",
        "server/run.py: on_tick(0) renews the date and says whether to end",
    ),
    (
        "uvicorn.server",
        "Server.capture_signals",
        "e1bbcd4770d1c887",
        "server/run.py: Server.capture_signals leaves signals alone",
    ),
    (
        "uvicorn.server",
        "Server.handle_exit",
        "553276efa26e09ea",
        "server/run.py: Server.stop sets should_exit as it does",
    ),
    ("uvicorn.server", "Server.startup", "2aa1d70a244bfcf2", "server/run.py: Server.startup says `ready` behind it"),
    (
        "uvicorn.server",
        "Server.shutdown",
        "9b33c50562992b1e",
        "server/run.py: Server.shutdown closes and drains before it",
    ),
    (
        "starlette.applications",
        "Starlette.build_middleware_stack",
        "aca3f8e780a2be62",
        "server/app.py: _App leaves out the outermost layer",
    ),
    (
        "uvicorn.protocols.http.httptools_impl",
        "HttpToolsProtocol",
        "18fdf324b11bf160",
        "server/protocol.py: Protocol replaces its callbacks",
    ),
    (
        "uvicorn.protocols.http.httptools_impl",
        "RequestResponseCycle",
        "e67d470d435dcc1c",
        "server/protocol.py: _Cycle stands around its receive and send",
    ),
]


def written(module: str, name: str) -> str:
    """The source of a class or a method as its file has it: packages of tests may have put another in its place."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    text = Path(spec.origin).read_text(encoding="utf-8")
    found: Any = ast.parse(text)
    for part in name.split("."):
        found = next(node for node in found.body if getattr(node, "name", None) == part)
    first = min([found.lineno, *(decorator.lineno for decorator in found.decorator_list)])
    return "".join(text.splitlines(keepends=True)[first - 1 : found.end_lineno])


@pytest.mark.parametrize("package", PINNED)
def test_a_package_whose_insides_are_overridden_is_pinned_below_its_next_minor_version(package: str) -> None:
    [pinned] = [one for one in map(Requirement, requires("puna") or ()) if one.name == package and not one.marker]
    major, minor = map(int, version(package).split(".")[:2])
    assert version(package) in pinned.specifier, f"{package} has moved: read {PINNED[package]} beside it"
    assert f"{major}.{minor + 1}" not in pinned.specifier
    assert f"{major + 1}.0" not in pinned.specifier
    assert f"{major}.{minor - 1}.99" not in pinned.specifier, "only what the digests below were taken from"


@pytest.mark.parametrize(("module", "name", "digest", "place"), REPLACED, ids=[name for _, name, _, _ in REPLACED])
def test_what_is_overridden_is_what_was_read(module: str, name: str, digest: str, place: str) -> None:
    source = written(module, name)
    seen = hashlib.sha256(source.encode()).hexdigest()[:16]
    assert seen == digest, f"{name} is not what it was. Check {place}, then note {seen}.\n{source}"


def test_uvicorn_has_the_settings_and_the_state_that_are_used() -> None:
    asked = {"access_log", "log_config", "lifespan", "server_header", "headers", "http", "ws"}
    asked |= {"timeout_keep_alive", "timeout_graceful_shutdown"}
    assert asked <= inspect.signature(uvicorn.Config).parameters.keys()
    server = uvicorn.Server(uvicorn.Config(lambda: None))
    assert server.should_exit is False
    assert server.server_state.connections == set()
    assert server.server_state.default_headers == []
    assert callable(HttpToolsProtocol.shutdown), "what Server.shutdown asks of every connection"


def test_starlette_has_the_parts_that_the_stack_is_built_from() -> None:
    app = Starlette()
    assert app.user_middleware == []
    assert app.exception_handlers == {}
    assert app.middleware_stack is None, "built at the first request, by the method we override"

"""Every route of every object that the server keeps: another key's is not there, whichever route there will be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from puna.server.app import create_app

OURS, THEIRS = "our-key", "their-key"
SHARED = ("/v1/models/", "/api/blobs/")
"""What belongs to nobody."""
RUNNING = ("/v1/requests/",)
"""Objects that are there while an answer runs; `test_thoughts` has them."""
PART = b'--x\r\nContent-Disposition: form-data; name="data"; filename="a"\r\n\r\ny\r\n--x--\r\n'
BODIES: dict[str, Any] = {
    "POST /v1/chat/completions/{id}": {"metadata": {"a": "b"}},
    "POST /v1/conversations/{id}": {"metadata": {"a": "b"}},
    "POST /v1/conversations/{id}/items": {"items": [{"role": "user", "content": "x"}]},
    "POST /v1/uploads/{id}/parts": PART,
    "POST /v1/uploads/{id}/complete": {"part_ids": ["part-x"]},
}
SAYS_HI = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
FILE = (
    b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    + json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": SAYS_HI}).encode()
    + b"\n\r\n--x--\r\n"
)


@pytest.fixture(scope="module")
def shared(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with serving(api_keys=(OURS, THEIRS), state=tmp_path_factory.mktemp("owners") / "objects") as server:
        yield server


def ask(server: Any, key: str, method: str, path: str, body: Any = None) -> Any:
    form = {"content-type": "multipart/form-data; boundary=x"} if isinstance(body, bytes) else {}
    return server.request(method, path, body, headers={"authorization": f"Bearer {key}", **form})


def made(server: Any, method: str, path: str, body: Any = None) -> str:
    answer = ask(server, OURS, method, path, body)
    assert answer.status == 200, answer.body
    id_: str = answer.json["id"]
    return id_


def ours(server: Any, path: str) -> str:
    """A path of a route with an object of our own in it."""
    kind = path.partition("{")[0]
    match kind:
        case "/v1/chat/completions/":
            id_ = made(server, "POST", kind[:-1], {**SAYS_HI, "store": True})
        case "/v1/responses/":
            id_ = made(server, "POST", kind[:-1], {"model": "tiny", "input": "Hi", "background": True})
        case "/v1/conversations/":
            first = {"items": [{"role": "user", "content": "x"}]}
            id_ = made(server, "POST", kind[:-1], first)
            item = ask(server, OURS, "GET", f"{kind}{id_}/items").json["data"][0]["id"]
            path = path.replace("{item}", item)
        case "/v1/files/":
            id_ = made(server, "POST", kind[:-1], FILE)
        case "/v1/uploads/":
            about = {"bytes": 1, "filename": "a", "mime_type": "b", "purpose": "evals"}
            id_ = made(server, "POST", kind[:-1], about)
        case "/v1/batches/":
            about = {
                "input_file_id": made(server, "POST", "/v1/files", FILE),
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
            }
            id_ = made(server, "POST", kind[:-1], about)
        case "/v1/messages/batches/":
            line = {"custom_id": "a", "params": {**SAYS_HI, "max_tokens": 9}}
            id_ = made(server, "POST", kind[:-1], {"requests": [line]})
        case _:
            raise AssertionError(f"{path}: whose objects are these? Say it here, or in SHARED")
    return path.replace("{id}", id_)


def test_an_object_of_one_key_is_not_there_for_another(shared: Any) -> None:
    routes = [route for route in create_app(shared.services).routes if "{" in getattr(route, "path", "")]
    asked = 0
    for route in routes:
        path, methods = route.path, route.methods or set()
        if path.startswith((*SHARED, *RUNNING)):
            continue
        for method in sorted(methods - {"HEAD"}):
            filled, body = ours(shared, path), BODIES.get(f"{method} {path}")
            refused = ask(shared, THEIRS, method, filled, body)
            assert refused.status == 404, (method, path, refused.body)
            # It is ours still, and nothing of it was changed or ended.
            assert ask(shared, OURS, method, filled, body).status != 404, (method, path)
            asked += 1
    assert asked > 25


def test_lists_hold_ones_own_alone(shared: Any) -> None:
    for path in ("/v1/chat/completions", "/v1/files", "/v1/batches", "/v1/messages/batches"):
        ours(shared, f"{path}/{{id}}")
        assert ask(shared, OURS, "GET", path).json["data"]
        assert ask(shared, THEIRS, "GET", path).json["data"] == []

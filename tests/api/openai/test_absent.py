"""What OpenAI serves and this server does not: refused in OpenAI's words, for the reason that the reference gives."""

from __future__ import annotations

import re
from pathlib import Path

import openai
import pytest
from starlette.routing import Match

from puna.server.app import create_app
from puna.server.openai.absent import ABSENT

RESOURCES = Path(openai.__file__).parent / "resources"


def published() -> list[str]:
    """Every path that the `openai` package knows."""
    found: set[str] = set()
    for file in RESOURCES.rglob("*.py"):
        if "beta" not in file.parts or "assistants" in file.name or "threads" in file.parts:
            found |= {
                match.partition("?")[0] for match in re.findall(r'"(/[a-z_]+[a-z_/{}]*)[?"]', file.read_text("utf-8"))
            }
    return sorted(f"/v1{path}" for path in found)


@pytest.mark.parametrize("one", ABSENT, ids=lambda one: one.path)
@pytest.mark.parametrize("below", ["", "/some/thing"])
def test_each_is_refused_with_what_is_missing(server, one, below):
    for method in ("GET", "POST"):
        answer = server.request(method, one.path + below)
        assert answer.status == 404
        assert (answer.error["code"], answer.error["type"]) == ("endpoint_not_offered", "invalid_request_error")
        assert one.missing in answer.error["message"]


def test_the_sdk_reads_the_refusal(openai: openai.OpenAI):
    with pytest.raises(Exception, match="no engine here makes images") as refused:
        openai.images.generate(prompt="a cat")
    assert refused.value.code == "endpoint_not_offered"
    with pytest.raises(Exception, match="no engine here speaks"):
        openai.audio.speech.create(model="tiny", input="x", voice="alloy")
    with pytest.raises(Exception, match="categories"):
        openai.moderations.create(input="x")


def test_only_what_is_not_served_is_in_the_table(server):
    routes = create_app(server.services).routes
    for one in ABSENT:
        scope = {"type": "http", "method": "POST", "path": one.path, "headers": []}
        assert all(route.matches(scope)[0] is Match.NONE for route in routes), one.path


def test_all_that_the_sdk_can_call_is_served_or_in_the_table(server):
    assert len(published()) > 100
    routes = create_app(server.services).routes
    unknown = [
        path
        for path in published()
        if not any(path == one.path or path.startswith(f"{one.path}/") for one in ABSENT)
        and all(
            route.matches({"type": "http", "method": method, "path": path, "headers": []})[0] is not Match.FULL
            for route in routes
            for method in ("GET", "POST", "DELETE")
        )
    ]
    assert unknown == []

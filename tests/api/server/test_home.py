"""`/`: the page for browsers, the text for everybody else."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from puna.engine.stand_in import stand_in
from puna.model.listed import Listed
from puna.model.name import Name
from puna.server.home import Home

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href"} or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/plain", ""])
def test_clients_get_ollamas_text(server: Any, accept: str) -> None:
    answer = server.get("/", headers={"accept": accept} if accept else None)
    assert (answer.status, answer.body) == (200, b"Ollama is running")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-puna-version"]
    for headers in (None, BROWSER):
        head = server.request("HEAD", "/", headers=headers)
        assert (head.status, head.body) == (200, b"")


def test_a_browser_gets_a_page_without_anything_from_outside(server: Any) -> None:
    server.chat("Hi", model="tiny")
    answer = server.get("/", headers=BROWSER)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    html = answer.body.decode()
    page = Page(html)
    text = " ".join(page.words)
    for words in ("tiny:latest", "embedder:latest", "scripted", f"{server.url}/v1/", "/api/chat", "4096"):
        assert words in text
    assert not page.tags & {"script", "img", "link", "iframe", "form"}
    assert page.links == []
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    style = re.search("<style>(.*)</style>", html, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy


async def test_what_others_named_is_escaped() -> None:
    """No name of a model and no Host can hold such a thing today; the page does not count on that."""
    named = replace(stand_in(Name.parse("x")), name=Name("h", "n", "<script>alert(1)</script>", 't"&'))
    services: Any = SimpleNamespace(
        library=SimpleNamespace(listed=lambda: [Listed.of(named)]),
        scheduler=SimpleNamespace(loaded=list),
        settings=SimpleNamespace(api_keys=()),
    )
    headers = [(b"accept", b"text/html"), (b"host", b"a<img src=x>")]
    scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http", "query_string": b"", "headers": headers}
    page = Page(bytes((await Home(services).root(Request(scope))).body).decode())
    assert not page.tags & {"script", "img"}
    assert any("<script>alert(1)</script>" in word for word in page.words)
    assert any("a<img src=x>" in word for word in page.words)


def test_a_server_with_keys_shows_no_models(serving: Any) -> None:
    with serving(api_keys=("secret-key",)) as server:
        answer = server.get("/", headers=BROWSER)
    assert answer.status == 200
    assert b"YOUR_KEY" in answer.body
    assert b"tiny" not in answer.body
    assert b"secret-key" not in answer.body

"""Anthropic's files: its client's calls, the same files as OpenAI's clients see, and documents that are elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types.beta import BetaFileMetadata
from openai import OpenAI

from api.conftest import SCRIPT, run_server
from fakes.documents import pdf

from .test_sdk import ask, strictly

CALLERS = {"anthropic-version": "2023-06-01"}


@pytest.fixture(scope="module")
def own(settings: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of two callers, with a state of its own."""
    state = tmp_path_factory.mktemp("files")
    with run_server(replace(settings, state=state, api_keys=("ours", "theirs"), fetch_private=True), SCRIPT) as server:
        yield server


@pytest.fixture(scope="module")
def ours(own: Any) -> Anthropic:
    return Anthropic(base_url=own.url, api_key="ours", max_retries=0)


def upload(client: Anthropic, data: bytes = b"PROMPT: a whale", name: str = "a.txt", **more: Any) -> BetaFileMetadata:
    return client.beta.files.upload(file=(name, data, more.pop("kind", "text/plain")), **more)


def test_a_file_from_its_upload_to_its_end(own: Any, ours: Anthropic) -> None:
    made = upload(ours, expires_in_seconds=3600)
    strictly(BetaFileMetadata, made.to_dict(mode="json"))
    assert (made.type, made.filename, made.mime_type, made.size_bytes) == ("file", "a.txt", "text/plain", 15)
    assert made.expires_at is not None
    assert (made.expires_at - made.created_at).total_seconds() == 3600
    assert ours.beta.files.retrieve_metadata(made.id) == made
    assert ours.beta.files.download(made.id).read() == b"PROMPT: a whale"
    block: Any = {"type": "document", "title": "Whales", "source": {"type": "file", "file_id": made.id}}
    answer = ours.messages.create(model="tiny", max_tokens=500, messages=[{"role": "user", "content": [block]}])
    assert "Whales:\nPROMPT: a whale" in answer.content[0].text
    gone = ours.beta.files.delete(made.id)
    assert (gone.id, gone.type) == (made.id, "file_deleted")
    for call in (ours.beta.files.retrieve_metadata, ours.beta.files.download, ours.beta.files.delete):
        with pytest.raises(anthropic.NotFoundError):
            call(made.id)


def test_both_dialects_see_the_same_files(own: Any, ours: Anthropic) -> None:
    client = OpenAI(base_url=f"{own.url}/v1", api_key="ours", max_retries=0)
    theirs = client.files.create(file=("b.json", b"{}"), purpose="user_data")
    assert ours.beta.files.retrieve_metadata(theirs.id).mime_type == "application/json"
    made = upload(ours)
    assert client.files.retrieve(made.id).purpose == "user_data"
    assert client.files.content(made.id).read() == b"PROMPT: a whale"


def test_pages(own: Any, ours: Anthropic) -> None:
    made = [upload(ours, name=f"{number}.txt").id for number in range(5)]
    listed = [file.id for file in ours.beta.files.list(limit=2)]
    assert listed[:5] == made[::-1]
    assert len(set(listed)) == len(listed)
    assert {file.id for file in ours.beta.files.list(ids=[made[0], made[3], "file-none"])} == {made[0], made[3]}
    headers = {**CALLERS, "x-api-key": "ours"}

    def page(query: str) -> Any:
        return own.get(f"/v1/files?{query}", headers=headers).json

    older = page(f"after_id={made[4]}&limit=2")
    assert ([file["id"] for file in older["data"]], older["has_more"]) == ([made[3], made[2]], True)
    assert (older["first_id"], older["last_id"]) == (made[3], made[2])
    newer = page(f"before_id={made[1]}&limit=2")
    assert ([file["id"] for file in newer["data"]], newer["next_page"]) == ([made[3], made[2]], None)


@pytest.mark.parametrize(
    "query",
    ["page=x", "page=page_file-none", "limit=0", "limit=1001", "scope_id=s", "ids=a&limit=2", "after_id=a&before_id=b",
     "page=page_a&after_id=b", "&".join(f"ids=f{number}" for number in range(101))],
)  # fmt: skip
def test_what_is_wrong_with_a_list_is_said(own: Any, query: str) -> None:
    answer = own.get(f"/v1/files?{query}", headers={**CALLERS, "x-api-key": "ours"})
    assert answer.status in {400, 404}
    assert answer.json["type"] == "error"
    assert answer.json["error"]["details"]["param"]


def test_bad_uploads(own: Any, ours: Anthropic) -> None:
    for data, more in ((b"", {}), (b"x", {"expires_in_seconds": 3599}), (b"x", {"expires_in_seconds": 8_000_000})):
        with pytest.raises(anthropic.BadRequestError):
            upload(ours, data, **more)


def test_each_caller_has_its_own(own: Any, ours: Anthropic) -> None:
    theirs = Anthropic(base_url=own.url, api_key="theirs", max_retries=0)
    made = upload(ours)
    assert list(theirs.beta.files.list()) == []
    assert list(theirs.beta.files.list(ids=[made.id])) == []
    for call in (theirs.beta.files.retrieve_metadata, theirs.beta.files.download, theirs.beta.files.delete):
        with pytest.raises(anthropic.NotFoundError):
            call(made.id)


class Elsewhere(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        data, kind = (pdf("PROMPT page"), "application/pdf") if self.path == "/a.pdf" else (b"PROMPT far", "text/plain")
        self.send_response(404 if self.path == "/none" else 200)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def test_documents_are_fetched(own: Any, ours: Anthropic, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever).start()

        def document(path: str, **more: Any) -> Any:
            url = f"http://127.0.0.1:{elsewhere.server_port}/{path}"
            return [{"type": "document", "source": {"type": "url", "url": url}, **more}]

        try:
            assert "a.pdf:\nPROMPT page" in ask(ours, document("a.pdf")).content[0].text
            assert "Mine:\nPROMPT far" in ask(ours, document("a.txt", title="Mine")).content[0].text
            counted = ours.messages.count_tokens(
                model="tiny", messages=[{"role": "user", "content": document("a.txt")}]
            )
            usage = ask(ours, document("a.txt")).usage
            assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
            with pytest.raises(anthropic.BadRequestError, match="answered 404"):
                ask(ours, document("none"))
            many = [block for number in range(9) for block in document(f"a.txt?{number}")]
            assert ask(ours, many).content[0].text.count("PROMPT far") == 9
            monkeypatch.setattr("puna.server.openai.remote._FETCHED", 20)
            with pytest.raises(anthropic.BadRequestError, match="more than 20 bytes together"):
                ask(ours, many)
        finally:
            elsewhere.shutdown()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/a", "a.txt", ""])
def test_what_is_no_url_is_refused(ours: Anthropic, url: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match=r"source\.url"):
        ask(ours, [{"type": "document", "source": {"type": "url", "url": url}}])


def test_private_addresses_are_not_called(client: Anthropic) -> None:
    for url in ("http://127.0.0.1:9/a.txt", "http://169.254.169.254/latest", "http://[::1]/a"):
        with pytest.raises(anthropic.BadRequestError, match=r"source\.url"):
            ask(client, [{"type": "document", "source": {"type": "url", "url": url}}])

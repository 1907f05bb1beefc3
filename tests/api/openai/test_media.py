"""Images, sounds and files in messages."""

from __future__ import annotations

import base64
import io
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from fakes.documents import pdf
from fakes.projectors import plain, wav

PNG = plain((200, 0, 0), 4, 4)
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP//////////////////////////////////////////////////////////////////////////////"
    "////////wgALCAABAAEBAREA/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQABPxA="
)


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def ask(server: Any, *parts: dict[str, Any], model: str = "vision", text: str = "Hi") -> Any:
    content = [{"type": "text", "text": text}, *parts]
    return server.post("/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": content}]})


def sound(data: bytes, kind: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": kind}}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize("part", [image(data_url(PNG)), {"type": "image_url", "image_url": data_url(JPEG)}])
def test_a_model_that_sees_takes_both_forms(server, part):
    assert ask(server, part).status == 200


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("data:image/png;base64,@@@", "invalid_base64"),
        (data_url(b"GIF89a"), "invalid_image_format"),
        (data_url(PNG[:20]), "invalid_image_format"),
        (data_url(PNG[:16] + b"\0\1\0\0\0\1\0\0" + PNG[24:]), "image_too_large"),
        ("data:image/png;base64", "invalid_data_url"),
        ("ftp://example.com/x.png", "invalid_image_url"),
        ("file:///etc/passwd", "invalid_image_url"),
        ("x", "invalid_image_url"),
        ("http://127.0.0.1:1/x.png", "invalid_image_url"),
        ("http://localhost:1/x.png", "invalid_image_url"),
        ("http://[::1]:1/x.png", "invalid_image_url"),
        ("http://[::ffff:127.0.0.1]:1/x.png", "invalid_image_url"),
        ("http://169.254.169.254/latest/meta-data", "invalid_image_url"),
        ("http://10.0.0.1/x.png", "invalid_image_url"),
        ("http://0/x.png", "invalid_image_url"),
        ("http://2130706433/x.png", "invalid_image_url"),
        ("http://user:password@127.0.0.1:1/x", "invalid_image_url"),
        ("http://", "invalid_image_url"),
        ("http://[bad", "invalid_image_url"),
    ],
)
def test_bad_images(server, url, code):
    answer = ask(server, image(url))
    assert answer.status == 400
    assert (answer.error["code"], answer.error["param"]) == (code, "messages[0].content[1].image_url.url")


def test_detail_is_reported(server):
    part = {"type": "image_url", "image_url": {"url": data_url(PNG), "detail": "high"}}
    assert ask(server, part).headers["x-puna-ignored"] == "messages[0].content[1].image_url.detail"


def webp() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 0, 0)).save(out, "WEBP")
    return out.getvalue()


def test_webp_is_read_with_its_extra(server, monkeypatch):
    picture = webp()
    assert ask(server, image(data_url(picture))).status == 200
    damaged = ask(server, image(data_url(picture[:40])))
    assert damaged.error["code"] == "invalid_image_format"
    monkeypatch.setitem(sys.modules, "PIL", None)
    answer = ask(server, image(data_url(picture)))
    assert answer.status == 400
    assert "puna[webp]" in answer.error["message"]


def test_a_count_with_images_has_no_ids(server):
    content = [{"type": "text", "text": "Hi"}, image(data_url(PNG))]
    answer = server.post("/tokenize", {"model": "vision", "messages": [{"role": "user", "content": content}]})
    assert answer.status == 200
    assert answer.json["count"] > 0
    assert answer.json["tokens"] is None


class _Pictures(BaseHTTPRequestHandler):
    """A web server with a picture, redirects to it and to the abyss, a lie about size, and a wrong type."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/ok.png":
            self._send(200, PNG)
        elif self.path == "/moved":
            self._send(302, b"", location="/ok.png")
        elif self.path == "/loop":
            self._send(302, b"", location="/loop")
        elif self.path == "/away":
            self._send(302, b"", location="file:///etc/passwd")
        elif self.path == "/text":
            self._send(200, b"<html>")
        elif self.path == "/big":
            self._send(200, PNG + bytes(21 * 1024 * 1024))
        else:
            self._send(404, b"")

    def _send(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):  # the client took enough
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def pictures() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Pictures", (_Pictures,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}", asked
        web.shutdown()
        thread.join()


def test_remote_images_within_limits(serving, pictures):
    url, _ = pictures
    with serving(fetch_private=True) as own:
        assert ask(own, image(f"{url}/ok.png"), image(f"{url}/moved")).status == 200
        for path, words in {
            "/loop": "redirects",
            "/away": "no http(s) URL",
            "/text": "none of png, jpeg and webp",
            "/big": "more than",
            "/missing": "answered 404",
        }.items():
            answer = ask(own, image(f"{url}{path}"))
            assert answer.status == 400
            assert words in answer.error["message"]
            assert answer.error["param"] == "messages[0].content[1].image_url.url"


def test_private_targets_are_not_called(server, pictures):
    url, asked = pictures
    answer = ask(server, image(f"{url}/ok.png"))
    assert "not a public address" in answer.error["message"]
    answer = ask(server, image(url.replace("127.0.0.1", "localhost") + "/ok.png"))
    assert answer.status == 400
    assert asked == []


def test_a_model_that_sees_nothing_fetches_nothing(serving, pictures):
    url, asked = pictures
    with serving(fetch_private=True) as own:
        answer = ask(own, image(f"{url}/ok.png"), model="tiny")
    assert (answer.status, answer.error["code"]) == (400, "unsupported_value")
    assert "does not support images" in answer.error["message"]
    assert asked == []


def test_sound_needs_a_model_that_hears(server):
    answer = ask(server, sound(wav(0.1, 440)))
    assert answer.status == 400
    assert "does not support audio" in answer.error["message"]
    assert answer.error["param"] == "messages[0].content[1]"


@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        ({"data": "@", "format": "wav"}, "data", "invalid_base64"),
        ({"data": "", "format": "wav"}, "data", "invalid_audio_format"),
        ({"data": base64.b64encode(PNG).decode(), "format": "wav"}, "data", "invalid_audio_format"),
        ({"data": base64.b64encode(wav(0.1, 440)).decode(), "format": "mp3"}, "data", "invalid_audio_format"),
        ({"data": "", "format": "gif"}, "format", "invalid_value"),
    ],
)
def test_bad_sounds(server, part, param, code):
    answer = ask(server, {"type": "input_audio", "input_audio": part})
    assert answer.status == 400
    assert (answer.error["code"], answer.error["param"]) == (code, f"messages[0].content[1].input_audio.{param}")


def file(url: str | None, **more: Any) -> dict[str, Any]:
    return {"type": "file", "file": {**({"file_data": url} if url else {}), **more}}


def test_text_files_become_text(server):
    part = file(data_url("grün".encode(), "text/plain;charset=utf-8"), filename="a.txt")
    answer = ask(server, part, model="tiny", text="PROMPT")
    assert "a.txt:\ngrün" in answer.json["choices"][0]["message"]["content"]


def test_pdf_files_become_text(server):
    answer = ask(server, file(data_url(pdf("Four legs"), "application/pdf")), model="tiny", text="PROMPT")
    assert answer.status == 200, answer.body
    assert "Four legs" in answer.json["choices"][0]["message"]["content"]


def test_pdf_files_need_their_extra(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdf", None)
    answer = ask(server, file(data_url(b"%PDF-1.7", "application/pdf")), model="tiny")
    assert answer.status == 400
    assert "puna[pdf]" in answer.error["message"]
    assert answer.error["param"] == "messages[0].content[1].file.file_data"


@pytest.mark.parametrize(
    ("part", "param"),
    [
        (file(None), "file.file_data"),
        (file("nonsense"), "file.file_data"),
        (file(data_url(b"\xff\xfe", "text/plain")), "file.file_data"),
        (file(data_url(b"PK", "application/zip")), "file.file_data"),
        (file(data_url(b"%PDF-1.7 broken", "application/pdf")), "file.file_data"),
        (file(data_url(b"%PDF-1.4\n%%EOF", "application/pdf")), "file.file_data"),
    ],
)
def test_bad_files(server, part, param):
    answer = ask(server, part, model="tiny")
    assert answer.status == 400, answer.body
    assert answer.error["param"] == f"messages[0].content[1].{param}"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/tokenize"])
def test_a_kept_file_that_is_not_there(server, path):
    content = [{"type": "text", "text": "Read."}, {"type": "file", "file": {"file_id": "file-1"}}]
    answer = server.post(path, {"model": "tiny", "messages": [{"role": "user", "content": content}]})
    assert (answer.status, answer.error["param"]) == (404, "messages[0].content[1].file.file_id")


def test_a_file_is_kept_or_sent(server):
    answer = ask(server, file("data:,x", file_id="file-1"), model="tiny")
    assert (answer.status, answer.error["param"]) == (400, "messages[0].content[1].file.file_id")

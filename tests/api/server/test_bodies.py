"""Bodies, in every form and size: what they may cost, and that nobody else pays."""

from __future__ import annotations

import gzip
import json
import select
import sys
import zlib

import pytest

from fakes.raw_http import connected, read_answer, send

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
PACKED = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}


@pytest.mark.parametrize("coding", PACKED)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_compressed_bodies(server, coding, path):
    body = PACKED[coding](json.dumps(CHAT | {"stream": False}).encode())
    answer = server.post(path, body, headers={"content-encoding": coding})
    assert answer.status == 200
    twice = PACKED["gzip"](body)
    assert server.post(path, twice, headers={"content-encoding": f"{coding}, gzip"}).status == 200


@pytest.mark.parametrize("coding", PACKED)
def test_a_bomb_is_too_large(server, coding):
    body = PACKED[coding](b" " * 80_000_000)
    for sent, header in ((body, coding), (PACKED[coding](body), f"{coding},{coding}")):
        answer = server.post("/v1/chat/completions", sent, headers={"content-encoding": header})
        assert (answer.status, answer.error["code"]) == (413, "request_too_large")


def test_codings_that_are_not_read_or_not_true(server):
    answer = server.post("/v1/chat/completions", CHAT, headers={"content-encoding": "br"})
    assert (answer.status, answer.error["code"]) == (415, "unsupported_encoding")
    assert answer.headers["accept-encoding"] == "gzip, deflate, zstd"
    answer = server.post("/api/chat", CHAT, headers={"content-encoding": "gzip"})
    assert answer.status == 400
    assert "no gzip" in answer.json["error"]


def test_bodies_of_all_requests_together_have_a_limit(serving):
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 700000\r\n\r\n"
    with serving(max_bodies=1_000_000) as own:
        with connected(own.port) as one, connected(own.port) as other:
            for connection in (one, other):
                assert send(connection, head + b" " * 600_000)
            # Neither is whole, so the server can answer only the one that it read last, whichever that is.
            (refused,), _, _ = select.select([one, other], [], [], 20)
            answer = read_answer(refused)
            assert (answer.status, answer.error["code"]) == (503, "overloaded")
            assert "PUNA_MAX_BODIES" in answer.error["message"]
            assert int(answer.headers["retry-after"]) >= 1
            kept = other if refused is one else one
            assert send(kept, b" " * 100_000)
            assert read_answer(kept).status == 400
        assert own.post("/v1/chat/completions", b" " * 500_000).status == 400


def test_a_large_text_is_read(server):
    text = "x" * 300_000
    answer = server.post("/tokenize", {"model": "tiny", "prompt": text})
    assert answer.status == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"model": "tiny", "messages": [' + b"0," * 1_100_000 + b"0]}", "1000000 values"),
        (b"{" + b",".join(b'"%d":0' % number for number in range(51_000)) + b"}", "50000 members"),
        (b'{"' + b"x" * 1_000_000 + b'":1}', "65536 bytes"),
        (b'{"model": ' * 100_000, "128 deep"),
        (b'{"model": ' + b"1" * 1_000_000 + b"}", "a number"),
        (b'{"model": ' + b"1" * 5_000 + b"}", "number"),
    ],
    ids=["values", "members", "name", "depth", "long number", "number"],
)
def test_limits_are_told(server, body, words):
    for path in ("/v1/chat/completions", "/api/chat"):
        answer = server.post(path, body)
        assert answer.status == 400
        assert words in str(answer.json["error"])

"""Heads, framing and connections, byte by byte: what a client may send before anybody looks at its request."""

from __future__ import annotations

import json
import socket

import pytest

from fakes.raw_http import connected, exchange, read_answer, send
from fakes.waiting import until

CHAT = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}).encode()
LENGTH = b"content-length: %d\r\n" % len(CHAT)
HOST = b"host: localhost\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST


def get(path: bytes, *fields: bytes) -> bytes:
    return b"GET %s HTTP/1.1\r\n" % path + HOST + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/models HTTP/1.1\r\n" + HOST + b"x: ",
        b"GET /v1/models HTTP/1.1\r\n" + HOST,
        b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"cookie: a\r\ncookie: ",
    ],
)
def test_a_head_without_end_is_refused_before_keys(serving, head):
    with serving(api_keys=("secret",)) as own, connected(own.port) as connection:
        send(connection, head)
        for _ in range(2400):
            if not send(connection, b"y" * 65536):
                break
        answer = read_answer(connection)
    assert (answer.status, answer.headers["connection"]) == (431, "close")
    assert answer.json["error"]["code"] == "head_too_large"


def test_as_much_head_as_there_may_be_is_read(server):
    assert exchange(server.port, get(b"/api/version", b"x: " + b"y" * 60_000)).status == 200
    answer = exchange(server.port, get(b"/api/version", b"x: " + b"y" * 66_000))
    assert answer.status == 431
    assert "65536" in answer.json["error"]


def test_empty_lines_before_a_request_have_an_end(server):
    assert exchange(server.port, b"\r\n" * 30_000 + get(b"/api/version")).status == 200
    answer = exchange(server.port, b"\r\n" * 33_000)
    assert answer.status == 431
    assert "empty lines" in answer.json["error"]


def test_a_client_of_empty_lines_alone_is_let_go(serving):
    with serving(read_timeout=0.5) as own, connected(own.port) as connection:
        send(connection, b"\r\n")
        assert connection.recv(1) == b""


def test_fields_have_a_number(server):
    assert exchange(server.port, get(b"/api/version", *(b"a: 1" for _ in range(250)))).status == 200
    assert exchange(server.port, get(b"/api/version", *(b"a: 1" for _ in range(300)))).status == 431


@pytest.mark.parametrize("before", [b"", b" ", b"\t  "])
@pytest.mark.parametrize("digits", [b"%d", b"000%d"])
@pytest.mark.parametrize("after", [b" ", b"  \t", b""])
def test_blanks_around_a_length_are_nothing(server, before, digits, after):
    head = POST + b"content-length:" + before + digits % len(CHAT) + after + b"\r\n\r\n"
    with connected(server.port) as connection:
        for _ in range(2):  # the second shows that the first was read to its end and no further
            send(connection, head + CHAT)
            assert read_answer(connection).status == 200


def test_a_request_behind_a_last_chunk_adds_nothing_to_the_body_before_it(server):
    head = POST + b"transfer-encoding: chunked\r\n\r\n"
    request = head + b"%x\r\n" % len(CHAT) + CHAT + b"\r\n0\r\n\r\n"
    with connected(server.port) as connection:
        send(connection, request * 2)
        answer = read_answer(connection)
    assert (answer.status, answer.headers["connection"]) == (200, "close"), "the second is not read, and so it is told"


@pytest.mark.parametrize("blank", [b"\t", b" \t ", b"  "])
def test_blanks_around_a_value_are_nothing(server, blank):
    head = b"GET /api/version HTTP/1.1\r\nhost:" + blank + b"localhost" + blank + b"\r\n\r\n"
    assert exchange(server.port, head).status == 200


def test_a_url_that_is_too_long(server):
    assert exchange(server.port, get(b"/api/version?" + b"x" * 15_000)).status == 200
    assert exchange(server.port, get(b"/api/version?" + b"x" * 17_000)).status == 414
    answer = exchange(server.port, b"GET /v1/" + b"x" * 17_000)
    assert (answer.status, answer.json["error"]["code"]) == (414, "url_too_long")


@pytest.mark.parametrize(
    "piece",
    [b"5;" + b"x" * 65_536, b"0\r\nx: " + b"y" * 65_536, b"x" * 1000],
    ids=["extension", "trailer", "no-size"],
)
def test_what_is_no_content_of_a_chunked_body_has_an_end(server, piece):
    with connected(server.port) as connection:
        send(connection, POST + b"transfer-encoding: chunked\r\n\r\n" + piece)
        for _ in range(100):
            if not send(connection, b"z" * 65_536):
                break
        answer = read_answer(connection)
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_http")


def test_trailers_are_no_headers(server):
    body = b"%x\r\n%s\r\n0\r\ncontent-encoding: gzip\r\n\r\n" % (len(CHAT), CHAT)
    assert exchange(server.port, POST + b"transfer-encoding: chunked\r\n\r\n" + body).status == 200


@pytest.mark.parametrize(
    "offer",
    [
        b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nsec-websocket-key: x\r\nsec-websocket-version: 13\r\n",
        b"UPGRADE : TLS/1.0\r\nconnection: upgrade\r\n",
    ],
)
@pytest.mark.parametrize("framing", ["length", "chunked", "continue"])
def test_an_offer_to_upgrade_is_not_taken_and_loses_nothing(server, offer, framing):
    if b" :" in offer:
        offer = offer.replace(b" :", b":")
    with connected(server.port) as connection:
        if framing == "chunked":
            send(connection, POST + offer + b"transfer-encoding: chunked\r\n\r\n")
            send(connection, b"%x\r\n%s\r\n0\r\n\r\n" % (len(CHAT), CHAT))
        elif framing == "continue":
            send(connection, POST + offer + LENGTH + b"expect: 100-continue\r\n\r\n")
            assert read_answer(connection, interim=False).status == 100
            send(connection, CHAT)
        else:
            send(connection, POST + offer + LENGTH + b"\r\n" + CHAT)
        answer = read_answer(connection)
        assert (answer.status, answer.json["object"]) == (200, "chat.completion")
        send(connection, get(b"/api/version"))
        assert read_answer(connection).status == 200


def test_a_refusal_before_the_body_was_asked_for_ends_the_connection(serving):
    with serving(api_keys=("secret",)) as own, connected(own.port) as connection:
        send(connection, POST + LENGTH + b"expect: 100-continue\r\n\r\n")
        answer = read_answer(connection, interim=False)
        assert (answer.status, answer.headers["connection"]) == (401, "close")
        assert connection.recv(1) == b""


def test_requests_one_behind_the_other(server):
    with connected(server.port) as connection:
        send(connection, b"\r\n" + POST + LENGTH + b"\r\n" + CHAT + get(b"/api/version") + get(b"/health"))
        stream = [read_one(connection) for _ in range(3)]
    assert [status for status, _ in stream] == [200, 200, 200]
    assert b"chat.completion" in stream[0][1]
    assert b"version" in stream[1][1]


def read_one(connection: socket.socket) -> tuple[int, bytes]:
    """One answer, and not a byte more."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length:" in line)
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return int(head.split()[1]), body


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),
        (b"GET / HTTP/1.1\n\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n", 405),
        (b"CONNECT / HTTP/1.1\r\nhost: localhost\r\n\r\n", 405),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n", 400),
        (b"GET http://localhost/api/version HTTP/1.1\r\nhost: localhost\r\n\r\n", 200),
        (b"GET http://localhost:11434/api/version HTTP/1.1\r\nhost: evil.example\r\n\r\n", 200),
        (b"GET http://evil.example/api/version HTTP/1.1\r\nhost: localhost\r\n\r\n", 403),
        (b"GET http://localhost HTTP/1.1\r\nhost: localhost\r\n\r\n", 200),
    ],
)
def test_requests_that_are_none(server, data, status):
    answer = exchange(server.port, data)
    assert answer.status == status
    if status >= 400:
        assert answer.json["error"]


def test_http_1_0_streams_end_with_the_connection(server):
    body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    head = b"POST /api/chat HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body)
    answer = exchange(server.port, head + body)
    assert answer.status == 200
    assert "transfer-encoding" not in answer.headers
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert lines[-1]["done"] is True
    assert exchange(server.port, b"GET /api/version HTTP/1.0\r\n\r\n").json["version"]


# ------------------------------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_client_that_closes_its_sending_side_gets_its_answer(server, version):
    slow = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "SLOW"}]}).encode()
    head = POST.replace(b"HTTP/1.1", b"HTTP/" + version) + b"content-length: %d\r\n\r\n" % len(slow)
    answer = exchange(server.port, head + slow, close=True)
    assert answer.json["choices"][0]["message"]["content"] == "at last"
    assert exchange(server.port, get(b"/api/version"), close=True).status == 200
    stream = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "SLOW"}], "stream": True}).encode()
    answer = exchange(server.port, POST + b"content-length: %d\r\n\r\n" % len(stream) + stream, close=True)
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_a_client_that_is_gone_is_noticed(server):
    forever = json.dumps(
        {"model": "tiny", "messages": [{"role": "user", "content": "FOREVER"}], "max_tokens": 4000}
    ).encode()
    with connected(server.port) as connection:
        send(connection, POST + b"content-length: %d\r\n\r\n" % len(forever) + forever)
        until(lambda: server.busy() == 1, 30, "the work to begin")
    until(lambda: server.busy() == 0, 30, "the work to end")


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/api/chat", b"/api/blobs/sha256:" + b"a" * 64])
@pytest.mark.parametrize("framing", [b"content-length: 1000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n3e8\r\n"])
def test_a_body_that_is_cut_is_a_400(server, capfd, path, framing):
    answer = exchange(server.port, b"POST %s HTTP/1.1\r\n" % path + HOST + framing + CHAT, close=True)
    assert answer.status == 400
    assert "ended before it was complete" in str(answer.json["error"])
    with connected(server.port) as connection:
        send(connection, b"POST %s HTTP/1.1\r\n" % path + HOST + framing + CHAT)
    assert server.get("/api/version").status == 200
    assert "Traceback" not in capfd.readouterr().err


def test_an_answer_before_the_end_of_the_body_can_be_read(serving):
    with serving(max_body=1000) as own, connected(own.port) as connection:
        send(connection, POST + b"content-length: 9000000\r\n\r\n")
        send(connection, b"x" * 9_000_000)
        assert read_answer(connection).status == 413
        send(connection, get(b"/api/version"))
        assert read_answer(connection).status == 200


# -------------------------------------------------------------------------------------------------------- deadlines


def test_heads_and_bodies_have_deadlines(serving):
    with serving(read_timeout=0.3) as own:
        with connected(own.port) as connection:
            send(connection, b"GET /v1/models HTTP/1.1\r\nhost: loc")
            answer = read_answer(connection)
            assert (answer.status, answer.json["error"]["code"]) == (408, "request_timeout")
            assert "PUNA_READ_TIMEOUT" in answer.json["error"]["message"]
            assert connection.recv(1) == b""
        with connected(own.port) as connection:
            send(connection, POST + LENGTH + b"\r\n" + CHAT[:5])
            answer = read_answer(connection)
            assert (answer.status, answer.json["error"]["code"]) == (408, "request_timeout")
            assert connection.recv(1) == b""
        with connected(own.port) as connection:
            assert connection.recv(1) == b""
        # An answer may take its time.
        assert own.chat("SLOW").status == 200


def test_a_body_that_trickles_is_late(serving):
    with serving(read_timeout=0.3) as own, connected(own.port) as connection:
        send(connection, POST + b"content-length: 100000\r\n\r\n")
        answered = []
        connection.settimeout(0.05)
        for _ in range(200):
            send(connection, b" ")
            try:
                answered.append(connection.recv(4096))
                break
            except TimeoutError:
                continue
    assert answered[0].startswith(b"HTTP/1.1 408")


def test_connections_have_a_number(serving):
    with serving(max_connections=3) as own:
        with connected(own.port) as one, connected(own.port) as two, connected(own.port) as three:
            for connection in (one, two, three):
                send(connection, get(b"/api/version"))
                assert read_answer(connection).status == 200
            with connected(own.port) as four:
                answer = read_answer(four)
                assert answer.status == 503
                assert int(answer.headers["retry-after"]) >= 1
                assert "PUNA_MAX_CONNECTIONS" in answer.json["error"]
        until(lambda: own.get("/api/version").status == 200, 30, "room for another connection")


CODINGS = [b"gzip, chunked", b"gzip", b"xchunked", b"chunked\r\ntransfer-encoding: chunked", b"identity"]


@pytest.mark.parametrize("body", [b"0\r\n\r\n", b""])
@pytest.mark.parametrize("coding", CODINGS)
def test_other_transfer_codings_are_refused(server, coding, body, capfd, caplog):
    """Read as if they were not there, they would be another body than the one that was sent.

    The parser refuses some of them too: one answer comes of it.
    """
    answer = exchange(server.port, POST + b"transfer-encoding: " + coding + b"\r\n\r\n" + body)
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_http")
    assert "transfer" in answer.json["error"]["message"].lower()
    assert "Traceback" not in capfd.readouterr().err + caplog.text

"""Attacks on a server in a process of its own, one after the other: a signal, an end, a 5xx, lost memory or a long turn
of its event loop fails them.

Each is a request, or a few bytes. While it is answered, somebody else asks for the version again and again.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest

import fakes.turns
from fakes.gguf_files import CHATML, gguf_bytes, write_tiny_llama
from fakes.turns import Longest
from fakes.waiting import until

ROOM = 300 << 20
"""Bytes that the server may take more than before all attacks: bodies have bounds of their own."""

CELL_ROOM = 512 << 20
"""The same of any child: one that runs templates has 256 MB beyond what it begins with."""

TURN = 0.1
"""Seconds of a processor that the event loop may use at a time: for so long nobody else is answered."""

SCRIPT = {"default": {"text": "Hello there, friend."}}


@dataclass(frozen=True)
class Attacked:
    """The server that the attacks are on."""

    process: subprocess.Popen[bytes]
    port: int
    before: int
    log: Path
    longest: Longest

    def post(self, path: str, body: object, **headers: str) -> tuple[int, bytes]:
        """The status, and what came with it; 0 where the server closed without an answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", path, data, {"content-type": "application/json", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (BrokenPipeError, ConnectionResetError):
            return 0, b""
        finally:
            connection.close()

    def version(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", "/api/version")
            return connection.getresponse().status == 200
        finally:
            connection.close()

    def upload(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        status, _ = self.post(f"/api/blobs/{digest}", data)
        assert status in (200, 201)
        return digest

    def memory(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def children(self) -> list[int]:
        """Their bytes of memory. One that ends meanwhile has none."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                found.append(child.memory_info().rss)
        return found


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    home = tmp_path_factory.mktemp("attacked")
    script, log, turns = home / "script.json", home / "log", home / "turns"
    script.write_text(json.dumps(SCRIPT))
    longest = Longest(turns, new=True)
    with log.open("wb") as told:
        process = subprocess.Popen(
            [sys.executable, fakes.turns.__file__, str(turns)],
            env={
                "HOME": str(home), "PUNA_MODELS": str(home / "models"), "PUNA_ENGINE": "scripted",
                "PUNA_SCRIPT": str(script), "PUNA_HOST": "127.0.0.1:0",
            },
            stderr=told,
        )  # fmt: skip
    try:
        until(lambda: b"listens on http" in log.read_bytes() or process.poll() is not None, 30, "the server")
        port = int(log.read_text().split("listens on http://127.0.0.1:")[1].split()[0])
        server = Attacked(process, port, 0, log, longest)
        weights = write_tiny_llama(home / "tiny.gguf", chat_template=CHATML).read_bytes()
        body = {"model": "tiny", "files": {"tiny.gguf": server.upload(weights)}, "stream": False}
        assert server.post("/api/create", body)[0] == 200
        assert server.post("/api/chat", CHAT)[0] == 200
        yield Attacked(process, port, server.memory(), log, longest)
    finally:
        process.kill()
        process.wait()


CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
OPENAI: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}


def nested(opening: str, closing: str, times: int, inner: str = "1") -> bytes:
    return (opening * times + inner + closing * times).encode()


def within(shape: dict[str, Any], name: str, value: bytes) -> bytes:
    """The body with this JSON text at one of its fields."""
    return json.dumps(shape | {name: "HERE"}).encode().replace(b'"HERE"', value)


def schema(value: object) -> dict[str, Any]:
    return OPENAI | {
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": value}}
    }


def tool(parameters: object) -> dict[str, Any]:
    return OPENAI | {"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]}


def grammar(text: str) -> dict[str, Any]:
    return OPENAI | {"grammar": text}


def lark(text: str, syntax: str = "lark") -> dict[str, Any]:
    form = {"type": "grammar", "grammar": {"syntax": syntax, "definition": text}}
    return OPENAI | {"tools": [{"type": "custom", "custom": {"name": "f", "format": form}}]}


def template(text: str) -> dict[str, Any]:
    return {"model": "tiny", "prompt": "Hi", "stream": False, "template": text}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


ROWS = chunk(b"IDAT", zlib.compress(bytes(1 << 20), 9))


def png(width: int, height: int) -> str:
    """A picture of one colour: few bytes, and as many pixels as are asked for."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + head + ROWS + chunk(b"IEND", b"")).decode()


def pictured(data: str) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": "Hi", "images": [data]}], "stream": False}


DEEP = 100_000
SCHEMA = b'{"type":"json_schema","json_schema":{"name":"s","schema":'
SAYS = "{{ messages[0].content }}"
BODIES: dict[str, tuple[str, object]] = {
    # JSON that parsers fall over
    "lists in messages": ("/api/chat", within(CHAT, "messages", nested("[", "]", DEEP))),
    "objects in messages": ("/v1/chat/completions", within(OPENAI, "messages", nested('{"a":', "}", DEEP))),
    "objects in options": ("/api/chat", within(CHAT, "options", nested('{"a":', "}", DEEP))),
    "lists in metadata": ("/v1/chat/completions", within(OPENAI, "metadata", nested("[", "]", DEEP))),
    "unclosed lists": ("/api/generate", b"[" * (8 << 20)),
    "a number of a megabyte": ("/api/chat", within(CHAT, "keep_alive", b"9" * (1 << 20))),
    "an exponent": ("/api/chat", within(CHAT, "options", b'{"temperature": 1e999999999}')),
    "half pairs": ("/v1/completions", b'{"model":"tiny","prompt":"' + rb"\ud800" * 100_000 + b'"}'),
    "one key a million times": ("/api/generate", b"{" + b'"model":"tiny",' * 500_000 + b'"prompt":"x"}'),
    "a body of zeros": ("/api/chat", bytes(1 << 20)),
    # numbers beyond what engines count with
    "a huge context": ("/api/chat", CHAT | {"options": {"num_ctx": 2**62}}),
    "a huge prediction": ("/api/chat", CHAT | {"options": {"num_predict": -(2**63), "seed": 2**64}}),
    "a keep-alive of ages": ("/api/chat", CHAT | {"keep_alive": "9999999999999h"}),
    "a keep-alive without end": ("/api/chat", within(CHAT, "keep_alive", b"1e308")),
    "many choices": ("/v1/chat/completions", OPENAI | {"n": 2**31}),
    "many best of": ("/v1/completions", {"model": "tiny", "prompt": "x", "n": 1, "best_of": 2**31}),
    "many stops": ("/v1/chat/completions", OPENAI | {"stop": ["a" * 100] * 100_000}),
    "many biases": ("/v1/chat/completions", OPENAI | {"logit_bias": {str(n): 1 for n in range(300_000)}}),
    "ids that are none": ("/v1/completions", {"model": "tiny", "prompt": [2**31, -1, 2**63], "max_tokens": 1}),
    "a context of a million": ("/api/generate", {"model": "tiny", "prompt": "x", "context": [5] * 1_000_000}),
    "ids to text": ("/detokenize", {"model": "tiny", "tokens": [2**70, -5]}),
    "many inputs": ("/v1/embeddings", {"model": "tiny", "input": ["a"] * 200_000}),
    # schemas
    "a schema that nests": ("/v1/chat/completions", within(OPENAI, "response_format",
        SCHEMA + nested('{"items":', "}", 5_000, "true") + b"}}")),
    "alternatives multiplied": ("/v1/chat/completions", schema(
        {"allOf": [{"anyOf": [{"const": f"{a}{b}"} for b in range(40)]} for a in range(40)]})),
    "a schema of itself": ("/v1/chat/completions", schema({"$ref": "#"})),
    "schemas in a ring": ("/v1/chat/completions", schema(
        {"$defs": {f"d{n}": {"$ref": f"#/$defs/d{(n + 1) % 900}"} for n in range(900)}, "$ref": "#/$defs/d0"})),
    "a tree of three kinds": ("/v1/chat/completions", schema({"$ref": "#/$defs/n", "$defs": {"n": {"anyOf": [
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}, f"b{n}": {"type": "string"}},
         "required": ["a", f"b{n}"], "additionalProperties": False} for n in range(3)]}}})),
    "an enum of a hundred thousand": ("/v1/chat/completions", schema({"enum": [f"user-{n}" for n in range(100_000)]})),
    "a text of a thousand million": ("/v1/chat/completions", schema({"type": "string", "minLength": 10**9})),
    "a list of a thousand million": ("/v1/chat/completions", schema(
        {"type": "array", "minItems": 10**9, "items": {"type": "array", "minItems": 10**9}})),
    "counted properties": ("/v1/chat/completions", schema(
        {"type": "object", "properties": {f"p{n}": {} for n in range(2_000)}, "minProperties": 1_000})),
    "not not not": ("/v1/chat/completions", within(OPENAI, "response_format",
        SCHEMA + nested('{"not":', "}", 3_000, "{}") + b"}}")),
    "a pattern that doubles": ("/v1/chat/completions", schema({"type": "string", "pattern": "(a|b|ab)*" * 30 + "c"})),
    "a pattern of lookaheads": ("/v1/chat/completions", schema(
        {"type": "string", "pattern": "".join(f"(?=.*{n}.*)" for n in range(60))})),
    "a pattern of parentheses": ("/v1/chat/completions", schema(
        {"type": "string", "pattern": "(" * 20_000 + "a" + ")" * 20_000})),
    "a pattern of counts": ("/v1/chat/completions", schema({"type": "string", "pattern": "((a{1000}){1000}){1000}"})),
    "a multiple of almost nothing": ("/v1/chat/completions", schema({"type": "number", "multipleOf": 1e-300})),
    "tools by the thousand": ("/v1/chat/completions", OPENAI | {"tools": [
        {"type": "function", "function": {"name": f"f{n}", "parameters": {"type": "object"}}} for n in range(3_000)]}),
    "a tool whose name is its attack": ("/v1/chat/completions", OPENAI | {"tools": [
        {"type": "function", "function": {"name": "a" * 100_000 + '"\n', "parameters": {}}}]}),
    "a tool's parameters of itself": ("/v1/chat/completions", tool(
        {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "required": ["a", "b"]})),
    # written grammars
    "parentheses": ("/v1/chat/completions", grammar("root ::= " + "(" * 90_000 + '"a"' + ")" * 90_000)),
    "repetitions of repetitions": ("/v1/chat/completions", grammar('root ::= (((("a"{999}){999}){999}){999}){999}')),
    "nothing for ever": ("/v1/chat/completions", grammar('root ::= (("a"?)*)*')),
    "begins with itself": ("/v1/chat/completions", grammar('root ::= root "a" | "b"')),
    "doubles at each character": ("/v1/chat/completions",
        grammar('root ::= s\ns ::= "a" t | "a" u | "x"\nt ::= s "b" s\nu ::= s "c" s s')),
    "rows of rows": ("/v1/chat/completions", grammar('root ::= s\ns ::= "a" s s | "a"')),
    "rules by the thousand": ("/v1/chat/completions", grammar("\n".join([
        "root ::= r0", *(f'r{n} ::= "a" r{n + 1} | r{n + 1}' for n in range(15_000)), 'r15000 ::= "b"']))),
    "a class of everything": ("/v1/chat/completions",
        grammar("root ::= [^" + "".join(map(chr, range(0x4E00, 0x9000))) + "]")),
    "lark of itself": ("/v1/chat/completions", lark('start: "a" start start | "a"')),
    "lark of parentheses": ("/v1/chat/completions", lark("start: " + "(" * 50_000 + '"a"' + ")" * 50_000)),
    "lark's counts": ("/v1/chat/completions", lark('start: (("a"~999)~999)~999')),
    "an expression that doubles": ("/v1/chat/completions", lark("(x+x+)+y", "regex")),
    "an expression's back reference": ("/v1/chat/completions", lark(r"(a*)\1{99999}", "regex")),
    # templates that come with a request
    "go: a text multiplied": ("/api/generate", template(
        "{{ $a := .Prompt }}" + "{{ $a = print $a $a }}" * 60 + "{{ $a }}")),
    "go: slices": ("/api/generate", template("{{ range $i := 3000000 }}{{ slice $.Prompt 0 1 }}{{ end }}")),
    "go: html": ("/api/generate", template("{{ .Prompt" + " | html | urlquery | js" * 200 + " }}")),
    "go: blocks": ("/api/generate", template(
        "".join(f'{{{{ define "t{n}" }}}}{{{{ template "t{n + 1}" . }}}}{{{{ template "t{n + 1}" . }}}}{{{{ end }}}}'
                for n in range(60)) + '{{ define "t60" }}{{ .Prompt }}{{ end }}{{ template "t0" . }}')),
    "go: comments": ("/api/generate", template("{{/* " * 30_000 + "{{ .Prompt }}")),
    "jinja: a list of itself": ("/api/generate", template(
        "{% set n = namespace(a=[messages]) %}"
        "{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% endfor %}{{ n.a }}" + SAYS)),
    "jinja: batches": ("/api/generate", template(
        "{% for a in range(99999)|batch(1, 'x' * 9999) %}{{ a }}{% endfor %}" + SAYS)),
    "jinja: a macro in a macro": ("/api/generate", template(
        "{% macro m(n) %}{% if n %}{{ m(n - 1) ~ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}" + SAYS)),
    "jinja: blocks": ("/api/generate", template("{% block a %}" * 9_000 + SAYS + "{% endblock %}" * 9_000)),
    "jinja: sorted by itself": ("/api/generate", template(
        "{{ (range(99999)|list)|sort|map('string')|join|list|unique|list|length }}{% if 1 %}{% endif %}" + SAYS)),
    "jinja: a power": ("/api/generate", template("{% if 1 %}{{ 9 ** 9 ** 9 }}{% endif %}" + SAYS)),
    "jinja: wrapped": ("/api/generate", template(
        "{% if 1 %}{{ ('a ' * 9999999)|wordwrap(1)|indent(9999) }}{% endif %}" + SAYS)),
    # pictures and sounds
    "a picture of a thousand million": ("/api/chat", pictured(png(2**31 - 1, 2**31 - 1))),
    "a picture without end": ("/api/chat", pictured(png(60_000, 60_000))),
    "a picture of no kind": ("/api/chat",
        pictured(base64.b64encode(b"RIFF" + bytes(8) + b"WEBPVP8X" + bytes(99)).decode())),
    "a picture in itself": ("/v1/chat/completions", OPENAI | {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," * 100_000}}]}]}),
    # names, paths and addresses
    "a name of a megabyte": ("/api/show", {"model": "a" * (1 << 20)}),
    "a name upwards": ("/api/show", {"model": "../../../../etc/passwd"}),
    "a name with a zero": ("/api/delete", {"model": "a\0b"}),
    "a pull from this machine": ("/api/pull", {"model": "http://127.0.0.1:1/a/b:c", "stream": False}),
    "files upwards": ("/api/create", {"model": "x", "files": {"../../x": "sha256:" + "0" * 64}, "stream": False}),
    "a digest that is a path": ("/api/create", {"model": "x", "files": {"x": "sha256:../../etc"}, "stream": False}),
    "a million files": ("/api/create", {"model": "x", "files": {f"{n}": "sha256:" + "0" * 64 for n in range(200_000)}}),
    "a system of megabytes": ("/api/create",
        {"model": "x", "from": "tiny", "system": "s" * (20 << 20), "stream": False}),
    "messages by the thousand": ("/api/create", {"model": "x", "from": "tiny", "stream": False,
        "messages": [{"role": "user", "content": "x"}] * 30_000}),
    "a response's messages": ("/v1/responses",
        {"model": "tiny", "input": [{"role": "user", "content": "Hello there"}] * 40_000}),
    "a text of megabytes to embed": ("/v1/embeddings", {"model": "tiny", "input": "ten bytes " * 1_000_000}),
}  # fmt: skip


def header(*, tensors: int = 0, pairs: int = 0, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + rest


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


def listed(times: int) -> bytes:
    """Lists in lists."""
    return struct.pack("<IQ", 9, 1) * times + struct.pack("<IQ", 0, 1) + b"x"


TENSOR = struct.pack("<Q", 1) + b"t"
FILES: dict[str, bytes] = {
    "tensors without number": header(tensors=2**63),
    "pairs without number": header(pairs=2**64 - 1),
    "a text of exabytes": header(pairs=1, rest=pair(b"general.architecture", 8, struct.pack("<Q", 2**62))),
    "a key of exabytes": header(pairs=1, rest=struct.pack("<Q", 2**63)),
    "a list of exabytes": header(pairs=1, rest=pair(b"tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2**60))),
    "lists in lists": header(pairs=1, rest=pair(b"a", 9, listed(100_000))),
    "a kind that is none": header(pairs=1, rest=pair(b"a", 77, b"")),
    "a version of tomorrow": header(version=2**31),
    "the other byte order": b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(99),
    "a tensor of no size": header(tensors=1, rest=TENSOR + struct.pack("<IQQIQ", 2, 2**63, 2**63, 0, 0)),
    "a tensor of many sides": header(tensors=1, rest=TENSOR + struct.pack("<I", 2**32 - 1)),
    "a tensor beyond the end": header(tensors=1, rest=TENSOR + struct.pack("<IQIQ", 1, 32, 0, 2**63)),
    "an alignment of nothing": gguf_bytes(metadata={"general.alignment": 0, "llama.block_count": 1}),
    "layers without number": gguf_bytes(metadata={"llama.block_count": 2**31, "llama.embedding_length": 2**31}),
    "a template of megabytes": gguf_bytes(chat_template="{{ a }}" * 1_000_000),
    "a template that nests": gguf_bytes(chat_template="{% if a %}" * 30_000 + "{% endif %}" * 30_000),
    "a template that doubles": gguf_bytes(
        chat_template="{% set n = namespace(a='x') %}{% for i in range(99) %}{% set n.a = n.a ~ n.a %}{% endfor %}"
    ),
    "nothing but its name": b"GGUF",
    "no bytes": b"",
}  # fmt: skip


def fine(server: Attacked, attack: Callable[[], tuple[int, bytes]]) -> tuple[int, bytes]:
    """The answer, while somebody else is answered and nothing dies or grows."""
    over = threading.Event()
    others: list[bool] = []
    largest: list[int] = [0]

    def ask() -> None:
        while True:
            others.append(server.version())
            largest[0] = max(largest[0], *server.children(), 0)
            if over.is_set():
                return

    asking = threading.Thread(target=ask)
    server.longest.note(0.0)
    asking.start()
    try:
        status, body = attack()
    finally:
        over.set()
        asking.join()
    assert server.process.poll() is None
    assert others
    assert all(others)
    assert status < 500 or status == 503, body[:1000]
    assert server.longest() < TURN
    assert largest[0] < CELL_ROOM
    assert server.memory() - server.before < ROOM
    return status, body


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body(attacked: Attacked, name: str) -> None:
    path, body = BODIES[name]
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fine(attacked, lambda: attacked.post(path, data))
    assert attacked.post("/api/chat", CHAT)[0] == 200


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file(attacked: Attacked, name: str) -> None:
    def make() -> tuple[int, bytes]:
        digest = attacked.upload(FILES[name])
        return attacked.post("/api/create", {"model": "x", "files": {"x.gguf": digest}, "stream": False})

    status, body = fine(attacked, make)
    assert status == 400
    assert json.loads(body)["error"]


def raw(server: Attacked, data: bytes) -> tuple[int, bytes]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        received = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                received += piece
        except (BrokenPipeError, ConnectionResetError):
            pass
    return int(received.split()[1]) if received else 0, received


def zeros() -> bytes:
    """Many in a small body. It takes seconds to make: only who sends it makes it."""
    packed = gzip.compress(bytes(256 << 20))
    head = b"POST /api/chat HTTP/1.1\r\nhost: localhost\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
    return head % len(packed) + packed


HEADS: dict[str, bytes | Callable[[], bytes]] = {
    "a gigabyte in a kilobyte": zeros,
    "a length beyond all": b"POST /api/chat HTTP/1.1\r\nhost: localhost\r\ncontent-length: " + b"9" * 20 + b"\r\n\r\n",
    "a chunk beyond all": b"POST /api/chat HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    b"ffffffffffffffff\r\n" + bytes(9999),
    "heads by the thousand": b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"a: b\r\n" * 100_000 + b"\r\n",
    "a head of megabytes": b"GET / HTTP/1.1\r\nhost: localhost\r\na: " + b"b" * (4 << 20) + b"\r\n\r\n",
    "a path of megabytes": b"GET /" + b"a" * (4 << 20) + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "bytes of no kind": bytes(range(256)) * 100,
}


@pytest.mark.parametrize("name", HEADS)
def test_hostile_bytes(attacked: Attacked, name: str) -> None:
    head = HEADS[name]
    data = head() if callable(head) else head
    fine(attacked, lambda: raw(attacked, data))
    assert attacked.post("/api/chat", CHAT)[0] == 200


def test_a_file_that_is_no_file_is_not_taken(attacked: Attacked, tmp_path: Path) -> None:
    """Named by a program on this machine, by its path."""
    pipe, holes = tmp_path / "pipe", tmp_path / "holes"
    os.mkfifo(pipe)
    with holes.open("wb") as file:
        file.truncate(1 << 40)
    for path in (pipe, Path("/dev/zero"), Path("/proc/kmsg"), tmp_path):
        digest = f"sha256:{hashlib.sha256(str(path).encode()).hexdigest()}"
        status, body = fine(
            attacked,
            lambda path=path, digest=digest: attacked.post(  # type: ignore[misc]
                f"/api/blobs/{digest}", b"", **{"x-puna-local-file": str(path)}
            ),
        )
        assert (status, b"cannot be taken" in body) == (400, True)
    # A terabyte is hashed for as long as its caller waits, and not after.
    digest = "sha256:" + "a" * 64
    head = f"POST /api/blobs/{digest} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n"
    head += f"x-puna-local-file: {holes}\r\n\r\n"
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", attacked.port)) as connection:
            connection.sendall(head.encode())
            assert attacked.version()

    def reading() -> bool:
        return any(file.path == str(holes) for file in psutil.Process(attacked.process.pid).open_files())

    until(lambda: not reading(), 30, "the file to be left")
    assert attacked.upload(b"a file like any other")


def test_it_ends_as_asked_after_all_that(attacked: Attacked) -> None:
    attacked.process.send_signal(signal.SIGTERM)
    assert attacked.process.wait(20) == 0
    assert "Traceback" not in attacked.log.read_text(errors="replace")

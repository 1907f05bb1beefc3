"""Whatever is sent to files, uploads and batches: never a 5xx. `PUNA_TEST_DAMAGED=500` sends so many to each."""

from __future__ import annotations

import json
import random
from urllib.parse import quote

import pytest

from fakes.batches import ended, line, submit, text_of
from fakes.damage import changed, damaged, rounds

ROUNDS = rounds(40)
BOUNDARY = "boundary"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
WORDS = ["", "x", "-1", "9" * 400, "\0", "a b", "😀", "..", "../..", "%", "asc", "file-1", "null", "a" * 5000]


def part(name, data, filename=None):
    named = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode("utf-8", "surrogatepass") + data + b"\r\n"


@pytest.fixture(scope="module")
def known(openai):
    """Ids of objects that are there."""
    file = openai.files.create(file=b"text", purpose="batch").id
    upload = openai.uploads.create(bytes=3, filename="a", mime_type="b", purpose="evals").id
    batch = ended(openai, submit(openai, [line("a")])).id
    return {"file": file, "upload": upload, "batch": batch}


FORM_BODY = part("file", b"content", "a.txt") + part("purpose", b"evals") + f"--{BOUNDARY}--\r\n".encode()
PART_BODY = part("data", b"content", "a") + f"--{BOUNDARY}--\r\n".encode()
UPLOAD = {"bytes": 3, "filename": "a", "mime_type": "b", "purpose": "evals", "expires_after": None}
BATCH = {
    "input_file_id": "", "endpoint": "/v1/embeddings", "completion_window": "24h", "metadata": {"a": "b"},
    "output_expires_after": {"anchor": "created_at", "seconds": 3600},
}  # fmt: skip


def answers(server, requests):
    """How each is answered. The server is there afterwards."""
    found = [server.request(method, path, body, headers=headers) for method, path, body, headers in requests]
    for answer in found:
        assert answer.status < 500, answer.body
        if answer.status >= 400:
            assert answer.error.keys() == {"message", "type", "param", "code"}
    assert server.get("/health").status == 200
    return {answer.status for answer in found}


@pytest.mark.parametrize("path", ["/v1/files", "/v1/uploads/{upload}/parts"])
def test_forms(server, known, path):
    chance = random.Random(1)
    whole = FORM_BODY if path == "/v1/files" else PART_BODY
    headers = [FORM, FORM, FORM, FORM | {"content-encoding": "gzip"}, {"content-type": "multipart/form-data"}]
    headers += [{"content-type": f"multipart/form-data; boundary={quote(word)}"} for word in WORDS]
    requests = [
        (
            "POST",
            path.format(**known),
            damaged(chance, whole),
            FORM if chance.random() < 0.8 else chance.choice(headers),
        )
        for _ in range(ROUNDS)
    ]
    assert 400 in answers(server, requests)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/uploads", UPLOAD),
        ("/v1/uploads/{upload}/complete", {"part_ids": ["part_1"], "md5": "0" * 32}),
        ("/v1/batches", BATCH),
    ],
)
def test_bodies(server, known, path, body):
    chance = random.Random(2)
    whole = body | ({"input_file_id": known["file"]} if path == "/v1/batches" else {})
    requests = []
    for _ in range(ROUNDS):
        fields = changed(chance, whole)
        sent = damaged(chance, json.dumps(whole).encode()) if chance.random() < 0.4 else fields
        requests.append(("POST", path.format(**known), sent, {}))
    assert 400 in answers(server, requests)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/files"),
        ("GET", "/v1/files/{file}"),
        ("GET", "/v1/files/{file}/content"),
        ("DELETE", "/v1/files/{other}"),
        ("POST", "/v1/uploads/{other}/cancel"),
        ("GET", "/v1/batches"),
        ("GET", "/v1/batches/{batch}"),
        ("POST", "/v1/batches/{batch}/cancel"),
    ],
)
def test_paths_and_queries(server, known, method, path):
    chance = random.Random(3)
    requests = []
    for _ in range(ROUNDS):
        ids = {kind: quote(chance.choice([id_, *WORDS[:-1]]), safe="") or "x" for kind, id_ in known.items()}
        place = path.format(**ids, other=quote(chance.choice(WORDS[:-1]), safe="") or "x")
        names = chance.choices(["limit", "order", "after", "before", "purpose", "x"], k=chance.randrange(4))
        query = "&".join(f"{name}={quote(chance.choice(WORDS))}" for name in names)
        ranges = ["bytes=0-", "bytes=9-1", "bytes=-", "bytes=" + "0-1," * 200, "x", "bytes=0-" + "9" * 400]
        headers = {"range": chance.choice(ranges)} if chance.random() < 0.5 else {}
        requests.append((method, f"{place}?{query}", None, headers))
    answers(server, requests)


def test_inputs_of_batches(server, openai, known):
    chance = random.Random(4)
    whole = text_of([line("a"), line("b"), line("c", max_tokens=3)])
    for _ in range(max(ROUNDS // 10, 4)):
        file = openai.files.create(file=damaged(chance, whole) or b"x", purpose="batch").id
        made = openai.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h")
        batch = ended(openai, made)
        assert batch.status in {"completed", "failed"}
        assert bool(batch.errors) == (batch.status == "failed")

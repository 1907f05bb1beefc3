"""Each field of the reference does what the page says: one test a row."""

from __future__ import annotations

import hashlib

import pytest
from openai import BadRequestError

from fakes.batches import ended, line, rows, submit
from puna.server.contract.reference import nested_shapes
from puna.server.contract.shapes import Honoured, shape_fields
from puna.server.files.bodies import BODIES

UPLOAD = {"bytes": 3, "filename": "a.txt", "mime_type": "text/plain", "purpose": "evals"}
SOON = {"anchor": "created_at", "seconds": 3600}


def uploaded(openai, *parts, order=None, **fields):
    upload = openai.uploads.create(**(UPLOAD | {"bytes": sum(map(len, parts))} | fields))
    ids = [openai.uploads.parts.create(upload.id, data=part).id for part in parts]
    return openai.uploads.complete(upload.id, part_ids=[ids[index] for index in order or range(len(ids))]).file


def said(openai, file):
    """What a chat reads of a file."""
    content = [{"type": "text", "text": "PROMPT"}, {"type": "file", "file": {"file_id": file.id}}]
    answer = openai.chat.completions.create(model="tiny", messages=[{"role": "user", "content": content}])
    return answer.choices[0].message.content


def goes_soon(file):
    return file.expires_at == file.created_at + 3600


def with_wrong_md5(openai):
    upload = openai.uploads.create(**UPLOAD)
    part = openai.uploads.parts.create(upload.id, data=b"abc").id
    with pytest.raises(BadRequestError, match="checksum"):
        openai.uploads.complete(upload.id, part_ids=[part], md5=hashlib.md5(b"abd").hexdigest())
    return openai.uploads.complete(upload.id, part_ids=[part], md5=hashlib.md5(b"abc").hexdigest())


def batched(openai, **fields):
    asked = line("a", fields.pop("url", "/v1/chat/completions"), **fields.pop("body", {}))
    return ended(openai, submit(openai, [asked], **fields))


EFFECTS = {
    "FileForm.purpose": lambda o: o.files.create(file=b"x", purpose="evals").purpose == "evals",
    "FileForm.expires_after": lambda o: goes_soon(o.files.create(file=b"x", purpose="evals", expires_after=SOON)),
    "FormExpiresAfter.anchor": lambda o: goes_soon(o.files.create(file=b"x", purpose="batch", expires_after=SOON)),
    "FormExpiresAfter.seconds": lambda o: goes_soon(o.files.create(file=b"x", purpose="vision", expires_after=SOON)),
    "UploadBody.bytes": lambda o: uploaded(o, b"abcd").bytes == 4,
    "UploadBody.filename": lambda o: uploaded(o, b"abc", filename="b.txt").filename == "b.txt",
    "UploadBody.mime_type": lambda o: "\nabc" in said(o, uploaded(o, b"abc", filename="a", mime_type="text/plain")),
    "UploadBody.purpose": lambda o: uploaded(o, b"abc", purpose="vision").purpose == "vision",
    "UploadBody.expires_after": lambda o: goes_soon(uploaded(o, b"abc", expires_after=SOON)),
    "ExpiresAfter.anchor": lambda o: goes_soon(uploaded(o, b"abc", purpose="batch", expires_after=SOON)),
    "ExpiresAfter.seconds": lambda o: goes_soon(uploaded(o, b"abc", purpose="vision", expires_after=SOON)),
    "CompleteBody.part_ids": lambda o: o.files.content(uploaded(o, b"a", b"b", order=[1, 0]).id).read() == b"ba",
    "CompleteBody.md5": lambda o: with_wrong_md5(o).status == "completed",
    "BatchBody.input_file_id": lambda o: rows(o, batched(o).output_file_id).keys() == {"a"},
    "BatchBody.endpoint": lambda o: batched(
        o, url="/v1/completions", endpoint="/v1/completions", body={"prompt": "Hi"}
    ).request_counts.completed == 1,
    "BatchBody.completion_window": lambda o: (b := batched(o)).expires_at == b.created_at + 24 * 3600,
    "BatchBody.metadata": lambda o: batched(o, metadata={"a": "b"}).metadata == {"a": "b"},
    "BatchBody.output_expires_after": lambda o: goes_soon(
        o.files.retrieve(batched(o, output_expires_after=SOON).output_file_id)
    ),
}  # fmt: skip

FIELDS = [
    (f"{shape.__name__}.{row.name}", row.mark)
    for shape in (*BODIES, *nested_shapes(BODIES))
    for row in shape_fields(shape)
]


@pytest.mark.parametrize("name", [name for name, _ in FIELDS])
def test_a_field_does_what_the_page_says(openai, name):
    assert EFFECTS[name](openai)


def test_every_field_is_honoured():
    assert [name for name, mark in FIELDS if not isinstance(mark, Honoured)] == []
    assert EFFECTS.keys() == {name for name, _ in FIELDS}

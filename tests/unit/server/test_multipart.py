from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from puna.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from puna.server.contract.forms import FormBoolean, FormInteger, FormNumber, read_form
from puna.server.contract.shapes import Shape
from puna.server.multipart import Form, FormBounds, nested, read_multipart
from puna.server.openai.wording import WORDING

BOUNDARY = "XX"
BOUNDS = FormBounds(file=1000, field=100, fields=5, setting="PUNA_SOMETHING")


def part(disposition, data=b"", **headers):
    lines = {"Content-Disposition": f"form-data; {disposition}"} | {k.replace("_", "-"): v for k, v in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode()
    return b"--XX\r\n" + head + b"\r\n" + data + b"\r\n"


def whole(*parts):
    return b"".join(parts) + b"--XX--\r\n"


FILE = part('name="file"; filename="a.txt"', b"content", Content_Type="text/plain")


def request_of(body, *, pieces=None, headers=None):
    chunks = [body[i : i + pieces] for i in range(0, len(body), pieces)] if pieces else [body]
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive():
        return messages.pop(0)

    known = {"content-type": f"multipart/form-data; boundary={BOUNDARY}", **(headers or {})}
    raw = [(name.encode(), value.encode()) for name, value in known.items()]
    return Request({"type": "http", "method": "POST", "headers": raw, "state": {"response_headers": {}}}, receive)


def read(body, bounds=BOUNDS, *, keep=None, **arguments) -> Form[object]:
    async def gathered(file):
        return file.field, file.filename, file.media_type, b"".join([chunk async for chunk in file.chunks])

    return asyncio.run(read_multipart(request_of(body, **arguments), bounds, keep or gathered))


@pytest.mark.parametrize("pieces", [None, 1, 7])
def test_fields_and_files(pieces):
    body = whole(
        part('name="purpose"', b"batch"), FILE, part('name="expires_after[anchor]"', "é\r\n--X".encode()),
        part('name="include[]"', b"a"), part('name="include[]"', b"b"),
    )  # fmt: skip
    form = read(body, pieces=pieces)
    assert form.fields == {"purpose": "batch", "expires_after": {"anchor": "é\r\n--X"}, "include": ["a", "b"]}
    assert form.files == {"file": ("file", "a.txt", "text/plain", b"content")}


@given(st.binary(max_size=300), st.integers(1, 40))
def test_the_bytes_of_a_file_are_its_bytes(data, pieces):
    if b"\r\n--XX" in b"\r\n" + data:
        return
    body = whole(part('name="file"; filename="f"', data), part('name="a"', b"b"))
    form = read(body, pieces=pieces)
    assert (form.files["file"][3], form.fields) == (data, {"a": "b"})


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('filename="a%22b%0Ac.txt"', 'a"b\nc.txt'),
        (r'filename="a\"b\\c.txt"', r'a"b\c.txt'),
        ("filename=plain.txt", "plain.txt"),
        ("filename=\"x.txt\"; filename*=UTF-8''na%C3%AFve.txt", "naïve.txt"),
        ('filename="naïve.txt"', "naïve.txt"),
        ('filename=""', ""),
        ("x=y", ""),
    ],
)
def test_names_of_files(disposition, name):
    assert read(whole(part(f'name="file"; {disposition}', b"1"))).files["file"][1] == name


def test_codings_are_taken_off():
    assert (
        read(gzip.compress(whole(FILE)), headers={"content-encoding": "gzip"}, pieces=10).files["file"][3] == b"content"
    )


def test_a_file_is_never_whole_in_memory():
    size = 20_000_000
    body = whole(part('name="file"; filename="f"', b"0" * size))
    request = request_of(body, pieces=60_000)
    seen = []

    async def count(file):
        seen.extend([len(chunk) async for chunk in file.chunks])

    tracemalloc.start()
    asyncio.run(read_multipart(request, FormBounds(file=size), count))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (sum(seen), max(seen) <= 64 * 1024, peak < 2_000_000) == (size, True, True)


def test_what_is_not_wanted_of_a_file_is_passed_over():
    async def first(file):
        async for chunk in file.chunks:
            return chunk

    form = read(whole(part('name="file"; filename="f"', b"0" * 900), part('name="a"', b"b")), keep=first, pieces=100)
    assert form.fields == {"a": "b"}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"", None, "incomplete_body"),
        (b"--XX\r\n", None, "incomplete_body"),
        (FILE, None, "incomplete_body"),
        (whole(FILE)[:-4], None, "incomplete_body"),
        (b"hello", None, "invalid_form"),
        (b"--XY\r\n\r\n", None, "invalid_form"),
        (b"--XX\r\n\r\nx\r\n--XX--", None, "invalid_form"),
        (b"--XX\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n--XX--", None, "invalid_form"),
        (b"--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n--XX--", None, "invalid_form"),
        (whole(part('name=""', b"x")), None, "invalid_form"),
        (whole(part('name="a"', b"x", content_disposition="form-data; name=b")), None, "invalid_form"),
        (whole(part('name="a\x01"', b"x")), None, "invalid_form"),
        (whole(part(f'name="{"a" * 300}"', b"x")), None, "invalid_form"),
        (whole(part('name="a"', b"x", X="y" * 5000)), None, "invalid_form"),
        (whole(part('name="a"', b"x", **{f"X{i}": "y" for i in range(9)})), None, "invalid_form"),
        (whole(*[part(f'name="f{i}"', b"x") for i in range(6)]), None, "invalid_form"),
        (whole(FILE, FILE), "file", "invalid_value"),
        (whole(part('name="other"; filename="f"', b"x")), "other", "invalid_value"),
        (whole(part('name="a"', b"\xff")), "a", "invalid_value"),
        (whole(part('name="a"', b"x", Content_Type="text/plain; charset=latin-1")), "a", "invalid_value"),
        (whole(part('name="file"', b"x", Content_Transfer_Encoding="base64")), "file", "invalid_value"),
        (whole(part('name="a"', b"x"), part('name="a"', b"y")), "a", "invalid_value"),
        (whole(part('name="a"', b"x" * 101)), "a", "request_too_large"),
        (whole(part('name="file"; filename="f"', b"x" * 1001)), "file", "request_too_large"),
        (whole(FILE) + b"x" * 1_000_000, "file", "request_too_large"),
    ],
)
def test_faults(body, param, code):
    for pieces in (None, 50):
        with pytest.raises((InvalidRequest, PayloadTooLarge)) as raised:
            read(body, pieces=pieces)
        assert (raised.value.param, raised.value.code) == (param, code)


def test_a_declared_length_is_refused_before_it_comes():
    with pytest.raises(PayloadTooLarge, match="PUNA_SOMETHING"):
        read(b"", headers={"content-length": "10000000"})


def test_a_bomb_is_too_large():
    bomb = gzip.compress(whole(part('name="file"; filename="f"', b"0" * 50_000_000)))
    with pytest.raises(PayloadTooLarge):
        read(bomb, headers={"content-encoding": "gzip"})


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/mixed; boundary=XX"])
def test_other_bodies(kind):
    with pytest.raises(UnsupportedMediaType):
        read(whole(FILE), headers={"content-type": kind})


def test_a_boundary_is_needed():
    with pytest.raises(InvalidRequest, match="boundary"):
        read(whole(FILE), headers={"content-type": "multipart/form-data"})


@given(st.lists(st.sampled_from([b"--XX", b"--", b"\r\n", b"Content-Disposition: form-data; name=", b"a", b'"', b";",
                                 b"filename", b"file", b":", b"\0", b"\xff", b"[", b"]", b"*=utf-8''%"]), max_size=40),
       st.integers(1, 30))  # fmt: skip
def test_any_bytes(pieces, size):
    with suppress(InvalidRequest, PayloadTooLarge):
        read(b"--XX\r\n" + b"".join(pieces), pieces=size)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("a", "1"), ("b[c]", "2"), ("b[d][e]", "3")], {"a": "1", "b": {"c": "2", "d": {"e": "3"}}}),
        ([("a[]", "1"), ("a[]", "2"), ("b[c][]", "3")], {"a": ["1", "2"], "b": {"c": ["3"]}}),
        ([("a]", "1"), ("[b]", "2"), ("c[", "3"), ("d[][e]", "4")], {"a]": "1", "[b]": "2", "c[": "3", "d[][e]": "4"}),
    ],
)
def test_names_with_brackets(fields, expected):
    assert nested(fields) == expected


@pytest.mark.parametrize(
    "names",
    [["a", "a"], ["a", "a[b]"], ["a[b]", "a"], ["a[]", "a[b]"], ["a[b]", "a[]"], ["a", "a[]"], ["a[b][c][d][e]"]],
)
def test_names_that_contradict_each_other(names):
    with pytest.raises(InvalidRequest) as raised:
        nested([(name, "x") for name in names])
    assert raised.value.param == names[-1]


class _Fields(Shape):
    """A form"""

    name: str
    count: FormInteger | None = None
    heat: FormNumber | None = None
    on: FormBoolean | None = None
    other: dict[str, str] | None = None


def checked(*fields):
    async def keep(file):
        return file.filename

    async def run():
        request = request_of(whole(*[part(f'name="{name}"', text) for name, text in fields]))
        return await read_form(request, _Fields, WORDING, strict=False, bounds=BOUNDS, keep=keep)

    return asyncio.run(run())


def test_fields_are_checked_like_json():
    body, files, _ = checked(("name", b"12"), ("count", b"-3"), ("heat", b".5e1"), ("on", b"true"))
    assert (body.name, body.count, body.heat, body.on, files) == ("12", -3, 5.0, True, {})


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ([("count", b"1")], "name", "missing_required_parameter"),
        ([("name", b"a"), ("count", b"1.5")], "count", "invalid_type"),
        ([("name", b"a"), ("count", b"9" * 30)], "count", "invalid_type"),
        ([("name", b"a"), ("heat", b"warm")], "heat", "invalid_type"),
        ([("name", b"a"), ("heat", b"nan")], "heat", "invalid_type"),
        ([("name", b"a"), ("on", b"yes")], "on", "invalid_type"),
        ([("name", b"a"), ("other[x][y]", b"1")], "other.x", "invalid_type"),
    ],
)
def test_faults_of_fields(fields, param, code):
    with pytest.raises(InvalidRequest) as raised:
        checked(*fields)
    assert (raised.value.param, raised.value.code) == (param, code)

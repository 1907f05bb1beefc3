"""Files and uploads, by OpenAI's own client and by hand."""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import APIStatusError, BadRequestError, NotFoundError

BOUNDARY = "boundary"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def form(*parts):
    """A body of parts: (name, value) or (name, filename, bytes)."""
    body = b""
    for name, *rest in parts:
        filename = f'; filename="{rest[0]}"' if len(rest) == 2 else ""
        data = rest[-1] if isinstance(rest[-1], bytes) else rest[-1].encode()
        body += (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode() + data + b"\r\n"
        )
    return body + f"--{BOUNDARY}--\r\n".encode()


def given(openai, data=b"some text", name="a.txt", **fields):
    return openai.files.create(file=(name, io.BytesIO(data)), **({"purpose": "user_data"} | fields))


def test_a_file_lives(openai):
    file = given(openai, name="ä b.txt")
    assert (file.object, file.bytes, file.filename, file.purpose, file.status) == (
        "file",
        9,
        "ä b.txt",
        "user_data",
        "processed",
    )
    assert file.expires_at is None
    assert openai.files.retrieve(file.id) == file
    assert openai.files.wait_for_processing(file.id) == file
    assert openai.files.content(file.id).read() == b"some text"
    assert openai.files.delete(file.id).model_dump() == {"id": file.id, "object": "file", "deleted": True}
    for gone in (openai.files.retrieve, openai.files.content, openai.files.delete):
        with pytest.raises(NotFoundError):
            gone(file.id)


@pytest.mark.parametrize("purpose", ["assistants", "fine-tune", "vision", "user_data", "evals"])
def test_purposes(openai, purpose):
    file = given(openai, purpose=purpose)
    assert (file.purpose, file.expires_at) == (purpose, None)


def test_when_a_file_goes(openai):
    assert (file := given(openai, purpose="batch")).expires_at == file.created_at + 30 * 24 * 3600
    said = {"anchor": "created_at", "seconds": 3600}
    assert (file := given(openai, purpose="batch", expires_after=said)).expires_at == file.created_at + 3600


def test_pages_both_ways(openai):
    files = [given(openai, name=f"{number}", purpose="evals").id for number in range(5)]
    listed = openai.files.list(purpose="evals", limit=2)
    assert [file.id for file in listed.data] == files[:-3:-1]
    assert listed.has_more
    assert [file.id for file in listed][:5] == files[::-1]
    upwards = openai.files.list(purpose="evals", limit=2, order="asc", after=files[0])
    assert [file.id for file in upwards][:4] == files[1:]
    before = openai.files.list(purpose="evals", limit=2, extra_query={"before": files[0]})
    assert [file.id for file in before.data] == [files[2], files[1]]
    assert {file.purpose for file in openai.files.list(purpose="batch")} <= {"batch"}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("purpose=x", "purpose"),
        ("after=file-none", "after"),
    ],
)
def test_faults_of_lists(server, query, param):
    answer = server.get(f"/v1/files?{query}")
    assert (answer.status < 500, answer.error["param"]) == (True, param)


@pytest.mark.parametrize(
    ("range_", "status", "body"),
    [
        ("bytes=0-3", 206, b"some"),
        ("bytes=5-", 206, b"text"),
        ("bytes=-2", 206, b"xt"),
        ("bytes=3-100", 206, b"e text"),
        ("bytes=9-", 416, None),
        ("bytes=x", 400, None),
    ],
)
def test_a_part_of_a_file(server, openai, range_, status, body):
    file = given(openai)
    answer = server.get(f"/v1/files/{file.id}/content", headers={"range": range_})
    assert answer.status == status
    assert body is None or answer.body == body
    if status >= 400:
        assert answer.error["param"] == "range"


def test_a_file_of_every_size(openai):
    for size in (1, 65_535, 65_536, 65_537, 3_000_000):
        data = bytes(range(256)) * (size // 256 + 1)
        file = given(openai, data[:size])
        assert openai.files.content(file.id).read() == data[:size]


A_FILE = ("file", "a", b"x")
BATCH = ("purpose", "batch")
ANCHOR = ("expires_after[anchor]", "created_at")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (form(BATCH), "file", "missing_required_parameter"),
        (form(A_FILE), "purpose", "missing_required_parameter"),
        (form(("file", "a", b""), BATCH), "file", "invalid_value"),
        (form(A_FILE, ("purpose", "fun")), "purpose", "invalid_value"),
        (form(A_FILE, ("purpose", "p", b"batch")), "purpose", "invalid_value"),
        (form(A_FILE, BATCH, ("expires_after", "x")), "expires_after", "invalid_type"),
        (form(A_FILE, BATCH, ("expires_after[seconds]", "1")), "expires_after.anchor", "missing_required_parameter"),
        (form(A_FILE, BATCH, ANCHOR), "expires_after.seconds", "missing_required_parameter"),
        (
            form(A_FILE, BATCH, ANCHOR, ("expires_after[seconds]", "59")),
            "expires_after.seconds",
            "integer_below_min_value",
        ),
        (form(A_FILE, BATCH, ANCHOR, ("expires_after[seconds]", "1e4")), "expires_after.seconds", "invalid_type"),
        (b"--boundary--", "purpose", "missing_required_parameter"),
        (b"nothing", None, "invalid_form"),
        (b"", None, "incomplete_body"),
    ],
)
def test_faults_of_forms(server, body, param, code):
    answer = server.post("/v1/files", body, headers=FORM)
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, param, code)


def test_unknown_fields_of_a_form(server):
    body = form(("file", "a", b"x"), ("purpose", "evals"), ("other", "x"))
    assert server.post("/v1/files", body, headers=FORM).headers["x-puna-ignored"] == "other"
    strict = server.post("/v1/files", body, headers=FORM | {"x-puna-strict": "true"})
    assert (strict.status, strict.error["param"]) == (400, "other")


def test_a_body_that_is_no_form(server):
    answer = server.post("/v1/files", {"purpose": "batch"})
    assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")


def test_files_have_a_limit_of_their_own(serving, tmp_path):
    with serving(max_file=10_000, max_body=1000, state=tmp_path) as own:
        body = form(("file", "a", b"x" * 10_000), ("purpose", "evals"))
        assert own.post("/v1/files", body, headers=FORM).status == 200
        for arguments in (
            {"body": form(("file", "a", b"x" * 10_001), ("purpose", "evals"))},
            {"chunked": iter([body] * 1000)},
        ):
            answer = own.post("/v1/files", headers=FORM, **arguments)
            assert (answer.status, answer.error["param"]) == (413, "file")
            assert "PUNA_MAX_FILE" in answer.error["message"]
        answer = own.post("/v1/uploads", {"bytes": 10_001, "filename": "a", "mime_type": "b", "purpose": "evals"})
        assert (answer.status, answer.error["param"]) == (413, "bytes")


def test_a_state_at_its_limit(serving, tmp_path):
    with serving(state=tmp_path, state_records=3) as own:
        body = form(("file", "a", b"x"), ("purpose", "evals"))
        made = [own.post("/v1/files", body, headers=FORM) for _ in range(4)]
        assert [answer.status for answer in made] == [200, 200, 200, 403]
        assert made[3].error["code"] == "storage_full"
        assert own.request("DELETE", f"/v1/files/{made[0].json['id']}").status == 200
        assert own.post("/v1/files", body, headers=FORM).status == 200


def test_what_is_refused_leaves_no_bytes(serving, tmp_path):
    def held():
        return {file.read_bytes() for file in (tmp_path / "contents").glob("*")}

    with serving(state=tmp_path, state_records=2) as own:

        def post(path, *parts):
            return own.post(path, form(*parts), headers=FORM)

        purpose = ("purpose", "evals")
        assert post("/v1/files", ("file", "a", b"kept"), purpose).status == 200
        assert post("/v1/files", ("file", "a", b"other"), ("purpose", "fun")).status == 400
        assert post("/v1/files", ("file", "a", b"kept"), ("purpose", "fun")).status == 400
        assert post("/v1/files", ("file", "a", b"broken"), ("purpose", b"\xff")).status == 400
        body = {"bytes": 2, "filename": "a", "mime_type": "b", "purpose": "evals"}
        upload = own.post("/v1/uploads", body).json["id"]
        assert post(f"/v1/uploads/{upload}/parts", ("data", "a", b"part")).status == 403
        assert post("/v1/files", ("file", "a", b"no room"), purpose).status == 403
        assert held() == {b"kept"}


def test_a_server_that_keeps_nothing(serving):
    with serving(state="off") as own:
        assert own.get("/v1/files").json["data"] == []
        answer = own.post("/v1/files", form(("file", "a", b"x"), ("purpose", "evals")), headers=FORM)
        assert (answer.status, answer.error["code"]) == (400, "unsupported_value")


# ----------------------------------------------------------------------------------------------------------- in chats


def test_a_chat_reads_a_file(openai):
    file = given(openai, b"PROMPT of the file", "notes.txt")
    content = [{"type": "file", "file": {"file_id": file.id}}, {"type": "text", "text": "Sum it up."}]
    answer = openai.chat.completions.create(model="tiny", messages=[{"role": "user", "content": content}])
    assert "notes.txt:\nPROMPT of the file" in answer.choices[0].message.content


def test_a_file_that_is_no_text(server, openai):
    file = given(openai, b"\0\1\2", "a.bin")
    content = [{"type": "file", "file": {"file_id": file.id}}]
    answer = server.post("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": content}]})
    assert (answer.status, answer.error["param"]) == (400, "messages[0].content[0].file.file_id")


# ------------------------------------------------------------------------------------------------------------ uploads


def begun(openai, size, **fields):
    known = {"bytes": size, "filename": "big.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
    return openai.uploads.create(**(known | fields))


def add(openai, upload, data):
    return openai.uploads.parts.create(upload.id, data=data)


def test_an_upload_in_parts(openai):
    upload = begun(openai, 9, expires_after={"anchor": "created_at", "seconds": 7200})
    assert (upload.object, upload.status, upload.expires_at, upload.file) == (
        "upload",
        "pending",
        upload.created_at + 3600,
        None,
    )
    parts = [add(openai, upload, data) for data in (b"ghi", b"abc", b"def", b"none")]
    assert {part.upload_id for part in parts} == {upload.id}
    ids = [parts[1].id, parts[2].id, parts[0].id]
    done = openai.uploads.complete(upload.id, part_ids=ids, md5=hashlib.md5(b"abcdefghi").hexdigest())
    assert (done.status, done.file.bytes, done.file.filename) == ("completed", 9, "big.jsonl")
    assert done.file.expires_at == done.file.created_at + 7200
    assert openai.files.content(done.file.id).read() == b"abcdefghi"
    for late in (
        lambda: openai.uploads.complete(upload.id, part_ids=ids),
        lambda: openai.uploads.cancel(upload.id),
        lambda: add(openai, upload, b"x"),
    ):
        with pytest.raises(BadRequestError, match="completed already"):
            late()


def test_the_client_cuts_a_file_itself(openai):
    data = bytes(range(256)) * 1000
    done = openai.uploads.upload_file_chunked(
        file=data, filename="a.bin", bytes=len(data), mime_type="application/octet-stream", purpose="user_data",
        part_size=100_000, md5=hashlib.md5(data).hexdigest(),
    )  # fmt: skip
    assert openai.files.content(done.file.id).read() == data


def test_an_upload_that_is_cancelled(openai):
    upload = begun(openai, 3)
    part = add(openai, upload, b"abc")
    assert openai.uploads.cancel(upload.id).status == "cancelled"
    with pytest.raises(BadRequestError, match="cancelled already"):
        openai.uploads.complete(upload.id, part_ids=[part.id])


@pytest.mark.parametrize(
    ("make", "param"),
    [
        (lambda ids: {"part_ids": ids[:1]}, "part_ids"),
        (lambda ids: {"part_ids": [*ids, ids[0]]}, "part_ids[2]"),
        (lambda ids: {"part_ids": [*ids, "part_none"]}, "part_ids[2]"),
        (lambda ids: {"part_ids": ids, "md5": "0" * 32}, "md5"),
        (lambda ids: {"part_ids": ids, "md5": "x"}, "md5"),
        (lambda ids: {"part_ids": []}, "part_ids"),
        (lambda ids: {"part_ids": ids, "md5": 1}, "md5"),
        (lambda ids: {"part_ids": [1]}, "part_ids[0]"),
        (lambda ids: {}, "part_ids"),
    ],
)
def test_uploads_that_do_not_fit(server, openai, make, param):
    upload = begun(openai, 6)
    ids = [add(openai, upload, data).id for data in (b"abc", b"def")]
    answer = server.post(f"/v1/uploads/{upload.id}/complete", make(ids))
    assert (answer.status, answer.error["param"]) == (400, param)
    assert openai.uploads.complete(upload.id, part_ids=ids).status == "completed"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"bytes": 0}, "bytes"),
        ({"bytes": "3"}, "bytes"),
        ({"filename": ""}, "filename"),
        ({"mime_type": None}, "mime_type"),
        ({"purpose": "fun"}, "purpose"),
        ({"expires_after": {"anchor": "now", "seconds": 3600}}, "expires_after.anchor"),
        ({"expires_after": {"anchor": "created_at", "seconds": "3600"}}, "expires_after.seconds"),
    ],
)
def test_faults_of_uploads(server, change, param):
    body = {"bytes": 3, "filename": "a", "mime_type": "text/plain", "purpose": "evals"} | change
    answer = server.post("/v1/uploads", body)
    assert (answer.status, answer.error["param"]) == (400, param)


def test_faults_of_parts(server, openai):
    upload = begun(openai, 6)
    for body, param in ((form(("data", "x", b"")), "data"), (form(("other", "x", b"y")), "other"), (form(), "data")):
        answer = server.post(f"/v1/uploads/{upload.id}/parts", body, headers=FORM)
        assert (answer.status, answer.error["param"]) == (400, param)


def test_parameters_of_an_object_are_reported(server, openai):
    file = given(openai)
    for method, path in (("GET", f"/v1/files/{file.id}?x=1"), ("DELETE", f"/v1/files/{file.id}?x=1")):
        assert server.request(method, path).headers["x-puna-ignored"] == "x"


def test_paths_that_are_not_there(server):
    for method, path in (
        ("GET", "/v1/files/file-none"), ("DELETE", "/v1/files/file-none"), ("GET", "/v1/files/file-none/content"),
        ("POST", "/v1/uploads/upload_none/cancel"),
    ):  # fmt: skip
        answer = server.request(method, path)
        assert (answer.status, answer.error["param"]) == (404, "id")


def test_objects_of_another_key_are_not_there(serving, tmp_path):
    with serving(state=tmp_path, api_keys=("one", "two")) as own:
        mine, other = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        file = own.post("/v1/files", form(("file", "a", b"x"), ("purpose", "batch")), headers=FORM | mine).json["id"]
        upload = own.post(
            "/v1/uploads", {"bytes": 1, "filename": "a", "mime_type": "b", "purpose": "evals"}, headers=mine
        ).json["id"]
        part = own.post(f"/v1/uploads/{upload}/parts", form(("data", "x", b"y")), headers=FORM | mine).json["id"]
        batch = own.post(
            "/v1/batches",
            {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"},
            headers=mine,
        ).json["id"]
        asked = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"}
        routes = [
            ("GET", f"/v1/files/{file}", None),
            ("GET", f"/v1/files/{file}/content", None),
            ("DELETE", f"/v1/files/{file}", None),
            ("POST", f"/v1/uploads/{upload}/complete", {"part_ids": [part]}),
            ("POST", f"/v1/uploads/{upload}/cancel", None),
            ("POST", f"/v1/uploads/{upload}/parts", form(("data", "x", b"y"))),
            ("GET", f"/v1/batches/{batch}", None),
            ("POST", f"/v1/batches/{batch}/cancel", None),
            ("POST", "/v1/batches", asked),
        ]
        for method, path, body in routes:
            kind = FORM if isinstance(body, bytes) else {}
            answer = own.request(method, path, body, headers=other | kind)
            assert (answer.status, answer.error["type"]) == (404, "invalid_request_error"), path
        for path in ("/v1/files", "/v1/batches"):
            assert own.get(path, headers=other).json["data"] == []
            assert len(own.get(path, headers=mine).json["data"]) == 1


def test_errors_are_the_clients_own(openai):
    with pytest.raises(APIStatusError) as raised:
        given(openai, purpose="fun")
    assert raised.value.body["param"] == "purpose"


def test_an_upload_ends_once_however_many_ask(openai):
    """Each time with the same bytes: those that one lets go of, another is about to keep."""

    def race(_):
        upload = begun(openai, 4)
        part = add(openai, upload, b"abcd")

        def ended(work):
            try:
                return work().status
            except BadRequestError:
                return "refused"

        with ThreadPoolExecutor(4) as pool:
            ends = [lambda: openai.uploads.complete(upload.id, part_ids=[part.id])] * 2
            ends += [lambda: openai.uploads.cancel(upload.id)] * 2
            told = [one for one in pool.map(ended, ends) if one != "refused"]
        assert len(told) == 1
        if told == ["completed"]:
            assert openai.files.content(upload.id.replace("upload_", "file-")).read() == b"abcd"
            openai.files.delete(upload.id.replace("upload_", "file-"))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(race, range(30)))


def test_a_file_that_is_deleted_while_it_is_used(server):
    """It is read to its end, or not there; a batch of it is made, or not."""
    text = b'{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "tiny", "input": "a"}}\n'

    def race(number):
        data = text + b" " * number
        body = form(("purpose", "batch"), ("file", "a.jsonl", data))
        id_ = server.request("POST", "/v1/files", body, headers=FORM).json["id"]
        batch = {"input_file_id": id_, "endpoint": "/v1/embeddings", "completion_window": "24h"}
        with ThreadPoolExecutor(6) as pool:
            reads = [pool.submit(server.get, f"/v1/files/{id_}/content") for _ in range(3)]
            made = pool.submit(server.post, "/v1/batches", batch)
            deleted = pool.submit(server.request, "DELETE", f"/v1/files/{id_}")
            reads.append(pool.submit(server.get, f"/v1/files/{id_}/content"))
        assert deleted.result().status == 200
        assert made.result().status in {200, 404}
        for read in reads:
            assert read.result().status == 404 or read.result().body == data

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(race, range(60)))

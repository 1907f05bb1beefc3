"""Batches, made and waited for."""

from __future__ import annotations

import io
import json
from typing import Any

from openai import OpenAI
from openai.types import Batch

from fakes.waiting import until

ENDS = ("completed", "failed", "cancelled", "expired")


def line(custom_id: str, url: str = "/v1/chat/completions", **body: Any) -> dict[str, Any]:
    """A line that asks `tiny` to say something."""
    said = {"messages": [{"role": "user", "content": "Hi"}]} if url == "/v1/chat/completions" else {}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "tiny", **said, **body}}


def text_of(lines: list[Any]) -> bytes:
    return b"".join(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in lines)


def submit(openai: OpenAI, lines: list[Any], **fields: Any) -> Batch:
    file = openai.files.create(file=("in.jsonl", io.BytesIO(text_of(lines))), purpose="batch")
    known: dict[str, Any] = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "input_file_id": file.id}
    return openai.batches.create(**(known | fields))


def ended(openai: OpenAI, batch: Batch) -> Batch:
    """The batch, once it has ended."""
    until(lambda: openai.batches.retrieve(batch.id).status in ENDS, 150, "the end of a batch")
    return openai.batches.retrieve(batch.id)


def rows(openai: OpenAI, file_id: str | None) -> dict[str, Any]:
    """The lines of an output or error file, by their custom_id; each is there once."""
    if file_id is None:
        return {}
    found = [json.loads(text) for text in openai.files.content(file_id).text.splitlines()]
    by_id = {row["custom_id"]: row for row in found}
    assert len(by_id) == len(found)
    return by_id

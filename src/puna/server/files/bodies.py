"""The contract of each endpoint for files, uploads and batches. Data only."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from puna.server.contract.forms import FormInteger
from puna.server.contract.shapes import Honoured, Shape

FilePurpose: TypeAlias = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]

BatchEndpoint: TypeAlias = Literal[
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/decisions",
    "/v1/rerank",
    "/v1/score",
]

_LEAST, _MOST = 3600, 30 * 24 * 3600

_PURPOSE = Honoured(
    "What it is for. `batch`: it can be the input of a batch, and goes after 30 days, if not said else."
)
_EXPIRES = Honoured("When it goes. Without it, it stays until it is deleted.")
_ANCHOR = Honoured("The only one there is.")
_SECONDS = Honoured("After that, in seconds.")
_Filename = Annotated[str, Field(min_length=1, max_length=1024)]


class ExpiresAfter(Shape):
    anchor: Annotated[Literal["created_at"], _ANCHOR]
    seconds: Annotated[int, Field(ge=_LEAST, le=_MOST), _SECONDS]


class FormExpiresAfter(Shape):
    anchor: Annotated[Literal["created_at"], _ANCHOR]
    seconds: Annotated[FormInteger, Field(ge=_LEAST, le=_MOST), _SECONDS]


class FileForm(Shape):
    """POST /v1/files"""

    purpose: Annotated[FilePurpose, _PURPOSE]
    expires_after: Annotated[FormExpiresAfter | None, _EXPIRES] = None


class PartForm(Shape):
    """POST /v1/uploads/{upload_id}/parts"""


class UploadBody(Shape):
    """POST /v1/uploads"""

    bytes: Annotated[int, Field(ge=1), Honoured("How many the file has: `complete` checks it.")]
    filename: Annotated[_Filename, Honoured("The file's name.")]
    mime_type: Annotated[str, Field(max_length=255), Honoured("Tells how the file's text is read.")]
    purpose: Annotated[FilePurpose, _PURPOSE]
    expires_after: Annotated[ExpiresAfter | None, _EXPIRES] = None


class CompleteBody(Shape):
    """POST /v1/uploads/{upload_id}/complete"""

    part_ids: Annotated[
        list[str],
        Field(min_length=1, max_length=10_000),
        Honoured("The parts that the file is made of, in this order."),
    ]
    md5: Annotated[str | None, Honoured("Of the whole file, in hexadecimal digits; checked.")] = None


class BatchBody(Shape):
    """POST /v1/batches"""

    input_file_id: Annotated[str, Honoured("A file of purpose `batch`: a request a line, one model for all.")]
    endpoint: Annotated[BatchEndpoint, Honoured("Which route answers the lines.")]
    completion_window: Annotated[Literal["24h"], Honoured("What is not answered by then expires.")]
    metadata: Annotated[
        dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None,
        Field(max_length=16),
        Honoured("Kept with the batch."),
    ] = None
    output_expires_after: Annotated[
        ExpiresAfter | None, Honoured("When the output and the error file go, counted from when they are made.")
    ] = None


BODIES: tuple[type[Shape], ...] = (FileForm, UploadBody, PartForm, CompleteBody, BatchBody)

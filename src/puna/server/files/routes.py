"""Paths of files, uploads and batches."""

from __future__ import annotations

from starlette.routing import Route

from puna.server.batch.work import BatchWork
from puna.server.files.batches import Batches
from puna.server.files.files import Files
from puna.server.files.uploads import Uploads
from puna.server.routing import dialect_route
from puna.server.services import Services


def routes(services: Services, work: BatchWork) -> list[Route]:
    files, uploads, batches = Files(services), Uploads(services), Batches(services, work)
    return [
        dialect_route("/v1/files", {"GET": files.list, "POST": files.create}),
        dialect_route("/v1/files/{id}", {"GET": files.retrieve, "DELETE": files.delete}),
        dialect_route("/v1/files/{id}/content", {"GET": files.content}),
        dialect_route("/v1/uploads", {"POST": uploads.create}),
        dialect_route("/v1/uploads/{id}/parts", {"POST": uploads.add_part}),
        dialect_route("/v1/uploads/{id}/complete", {"POST": uploads.complete}),
        dialect_route("/v1/uploads/{id}/cancel", {"POST": uploads.cancel}),
        dialect_route("/v1/batches", {"GET": batches.list, "POST": batches.create}),
        dialect_route("/v1/batches/{id}", {"GET": batches.retrieve}),
        dialect_route("/v1/batches/{id}/cancel", {"POST": batches.cancel}),
    ]

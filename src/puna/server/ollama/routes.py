"""The routes of Ollama's native API, all of them."""

from __future__ import annotations

from starlette.routing import Route

from puna.server.ollama.routes_inference import InferenceRoutes
from puna.server.ollama.routes_models import ModelRoutes
from puna.server.ollama.routes_renewal import RenewalRoutes
from puna.server.ollama.routes_transfer import TransferRoutes
from puna.server.services import Services


def routes(services: Services) -> list[Route]:
    inference, models = InferenceRoutes(services), ModelRoutes(services)
    transfer, renewal = TransferRoutes(services), RenewalRoutes(services)
    return [
        Route("/api/version", models.version, methods=["GET"]),
        Route("/api/status", models.status, methods=["GET"]),
        Route("/api/tags", models.tags, methods=["GET"]),
        Route("/api/ps", models.ps, methods=["GET"]),
        Route("/api/show", models.show, methods=["POST"]),
        Route("/api/unload", models.unload, methods=["POST"]),
        Route("/api/estimate", models.estimate, methods=["POST"]),
        Route("/api/copy", models.copy, methods=["POST"]),
        Route("/api/delete", models.delete, methods=["DELETE"]),
        Route("/api/generate", inference.generate, methods=["POST"]),
        Route("/api/chat", inference.chat, methods=["POST"]),
        Route("/api/embed", inference.embed, methods=["POST"]),
        Route("/api/embeddings", inference.embeddings, methods=["POST"]),
        Route("/api/pull", transfer.pull, methods=["POST"]),
        Route("/api/push", transfer.push, methods=["POST"]),
        Route("/api/outdated", renewal.outdated, methods=["POST"]),
        Route("/api/offer", renewal.offer, methods=["POST"]),
        Route("/api/search", renewal.search, methods=["POST"]),
        Route("/api/verify", transfer.verify, methods=["POST"]),
        Route("/api/create", transfer.create, methods=["POST"]),
        Route("/api/blobs/{digest}", transfer.has_blob, methods=["HEAD"]),
        Route("/api/blobs/{digest}", transfer.add_blob, methods=["POST"]),
    ]

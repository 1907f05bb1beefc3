"""What OpenAI serves and this server has nothing for: one table, for the refusals and for the reference. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from puna.errors import NotFound


@dataclass(frozen=True, slots=True)
class Absent:
    """Everything at `path` and below. `missing`: what it would take, or what to ask instead."""

    path: str
    missing: str


ABSENT = (
    Absent("/v1/moderations", "it takes a model that sorts texts by OpenAI's categories, and no engine here runs one"),
    Absent("/v1/images", "no engine here makes images; models with a projector read them in chats"),
    Absent("/v1/videos", "no engine here makes videos"),
    Absent("/v1/audio/speech", "no engine here speaks"),
    Absent("/v1/audio/voices", "no engine here speaks"),
    Absent("/v1/audio/voice_consents", "no engine here speaks"),
    Absent("/v1/realtime", "no engine here speaks or listens while it does; chats and responses stream text"),
    Absent("/v1/live", "no engine here speaks or listens while it does; chats and responses stream text"),
    Absent("/v1/fine_tuning", "nothing here trains; `puna create` makes models of a base, an adapter and settings"),
    Absent("/v1/assistants", "OpenAI has given them up; /v1/responses and /v1/conversations took their place"),
    Absent("/v1/threads", "OpenAI has given them up; /v1/responses and /v1/conversations took their place"),
    Absent("/v1/vector_stores", "there is no index to search; /v1/embeddings and /v1/rerank are its parts"),
    Absent("/v1/containers", "programs of models are not run here"),
    Absent("/v1/skills", "programs of models are not run here"),
    Absent("/v1/agents", "programs of models are not run here"),
    Absent("/v1/vaults", "programs of models are not run here"),
    Absent("/v1/evals", "nothing here grades answers"),
    Absent("/v1/graders", "nothing here grades answers"),
    Absent("/v1/chatkit", "it is a service of OpenAI's for web pages"),
    Absent("/v1/organization", "there are no organisations here; a key is a setting of the server"),
    Absent("/v1/projects", "there are no projects here: each key has its own objects"),
    Absent("/v1/safety", "nothing here watches what is said"),
    Absent("/v1/webhook_endpoints", "this server calls nobody"),
    Absent("/v1/webhook_event_types", "this server calls nobody"),
    Absent("/v1/content_provenance_checks", "nothing here knows where a content came from"),
    Absent("/v1/edits", "OpenAI has given it up; ask a chat"),
    Absent("/v1/engines", "OpenAI has given them up; /v1/models took their place"),
)


def refusal(method: str, path: str) -> NotFound | None:
    """The error for a request to an endpoint of OpenAI's that is not here; None: it is none of theirs."""
    found = next((one for one in ABSENT if path == one.path or path.startswith(f"{one.path}/")), None)
    if found is None:
        return None
    return NotFound(f"This server does not offer {method} {path}: {found.missing}.", code="endpoint_not_offered")


def absent_table() -> str:
    """The table as Markdown."""
    lines = ["| not offered | because |", "|---|---|", *(f"| `{one.path}` | {one.missing} |" for one in ABSENT)]
    return "\n".join(lines) + "\n"

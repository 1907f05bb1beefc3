"""What a dialect makes of a checked body."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from puna.server.contract.names import FieldNames
from puna.types import ChatRequest, CompletionRequest, DecisionRequest, EmbedRequest, RankRequest

Request_co = TypeVar(
    "Request_co", bound=ChatRequest | CompletionRequest | DecisionRequest | EmbedRequest | RankRequest, covariant=True
)


@dataclass(frozen=True, slots=True)
class Converted(Generic[Request_co]):
    """The house's request; the paths of fields that have no effect on it; what it calls the house's fields.

    `nonstandard`: the paths of what the dialect's own server refuses and Puna serves.
    """

    request: Request_co
    ignored: tuple[str, ...] = ()
    names: FieldNames = field(default_factory=FieldNames)
    nonstandard: tuple[str, ...] = ()

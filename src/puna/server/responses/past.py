"""What came before a request: stored responses, a conversation, items that are referred to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

from puna.errors import InvalidRequest, NotFound
from puna.lane import in_lane
from puna.server.contract.shapes import Honoured, Shape
from puna.server.responses.bodies import Asking, Continuing
from puna.server.responses.ids import response_of
from puna.server.responses.items import Input, InputItem, ItemReference, MessageItem
from puna.server.responses.objects import UNDER_WAY, conversation_id
from puna.server.responses.turns import Placed
from puna.state.records import Query, Record
from puna.state.state import State
from puna.types import JsonObject

MANY = 100
"""Stored items over which they are read beside the loop."""

_STRETCH = 1000
"""Items after which others have their turn."""


class _Kept(Shape):
    """Items as they were stored."""

    items: Annotated[list[InputItem], Honoured("The items.")]


def response_input(record: Record) -> list[JsonObject]:
    """The items that a stored response was asked with."""
    return cast("list[JsonObject]", record.body["input"])


def response_output(record: Record) -> list[JsonObject]:
    """The items that it answered with."""
    return cast("list[JsonObject]", cast("JsonObject", record.body["response"])["output"])


def response_status(record: Record) -> str:
    return str(cast("JsonObject", record.body["response"])["status"])


@dataclass(frozen=True, slots=True)
class Recent:
    """The last response of a connection, which goes on from it without having it stored: all items up to its end."""

    id: str
    items: tuple[Placed, ...]


async def items_before(state: State, body: Continuing, owner: str, recent: Recent | None = None) -> list[Placed]:
    """All items that this request goes on from, the oldest first.

    InvalidRequest for a response that is not there, or not whole; NotFound for a conversation.
    """
    if recent is not None and body.previous_response_id == recent.id:
        return list(recent.items)
    if body.previous_response_id is not None:
        chain = await _chain(state, body.previous_response_id, owner)
        stored = [item for record in chain for item in (*response_input(record), *response_output(record))]
        return await placed_items(stored, "previous_response_id")
    conversation = conversation_id(body.conversation) if isinstance(body, Asking) else None
    if conversation is None:
        return []
    await expect_conversation(state, conversation, owner, "conversation")
    return await placed_items(
        [one.body for one in await conversation_items(state, conversation, owner)], "conversation"
    )


async def expect_conversation(state: State, id: str, owner: str, param: str | None = None) -> Record:
    """The conversation. NotFound when it is not there, or another's. `param`: the field that names it, if one does."""
    record = await state.get("conversation", id, owner)
    if record is None:
        raise NotFound(f"Conversation with id '{id[:200]}' not found.", param=param)
    return record


async def conversation_items(state: State, id: str, owner: str) -> tuple[Record, ...]:
    """All of them, the oldest first."""
    return (await state.page("item", owner, Query(parent=id, limit=None, newest_first=False))).records


async def _chain(state: State, id: str, owner: str) -> tuple[Record, ...]:
    chain = await state.chain("response", id, owner)
    if not chain or chain[0].previous:
        missing = chain[0].previous if chain else id
        raise InvalidRequest(
            f"Previous response with id '{missing[:200]}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    if response_status(chain[-1]) in UNDER_WAY:
        raise InvalidRequest(
            f"The response '{id[:200]}' is still under way: go on from it when it is complete.",
            param="previous_response_id",
        )
    return chain


async def placed_items(stored: Sequence[JsonObject], path: str) -> list[Placed]:
    """Stored items, read again. `path`: what the request calls them."""

    def place() -> list[Placed]:
        return [Placed(item, path) for item in _Kept.model_validate({"items": stored}).items]

    return await in_lane(place) if len(stored) > MANY else place()


async def with_input(state: State, given: Input | None, before: Iterable[Placed], owner: str) -> list[Placed]:
    """The items before, and those of the input with its references resolved. NotFound for one that leads nowhere."""
    items = list(before)
    if given is None:
        return items
    if isinstance(given, str):
        return [*items, Placed(MessageItem(role="user", content=given), "input")]
    known = {placed.item.id: placed.item for placed in items if placed.item.id is not None}
    for index, item in enumerate(given):
        path = f"input[{index}]"
        if index % _STRETCH == _STRETCH - 1:
            await asyncio.sleep(0)
        if isinstance(item, ItemReference):
            found = known.get(item.id) or await _referred(state, item.id, owner)
            if found is None:
                raise NotFound(f"Item with id '{item.id}' not found.", param=f"{path}.id")
            items.append(Placed(found, path))
        else:
            items.append(Placed(item, path))
            if item.id is not None:
                known[item.id] = item
    return items


async def _referred(state: State, id: str, owner: str) -> InputItem | None:
    """An item of a conversation, or of a stored response, which its id names."""
    record = await state.get("item", id, owner)
    if record is not None:
        return _Kept.model_validate({"items": [record.body]}).items[0]
    response = response_of(id)
    held = None if response is None else await state.get("response", response, owner)
    if held is None:
        return None
    stored = next((item for item in (*response_input(held), *response_output(held)) if item["id"] == id), None)
    return None if stored is None else _Kept.model_validate({"items": [stored]}).items[0]

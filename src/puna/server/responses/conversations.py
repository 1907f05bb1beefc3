"""Routes of conversations and their items."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from puna.errors import NotFound
from puna.server.body import JsonReply
from puna.server.contract.reading import ShapeType, read_request
from puna.server.contract.report import Report
from puna.server.openai.paging import page_json, read_query
from puna.server.openai.wording import WORDING
from puna.server.owner import owner_of
from puna.server.responses.bodies import ConversationBody, ConversationItemsBody, ConversationUpdateBody
from puna.server.responses.holds import Holds
from puna.server.responses.ids import ResponseIds
from puna.server.responses.include import NAMES, included
from puna.server.responses.items import InputItem
from puna.server.responses.objects import listed_item, with_included
from puna.server.responses.past import expect_conversation, with_input
from puna.server.routing import dialect_route
from puna.server.services import Services
from puna.state.records import Delete, Page, Put, Query, Record
from puna.state.state import change
from puna.types import JsonObject


def conversation_routes(services: Services, holds: Holds) -> list[Route]:
    api = _Conversations(services, holds)
    return [
        dialect_route("/v1/conversations", {"POST": api.create}),
        dialect_route("/v1/conversations/{id}", {"GET": api.retrieve, "POST": api.update, "DELETE": api.delete}),
        dialect_route("/v1/conversations/{id}/items", {"GET": api.items, "POST": api.add}),
        dialect_route("/v1/conversations/{id}/items/{item}", {"GET": api.item, "DELETE": api.remove}),
    ]


class _Conversations:
    def __init__(self, services: Services, holds: Holds) -> None:
        self._holds = holds
        self._strict = services.settings.strict
        self._state = services.state

    async def create(self, request: Request) -> Response:
        body, _ = await self._read(request, ConversationBody)
        ids = ResponseIds()
        record = Record(
            kind="conversation",
            id=ids.whole("conv"),
            owner=owner_of(request),
            body={"metadata": cast("JsonObject", body.metadata or {})},
            created=time.time(),
        )
        items = await self._listed(body.items or [], record.owner, ids)
        await self._state.apply(Put(record, new=True), *_added(items, record))
        return JsonReply(conversation_json(record))

    async def retrieve(self, request: Request) -> Response:
        return JsonReply(conversation_json(await self._conversation(request)))

    async def update(self, request: Request) -> Response:
        body, _ = await self._read(request, ConversationUpdateBody)
        said: JsonObject = {"metadata": {**(body.metadata or {})}}
        changed = await change(
            self._state, lambda: self._conversation(request), lambda record: replace(record, body=said)
        )
        return JsonReply(conversation_json(changed))

    async def delete(self, request: Request) -> Response:
        record = await self._conversation(request)
        await self._state.apply(Delete("conversation", record.id, record.owner))
        return JsonReply({"id": record.id, "object": "conversation.deleted", "deleted": True})

    # ------------------------------------------------------------------------------------------------------- items

    async def items(self, request: Request) -> Response:
        record = await self._conversation(request)
        query, include = read_query(request, others=NAMES), included(request)
        page = await self._state.page("item", record.owner, _of(query, record.id))
        return JsonReply(page_json(page, lambda item: _shown(item, include)))

    async def add(self, request: Request) -> Response:
        body, _ = await self._read(request, ConversationItemsBody)
        record = await self._conversation(request)
        await self._holds.expect_free(record.id, record.owner)
        include = included(request)
        puts = _added(await self._listed(body.items, record.owner, ResponseIds()), record)
        await self._state.apply(*puts)
        page = Page(tuple(put.record for put in puts), False)
        return JsonReply(page_json(page, lambda item: _shown(item, include)))

    async def item(self, request: Request) -> Response:
        _, item = await self._item(request)
        include = included(request)
        Report(request.state, [name for name in request.query_params if name not in NAMES])
        return JsonReply(_shown(item, include))

    async def remove(self, request: Request) -> Response:
        record, item = await self._item(request)
        await self._holds.expect_free(record.id, record.owner)
        await self._state.apply(Delete("item", item.id, item.owner))
        return JsonReply(conversation_json(record))

    # ------------------------------------------------------------------------------------------------------ shared

    async def _read(self, request: Request, shape: type[ShapeType]) -> tuple[ShapeType, Report]:
        return await read_request(request, shape, WORDING, strict=self._strict, known=NAMES)

    async def _conversation(self, request: Request) -> Record:
        return await expect_conversation(self._state, request.path_params["id"], owner_of(request))

    async def _item(self, request: Request) -> tuple[Record, Record]:
        record = await self._conversation(request)
        id_: str = request.path_params["item"]
        item = await self._state.get("item", id_, record.owner)
        if item is None or item.parent != record.id:
            raise NotFound(f"Item with id '{id_[:200]}' not found in conversation '{record.id}'.")
        return record, item

    async def _listed(self, items: list[InputItem], owner: str, ids: ResponseIds) -> list[JsonObject]:
        """As they are stored: references are copies of what they mean."""
        placed = await with_input(self._state, items, [], owner)
        return [listed_item(one.item, ids, renamed=True) for one in placed]


def conversation_json(record: Record) -> JsonObject:
    """OpenAI's object."""
    return {
        "id": record.id,
        "object": "conversation",
        "created_at": int(record.created),
        "metadata": record.body["metadata"],
    }


def _shown(item: Record, include: Iterable[str]) -> JsonObject:
    return cast("JsonObject", with_included([item.body], frozenset(include))[0])


def _of(query: Query, conversation: str) -> Query:
    return Query(
        parent=conversation,
        after=query.after,
        before=query.before,
        limit=query.limit,
        newest_first=query.newest_first,
    )


def _added(items: list[JsonObject], conversation: Record) -> list[Put]:
    now = time.time()
    return [
        Put(
            Record(
                kind="item",
                id=str(item["id"]),
                owner=conversation.owner,
                body=item,
                created=now,
                parent=conversation.id,
            )
        )
        for item in items
    ]

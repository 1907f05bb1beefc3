"""Chats that were asked to be stored (`store: true`): kept when they are done, listed, found, renamed and removed."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response

from puna.errors import InvalidRequest, NotFound
from puna.server.body import JsonReply
from puna.server.contract.reading import read_request
from puna.server.openai.bodies import ChatCompletionBody, StoredChatBody
from puna.server.openai.chat import Gathered
from puna.server.openai.messages import ConversationMessage
from puna.server.openai.paging import page_json, read_query
from puna.server.openai.wording import WORDING
from puna.server.owner import owner_of
from puna.server.services import Services
from puna.state.records import Delete, Page, Put, Record
from puna.state.state import State, change
from puna.types import Answer, Done, Event, JsonObject, JsonValue

MAX_PAIRS = 16
"""As many as an object's metadata may have."""

_METADATA = re.compile(r"metadata\[((?:(?!\]\[).)*)\]", re.DOTALL)
"""A key may have brackets of its own; two that meet are of a pair within a pair, which there is not."""
_SHOWN = ("tool_choice", "seed", "top_p", "temperature", "presence_penalty", "frequency_penalty", "tools")
"""Fields of a request that a stored chat shows."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """A chat that is to be stored."""

    state: State
    owner: str
    body: ChatCompletionBody
    request_id: str

    @classmethod
    async def of(cls, state: State, request: Request, body: ChatCompletionBody) -> Keeping | None:
        """None: it is not asked for, or nothing is kept here. StateError when there is no room for it."""
        if not body.store or not state.kept:
            return None
        await state.check_room(owner_of(request))
        return cls(state, owner_of(request), body, request.state.request_id)

    async def put(self, completion: JsonObject) -> JsonObject:
        """Keep a whole answer; what is shown of it from now on."""
        metadata: JsonObject = {**(self.body.metadata or {})}
        shown = {**completion, "metadata": metadata}
        record = Record(
            kind="chat",
            id=str(completion["id"]),
            owner=self.owner,
            body={
                "model": self.body.model,
                "metadata": metadata,
                "completion": {**self._asked(), **shown},
                "messages": _messages(self.body.messages, str(completion["id"])),
            },
            created=time.time(),
        )
        await self.state.apply(Put(record, new=True))
        return shown

    def _asked(self) -> JsonObject:
        said = self.body.model_dump(mode="json", exclude_unset=True)
        return {
            "request_id": self.request_id,
            **{name: said.get(name) for name in _SHOWN},
            "response_format": said.get("response_format"),
            "input_user": said.get("user"),
            "service_tier": "default",
        }

    @asynccontextmanager
    async def streamed(self, answer: Answer, gathered: Gathered) -> AsyncIterator[AsyncIterator[Event]]:
        """The events of `answer`, which is kept before its last one is told."""
        async with answer as events, aclosing(self._kept(events, gathered)) as kept:
            yield kept

    async def _kept(self, events: AsyncIterator[Event], gathered: Gathered) -> AsyncGenerator[Event]:
        async for event in events:
            gathered.take(event)
            if isinstance(event, Done):
                await self.put(gathered.json())
            yield event


def unkept(body: ChatCompletionBody, keeping: Keeping | None) -> list[str]:
    """Fields of storing without effect."""
    if keeping is not None:
        return []
    return [name for name, said in (("store", body.store), ("metadata", body.metadata)) if said]


def _messages(conversation: list[ConversationMessage], id_: str) -> list[JsonValue]:
    """As they are shown: of content in parts, the parts stand apart."""
    shown: list[JsonValue] = []
    for at, message in enumerate(conversation):
        said: JsonObject = message.model_dump(mode="json", exclude_unset=True)
        content = said.get("content")
        parts = content if isinstance(content, list) else None
        shown.append(
            {
                "name": None,
                **said,
                "id": f"{id_}-{at}",
                "content": None if parts is not None else content,
                "content_parts": parts,
            }
        )
    return shown


class StoredChats:
    """The routes."""

    def __init__(self, services: Services) -> None:
        self._state = services.state
        self._strict = services.settings.strict

    async def list(self, request: Request) -> Response:
        """The oldest first, unless the other order is asked for."""
        pairs = {
            match[1]: value for name, value in request.query_params.items() if (match := _METADATA.fullmatch(name))
        }
        if len(pairs) > MAX_PAIRS:
            raise InvalidRequest(f"'metadata': a chat has at most {MAX_PAIRS} pairs to be found by.", param="metadata")
        others = [*(f"metadata[{key}]" for key in pairs), "model"]
        query = read_query(request, others=others)
        model = request.query_params.get("model")
        query = replace(
            query,
            newest_first=request.query_params.get("order") == "desc",
            where=pairs,
            having={} if model is None else {"model": model},
        )
        page = await self._state.page("chat", owner_of(request), query)
        return JsonReply(page_json(page, _completion))

    async def get(self, request: Request) -> Response:
        return JsonReply(_completion(await self._record(request)))

    async def update(self, request: Request) -> Response:
        """Only its metadata."""
        body, _ = await read_request(request, StoredChatBody, WORDING, strict=self._strict)
        metadata: JsonObject = {**(body.metadata or {})}

        def changed(record: Record) -> Record:
            completion = {**_completion(record), "metadata": metadata}
            return replace(record, body={**record.body, "metadata": metadata, "completion": completion})

        return JsonReply(_completion(await change(self._state, lambda: self._record(request), changed)))

    async def delete(self, request: Request) -> Response:
        record = await self._record(request)
        await self._state.apply(Delete("chat", record.id, record.owner))
        return JsonReply({"object": "chat.completion.deleted", "id": record.id, "deleted": True})

    async def messages(self, request: Request) -> Response:
        """Those of the request, the first first."""
        query = read_query(request)
        record = await self._record(request)
        messages = record.body["messages"]
        assert isinstance(messages, list)
        parts = [
            replace(record, id=str(message["id"]), body=message) for message in messages if isinstance(message, dict)
        ]
        if request.query_params.get("order") == "desc":
            parts.reverse()
        found = _between(parts, query.after, query.before)
        limit = query.limit or len(found)
        # The page before a message is the last one before it.
        backwards = query.before is not None and query.after is None
        page = found[-limit:] if backwards else found[:limit]
        return JsonReply(page_json(Page(tuple(page), len(found) > len(page)), lambda part: part.body))

    async def _record(self, request: Request) -> Record:
        id_: str = request.path_params["id"]
        record = await self._state.get("chat", id_, owner_of(request))
        if record is None:
            raise NotFound(f"There is no stored chat completion with the id '{id_[:100]}'.", param="completion_id")
        return record


def _between(parts: list[Record], after: str | None, before: str | None) -> list[Record]:
    begin = 0 if after is None else _place(parts, "after", after) + 1
    end = len(parts) if before is None else _place(parts, "before", before)
    return parts[begin:end]


def _place(parts: list[Record], param: str, id_: str) -> int:
    for place, part in enumerate(parts):
        if part.id == id_:
            return place
    raise NotFound(f"'{param}': there is no message with the id '{id_[:100]}'.", param=param)


def _completion(record: Record) -> JsonObject:
    completion = record.body["completion"]
    assert isinstance(completion, dict)
    return completion

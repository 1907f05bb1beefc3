"""A checked request becomes a response that is about to begin: everything it needs is found, fetched and converted."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial

import structlog
from starlette.requests import Request

from puna.errors import StateError, Unsupported
from puna.lane import in_lane
from puna.model.reference import Reference
from puna.server.body import beside, keep
from puna.server.contract.converted import Converted
from puna.server.contract.report import Report
from puna.server.kept_files import KeptText, file_bytes, file_text
from puna.server.media import MAX_IMAGE, check_image
from puna.server.openai.remote import remote_media, remote_texts
from puna.server.owner import owner_of
from puna.server.responses.bodies import CompactBody, InputTokensBody, ResponseBody
from puna.server.responses.convert import check_body, check_past, to_response_chat
from puna.server.responses.holds import Hold, Holds
from puna.server.responses.ids import ResponseIds
from puna.server.responses.objects import ENCRYPTED, conversation_id, draft, listed_input
from puna.server.responses.past import MANY, Recent, items_before, with_input
from puna.server.responses.pieces import Brought
from puna.server.responses.renewal import Left
from puna.server.responses.telling import Manner, Telling
from puna.server.responses.tools import namespaces
from puna.server.responses.turns import Placed, files_of, remote_images_of, take_time
from puna.server.responses.work import UNKEPT, Memory, ResponseWork
from puna.server.services import Services
from puna.types import DEFAULT_OPTIONS, Answer, ChatRequest, Done, Event, Options, Started

_log = structlog.get_logger(__name__)


class ResponseMaker:
    """Makes responses of requests, however these come."""

    def __init__(self, services: Services, holds: Holds) -> None:
        self._services = services
        self._holds = holds
        self._state = services.state

    async def work(
        self,
        request: Request,
        body: ResponseBody,
        report: Report,
        recent: Recent | None = None,
        *,
        generate: bool = True,
        left: Left | None = None,
    ) -> ResponseWork:
        """The response to a request, about to begin. `recent`: what the connection remembers. Raises what is wrong.

        `generate` false: the model is loaded and the prompt read, so that it is in the cache; the answer is empty.
        `left`: what it is to be made anew of.
        """
        check_body(body)
        for name in ("store", "background"):
            if getattr(body, name) and not self._state.kept:
                raise Unsupported(f"'{name}': this server keeps nothing (PUNA_STATE=off).", param=name)
        conversation = conversation_id(body.conversation)
        hold = None if conversation is None else await self._holds.take(conversation, owner_of(request))
        try:
            return await self._begun(request, body, report, recent, hold, left, generate=generate)
        except BaseException:
            if hold is not None:
                await hold.release()
            raise

    async def _begun(
        self,
        request: Request,
        body: ResponseBody,
        report: Report,
        recent: Recent | None,
        hold: Hold | None,
        left: Left | None,
        *,
        generate: bool,
    ) -> ResponseWork:
        wanted = await self.wanted(request, body, report, partial(to_response_chat, body), recent)
        ids, created = ResponseIds(), time.time()
        if left is not None:
            ids, created = ResponseIds(left.record.id.removeprefix("resp_")), left.record.created
        options = await self._effective(wanted)
        seed = _seed(options, left)
        stored = await self._stored(request, body, hold)
        said = await beside(request, lambda: draft(body, ids, int(created), options, stored=stored))
        memory = Memory(
            state=self._state,
            owner=owner_of(request),
            created=created,
            input=await beside(request, lambda: listed_input(body.input, ids)),
            previous=body.previous_response_id or "",
            response=stored,
            hold=hold,
            asked=bool(body.store or body.background or hold is not None),
        )
        if body.background:
            wanted = replace(wanted, options=replace(wanted.options, seed=seed))
        if not generate:
            wanted = replace(wanted, options=replace(wanted.options, num_predict=1))
        answer = self._services.thoughts.chat(self._services.inference, request, wanted)
        if not generate:
            answer = _silent(answer)
        return ResponseWork(Telling(said, ids, _manner(body)), ids, answer, report, memory, seed)

    async def _stored(self, request: Request, body: ResponseBody, hold: Hold | None) -> bool:
        """Whether the response is to be kept. StateError where it cannot be, and what was asked for needs it."""
        stored = self._state.kept if body.store is None else body.store
        if not stored and hold is None:
            return False
        try:
            await self._state.check_room(owner_of(request))
        except StateError as error:
            if body.store or body.background or hold is not None:
                raise
            _log.warning(UNKEPT, reason=error.message)
            return False
        return stored

    async def wanted(
        self,
        request: Request,
        body: ResponseBody | InputTokensBody | CompactBody,
        report: Report,
        convert: Callable[[Sequence[Placed], Brought], Converted[ChatRequest]],
        recent: Recent | None = None,
    ) -> ChatRequest:
        """What is asked of the model, with all that came before."""
        check_past(body)
        owner = owner_of(request)
        items = await with_input(self._state, body.input, await items_before(self._state, body, owner, recent), owner)
        keep(request, items)
        brought = await self._brought(request, body.model, items)
        slow = len(items) > MANY or await beside(request, lambda: take_time(items))
        return report.take(await beside(request, lambda: convert(items, brought), slow=slow))

    async def _brought(self, request: Request, model: str, items: Sequence[Placed]) -> Brought:
        """What is to be got from elsewhere."""
        remote, named = await beside(request, lambda: (remote_images_of(items), files_of(items)))
        images, texts = await remote_media(self._services, model, remote), dict[str, KeptText]()
        owner = owner_of(request)
        for file in named:
            match file.kind:
                case "image":
                    _, data = await file_bytes(self._state, owner, file.name, file.path, most=MAX_IMAGE)
                    images[file.name] = await in_lane(partial(check_image, data, file.path))
                case "file":
                    texts[file.name] = await file_text(self._state, owner, file.name, file.path)
        texts |= await remote_texts(self._services, [(file.path, file.name) for file in named if file.kind == "url"])
        return Brought(images, texts)

    async def _effective(self, wanted: ChatRequest) -> Options:
        """The options that count: the request's, over the model's, over the server's."""
        reference, library = Reference.parse(wanted.model), self._services.library
        model = library.known(reference)
        if model is None:
            model = await asyncio.to_thread(library.resolve, reference)
        return wanted.options.over(model.options).over(DEFAULT_OPTIONS)


def _seed(options: Options, left: Left | None) -> int:
    if left is not None:
        return left.renewal.seed
    return secrets.randbits(32) if options.seed is None or options.seed == -1 else options.seed


@asynccontextmanager
async def _silent(answer: Answer) -> AsyncIterator[AsyncIterator[Event]]:
    """The answer without what it says."""

    async def ends(events: AsyncIterator[Event]) -> AsyncGenerator[Event, None]:
        async for event in events:
            match event:
                case Started():
                    yield event
                case Done():
                    yield replace(event, usage=replace(event.usage, completion=0, reasoning=0))
                case _:
                    pass

    async with answer as events, aclosing(ends(events)) as kept:
        yield kept


def _manner(body: ResponseBody) -> Manner:
    include, reasoning = body.include or [], body.reasoning
    return Manner(
        summary=reasoning is not None and (reasoning.summary or reasoning.generate_summary) is not None,
        sealed=ENCRYPTED in include,
        logprobs="message.output_text.logprobs" in include or bool(body.top_logprobs),
        obfuscated=body.stream_options is not None and bool(body.stream_options.include_obfuscation),
        background=bool(body.background),
        namespaces=namespaces(body),
    )

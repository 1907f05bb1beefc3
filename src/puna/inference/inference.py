"""Inference: the one door to what a model does. Chat, complete, embed; load, unload; count.

An Answer may be left at any time: that ends the runner's work, then the Lease, once. Its events come straight from
where they are made: every generator between there and the reader would cost each token its way through it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from math import inf
from typing import Literal, Protocol

from puna.chat.calls import native_syntax
from puna.chat.disguise import Given
from puna.engine.runner import Runner
from puna.errors import InvalidRequest, ModelFileError
from puna.inference.caller import current_caller
from puna.inference.chat import ChatPlan, ChatRun, CountedPrompt, plan_chat
from puna.inference.completion import CompletionRun, check_completion
from puna.inference.decision import asked_chats, decisions
from puna.inference.embed import check_embed, embeddings
from puna.inference.length import is_long
from puna.inference.prompt import template_key
from puna.inference.rank import check_rank, ranking
from puna.inference.sampling import cut_context
from puna.inference.tally import note_answer, note_model
from puna.inference.thought import ThoughtWatch
from puna.lane import as_brought, in_lane, in_planning, on_trial
from puna.model.capabilities import Capability
from puna.model.model import Model
from puna.model.name import Name
from puna.model.reference import Reference, Wanted
from puna.settings import Settings
from puna.template.facts import ChatTemplate
from puna.template.languages import TemplateKey
from puna.types import (
    ChatRequest,
    CompletionRequest,
    DecisionRequest,
    Decisions,
    Embeddings,
    EmbedRequest,
    Event,
    JsonOutput,
    Options,
    Ranking,
    RankRequest,
    Started,
    Usage,
)

ToolSyntax = Literal["template", "puna"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that was loaded without a request to it.

    `load_ns`: how long that took. `ignored`, `ignored_parameters` as in Started.
    """

    load_ns: int
    ignored: tuple[str, ...] = ()
    ignored_parameters: tuple[str, ...] = ()


class Models(Protocol):
    """Where models are found: `puna.store.library.Library`."""

    def known(self, wanted: Wanted) -> Model | None: ...

    def resolve(self, wanted: Wanted) -> Model: ...


class Leased(Protocol):
    @property
    def runner(self) -> Runner: ...

    @property
    def load_ns(self) -> int: ...


class Runners(Protocol):
    """Where runners come from: `puna.scheduler.scheduler.Scheduler`."""

    def lease(
        self,
        model: Model,
        options: Options,
        *,
        keep_alive: float | None = None,
        embedding: bool = False,
        deadline: float = inf,
        request: str = "",
    ) -> AbstractAsyncContextManager[Leased]: ...

    async def unload(self, name: Name) -> bool: ...


class Templates(Protocol):
    """Where templates are compiled and run: `puna.template.cage.Cage`."""

    def known(self, key: TemplateKey) -> ChatTemplate | None:
        """What `open` gave before; no waiting."""
        ...

    def open(self, key: TemplateKey) -> ChatTemplate:
        """Compiled, and tried."""
        ...

    def read(self, key: TemplateKey) -> ChatTemplate:
        """Compiled only: for one that came with a request."""
        ...


def _load_checker() -> None:
    """What checks structured answers takes a tenth of a second to import, which is not the event loop's to spend."""
    import_module("jsonschema")


class Inference:
    """Holds no request's state; safe to use from many tasks. Every method raises PunaError."""

    def __init__(self, library: Models, scheduler: Runners, settings: Settings, templates: Templates) -> None:
        self._library = library
        self._scheduler = scheduler
        self._settings = settings
        self._templates = templates

    @asynccontextmanager
    async def chat(
        self, request: ChatRequest, watch: ThoughtWatch | None = None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Started, the deltas of `n` choices, Finished for each, Done. Errors come before Started where they can.

        `watch`: by which the answer's thoughts may be ended while it runs.
        """
        began = time.perf_counter_ns()
        model = await self._resolve(request.model)
        plan = await self._plan(model, request)
        async with self._lease(model, request.options, request.keep_alive) as lease:
            run = ChatRun(plan, lease.runner, watch)
            async with aclosing(await run.events(began, lease.load_ns)) as events:
                yield _told(events, self._without_effect(model, request.keep_alive))

    @asynccontextmanager
    async def complete(self, request: CompletionRequest) -> AsyncIterator[AsyncIterator[Event]]:
        """Started, the deltas of every prompt's choices, Finished for each, Done."""
        began = time.perf_counter_ns()
        model = await self._resolve(request.model)
        check_completion(model, request)
        template = await self._template(model, None, chat=False)
        async with self._lease(model, request.options, request.keep_alive) as lease:
            run = CompletionRun(model, template, request, lease.runner)
            async with aclosing(await run.events(began, lease.load_ns)) as events:
                yield _told(events, self._without_effect(model, request.keep_alive))

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """One vector an input, in order."""
        began = time.perf_counter_ns()
        model = await self._resolve(request.model)
        check_embed(model, request)
        async with self._lease(model, request.options, request.keep_alive, embedding=True) as lease:
            result = await embeddings(lease.runner, model, request, began, lease.load_ns)
        note_answer(Usage(prompt=result.prompt_tokens), result.timings)
        return replace(result, ignored=(*result.ignored, *self._without_effect(model, request.keep_alive)))

    async def decide(self, request: DecisionRequest) -> Decisions:
        """How likely each label of each question is."""
        began = time.perf_counter_ns()
        model = await self._resolve(request.model)
        plans = [await self._plan(model, asked) for asked in asked_chats(request)]
        async with self._lease(model, request.options, request.keep_alive) as lease:
            result = await decisions(lease.runner, plans, request, began, lease.load_ns)
        note_answer(result.usage, result.timings)
        return replace(result, ignored=(*result.ignored, *self._without_effect(model, request.keep_alive)))

    async def rank(self, request: RankRequest) -> Ranking:
        """How likely each document answers the query."""
        began = time.perf_counter_ns()
        model = await self._resolve(request.model)
        check_rank(model)
        async with self._lease(model, request.options, request.keep_alive, embedding=model.header.ranks) as lease:
            result = await ranking(lease.runner, model, request, began, lease.load_ns)
        note_answer(Usage(prompt=result.prompt_tokens), result.timings)
        return replace(result, ignored=(*result.ignored, *self._without_effect(model, request.keep_alive)))

    async def counted(self, request: ChatRequest) -> CountedPrompt:
        """The tokens of this request's prompt, whether it fits or not; no answer is generated."""
        model = await self._resolve(request.model)
        plan = await self._plan(model, request)
        async with self._lease(model, request.options, request.keep_alive) as lease:
            result = await ChatRun(plan, lease.runner).counted()
        return replace(result, ignored=(*result.ignored, *self._without_effect(model, request.keep_alive)))

    async def load(self, name: str, options: Options, keep_alive: float | None) -> LoadedModel:
        """Load a model, if it is not."""
        model = await self._resolve(name)
        async with self._lease(model, options, keep_alive) as lease:
            cut, cut_parameters = cut_context(options, model, lease.runner.info.num_ctx)
            cut = (*cut, *self._without_effect(model, keep_alive))
            return LoadedModel(lease.load_ns, cut, (*model.ignored_parameters, *cut_parameters))

    async def tool_syntax(self, model: Model) -> ToolSyntax | None:
        """Whose way of writing calls this model is asked to follow: its template's, or Puna's own. None: it calls none.

        Raises ModelFileError for a template that is none.
        """
        if Capability.TOOLS not in model.capabilities or model.unrendered is not None:
            return None
        facts = (await self._template(model, None)).facts
        return "template" if native_syntax(facts) is not None else "puna"

    async def unload(self, name: str) -> bool:
        """Whether it was loaded. Raises ModelNotFound."""
        model = await self._resolve(name)
        return await self._scheduler.unload(model.name)

    async def tokenize(self, name: str, text: str, *, special: bool = True, bos: bool = False) -> list[int]:
        """See `Runner.tokenize`. Loads the model."""
        model = await self._resolve(name)
        async with self._lease(model, Options(), None) as lease:
            return await lease.runner.tokenize(text, special=special, bos=bos)

    async def detokenize(self, name: str, ids: Sequence[int]) -> str:
        """Bytes that are no text become U+FFFD. Loads the model."""
        model = await self._resolve(name)
        async with self._lease(model, Options(), None) as lease:
            return (await lease.runner.detokenize(ids)).decode(errors="replace")

    async def _resolve(self, name: str) -> Model:
        """In a thread when a manifest and a header have to be read: going there costs more than to see that not."""
        parsed = Reference.parse(name)
        known = self._library.known(parsed)
        model = known if known is not None else await asyncio.to_thread(self._library.resolve, parsed)
        note_model(model.name.short)
        return model

    async def _plan(self, model: Model, request: ChatRequest) -> ChatPlan:
        """In a thread where there are schemas or a grammar to read, or much to look through."""
        template = await self._template(model, request.template)
        if isinstance(request.output, JsonOutput):
            await asyncio.to_thread(_load_checker)
        if request.tools or request.output is not None:
            return await in_planning(lambda: plan_chat(model, template, request))
        if is_long(Given(request.messages, request.tools, request.template_arguments)):
            return await in_lane(lambda: plan_chat(model, template, request))
        return plan_chat(model, template, request)

    async def _template(self, model: Model, override: str | None, *, chat: bool = True) -> ChatTemplate:
        key = template_key(model, override, chat=chat)
        if override is None:
            known = self._templates.known(key)
            return await on_trial(lambda: self._templates.open(key)) if known is None else known
        try:
            return await as_brought(lambda: self._templates.read(key))
        except ModelFileError as error:
            raise InvalidRequest(f"template error: {error}", param="template") from error

    def _without_effect(self, model: Model, keep_alive: float | None) -> tuple[str, ...]:
        """The request's `keep_alive`, of a model that who runs this has pinned."""
        pinned = self._settings.policy_of(model.name.short).pin
        return ("keep_alive",) if pinned and keep_alive is not None and keep_alive >= 0 else ()

    def _lease(
        self, model: Model, options: Options, keep_alive: float | None, *, embedding: bool = False
    ) -> AbstractAsyncContextManager[Leased]:
        caller = current_caller()
        return self._scheduler.lease(
            model,
            options.over(model.options),
            keep_alive=keep_alive,
            embedding=embedding,
            deadline=caller.deadline,
            request=caller.request,
        )


def _told(events: AsyncIterator[Event], ignored: tuple[str, ...]) -> AsyncIterator[Event]:
    """The same, with these among the fields that had no effect."""

    async def telling() -> AsyncIterator[Event]:
        async for event in events:
            yield replace(event, ignored=(*event.ignored, *ignored)) if isinstance(event, Started) else event

    return telling() if ignored else events

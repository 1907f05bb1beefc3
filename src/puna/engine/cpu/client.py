"""The cpu engine as the server sees it: starts the child and speaks to it. Imports nothing heavy."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast

from puna.engine.cpu import library
from puna.engine.cpu.profile import BITS, COSTS, PROFILE
from puna.engine.cpu.protocol import (
    SOCKET,
    AskCancel,
    AskCount,
    AskDetokenize,
    AskGenerate,
    AskMessage,
    AskScore,
    AskTokenize,
    Failed,
    Hello,
    Load,
    ReplyBody,
    Scores,
    ask_frame,
    read_frame,
    read_hello,
    read_replies,
)
from puna.engine.cpu.supported import Machine, here, why_not, why_not_machine
from puna.engine.engine import Engine, ModelFacts, Opinion, lacking
from puna.engine.memory import estimate
from puna.engine.process import ChildProcess, private_directory, python
from puna.engine.runner import (
    Constraint,
    End,
    Feature,
    LoadOptions,
    ModelFiles,
    Prompt,
    Runner,
    RunnerInfo,
    Sampling,
    Step,
)
from puna.errors import LoadFailed, LoadTimeout, PunaError, RunnerDied, Unsupported
from puna.model.markup import Markup
from puna.settings import Settings
from puna.types import Candidate

SIGN_OF_LIFE = 2.0
"""Seconds, at most, between looks at whether a loading child still does something."""

_Connection: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class CpuEngine:
    """Puna's own engine, in a child process. `machine`: what it finds itself on; `trouble`: with its native library."""

    name = "cpu"
    profile = PROFILE

    def __init__(
        self,
        settings: Settings,
        machine: Machine | None = None,
        trouble: Callable[[], str | None] = library.why_not,
    ) -> None:
        self._settings = settings
        self._machine = machine or here()
        self._trouble = trouble

    @classmethod
    def of(cls, settings: Settings) -> Engine:
        """From the roster."""
        return cls(settings)

    def obstacle(self) -> str | None:
        """See `puna.engine.engine.Engine.obstacle`."""
        return why_not_machine(self._machine) or self._trouble()

    def opinion(self, model: ModelFacts, load: LoadOptions) -> Opinion:
        """See `puna.engine.engine.Engine.opinion`."""
        return Opinion(
            engine=self.name,
            objection=self.obstacle()
            or lacking(PROFILE, model, load)
            or why_not(model.architecture, model.types, model.metadata),
            need=self.memory(model, replace(load, slots=1)),
            merit=PROFILE.merit,
            slots=PROFILE.slots,
        )

    def memory(self, model: ModelFacts, load: LoadOptions) -> int:
        """See `puna.engine.engine.Engine.memory`."""
        return estimate(model.layout, load, COSTS).total

    async def start(self, files: ModelFiles, load: LoadOptions, *, reason: str = "") -> Runner:
        refuse(files, load)
        settings = self._settings
        directory = private_directory()
        order = Load(
            weights=str(files.weights.absolute()),
            num_ctx=load.num_ctx,
            slots=load.slots,
            threads=load.num_thread or None,
            step_tokens=load.num_batch,
            memory=settings.memory_limit,
            cache_type=load.cache_type or "f16",
            speculation=settings.speculation,
        )
        order.write(directory)
        accepted: asyncio.Future[_Connection] = asyncio.get_running_loop().create_future()
        server = await asyncio.start_unix_server(
            lambda reader, writer: accepted.set_result((reader, writer)), directory / SOCKET
        )
        try:
            child = await ChildProcess.start(python("puna.engine.cpu.child"), directory)
            try:
                hello, connection = await _ready(child, accepted, settings.load_timeout)
            except BaseException:
                if accepted.done():
                    accepted.result()[1].close()
                await child.close()
                raise
        finally:
            server.close()
        return CpuRunner(child, connection, _info(hello, load, child.pid, reason, speculation=settings.speculation))


def refuse(files: ModelFiles, load: LoadOptions) -> None:
    """LoadFailed for what this engine cannot load."""
    for what, wanted in (("adapters", files.adapters), ("projectors", files.projectors), ("embed", load.embedding)):
        if wanted:
            raise LoadFailed(f"the cpu engine does not do {what}; name another engine (PUNA_ENGINE)")
    if load.cache_type is not None and load.cache_type not in PROFILE.cache_types:
        raise LoadFailed(f"the cpu engine has no cache of the type {load.cache_type}")


def told(hello: Hello, load: LoadOptions, reason: str) -> str:
    """Why this engine runs the model, and what could not be had."""
    notes = [reason] if reason else []
    if hello.cache_tokens < load.num_ctx * load.slots:
        notes.append(f"for lack of memory its requests share a cache of {hello.cache_tokens} tokens")
    if ignored := [name for name in PROFILE.without_effect if getattr(load, name) is not None]:
        notes.append(f"without effect here: {', '.join(ignored)}")
    return "; ".join(notes)


def _info(hello: Hello, load: LoadOptions, pid: int, reason: str, *, speculation: bool) -> RunnerInfo:
    return RunnerInfo(
        engine="cpu",
        version=hello.version,
        bits=f"{BITS} {load.cache_type or 'f16'}",
        without_effect=PROFILE.without_effect,
        num_ctx=load.num_ctx,
        slots=load.slots,
        vocabulary=hello.vocabulary,
        bos=hello.bos,
        eos=hello.eos,
        add_bos=hello.add_bos,
        embedding_length=hello.embedding_length,
        seed_exact=True,
        features=PROFILE.features if speculation else PROFILE.features - {Feature.PREDICTION},
        memory=hello.memory,
        pid=pid,
        reason=told(hello, load, reason),
        markup=Markup(hello.markup),
    )


async def _ready(child: ChildProcess, accepted: asyncio.Future[_Connection], limit: float) -> tuple[Hello, _Connection]:
    """What the child says when it has loaded. `limit`: seconds it may be without a sign of life; 0: for ever."""
    events: set[asyncio.Future[Any]] = {accepted, child.died}
    pause = min(SIGN_OF_LIFE, limit) if limit > 0 else SIGN_OF_LIFE
    clock = asyncio.get_running_loop().time
    life, since = child.life(), clock()
    while not accepted.done():
        await asyncio.wait(events, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        if child.died.done() and not accepted.done():
            raise LoadFailed(f"the cpu engine did not start: {child.died.result()}")
        if child.life() != life:
            life, since = child.life(), clock()
        elif 0 < limit < clock() - since:
            raise LoadTimeout(f"the cpu engine showed no sign of life for {limit:g} seconds")
    reader, writer = accepted.result()
    word = read_hello(await read_frame(reader) or b"null")
    if isinstance(word, Failed):
        raise word.error
    return word, (reader, writer)


class CpuRunner:
    """One connection carries all requests; each has a number and a mailbox."""

    def __init__(self, child: ChildProcess, connection: _Connection, info: RunnerInfo) -> None:
        self._child = child
        self._reader, self._writer = connection
        self._info = info
        self._numbers = itertools.count(1)
        self._mailboxes: dict[int, asyncio.Queue[ReplyBody | None]] = {}
        self._listener = asyncio.create_task(self._listen())

    @property
    def info(self) -> RunnerInfo:
        return self._info

    @property
    def died(self) -> asyncio.Future[str]:
        return self._child.died

    async def tokenize(self, text: str, *, special: bool, bos: bool) -> list[int]:
        number = next(self._numbers)
        return cast("list[int]", await self._ask(AskTokenize(number, text, special, bos)))

    async def detokenize(self, tokens: Sequence[int]) -> bytes:
        number = next(self._numbers)
        return cast("bytes", await self._ask(AskDetokenize(number, tuple(tokens))))

    async def score(self, tokens: Sequence[int], *, top: int) -> list[tuple[float, tuple[Candidate, ...]]]:
        number = next(self._numbers)
        return cast("Scores", await self._ask(AskScore(number, tuple(tokens), top)))

    async def busy(self) -> int:
        return (await self._count())[0]

    async def room(self) -> tuple[int, int]:
        """Blocks of its cache that are free to promise, and all. Equal when nothing runs: else some were lost."""
        _, _, free, capacity = await self._count()
        return free, capacity

    async def _count(self) -> list[int]:
        return cast("list[int]", await self._ask(AskCount(next(self._numbers))))

    async def embed(self, tokens: Sequence[int]) -> list[float]:
        raise Unsupported("the cpu engine does not embed", param="model")

    async def generate(
        self, prompt: Prompt, sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncIterator[Step]:
        if prompt.media:
            raise Unsupported("the cpu engine takes no images or audio", param="messages")
        number = next(self._numbers)
        gbnf = constraint.gbnf if constraint else None
        ask = AskGenerate(number, prompt.tokens, sampling, gbnf, prompt.prediction)
        mailbox = self._open(ask)
        ended = False
        try:
            while not ended:
                step = await self._next(mailbox)
                ended = isinstance(step, End | PunaError)
                if isinstance(step, PunaError):
                    raise step
                yield cast("Step", step)
        finally:
            self._close(number, cancel=not ended)

    async def close(self) -> None:
        self._writer.close()
        await self._child.close()
        await self._listener

    # -------------------------------------------------------------------------------------------------- its mailboxes

    async def _ask(self, ask: AskMessage) -> ReplyBody:
        """One question, one answer."""
        mailbox, answered = self._open(ask), False
        try:
            answer = await self._next(mailbox)
            answered = True
        finally:
            self._close(ask.number, cancel=not answered)
        if isinstance(answer, PunaError):
            raise answer
        return answer

    def _open(self, ask: AskMessage) -> asyncio.Queue[ReplyBody | None]:
        mailbox: asyncio.Queue[ReplyBody | None] = asyncio.Queue()
        self._mailboxes[ask.number] = mailbox
        if self._listener.done():
            mailbox.put_nowait(None)
        else:
            self._writer.write(ask_frame(ask))
        return mailbox

    async def _next(self, mailbox: asyncio.Queue[ReplyBody | None]) -> ReplyBody:
        answer = await mailbox.get()
        if answer is None:
            raise RunnerDied(f"the cpu engine ended: {await asyncio.shield(self._child.died)}")
        return answer

    def _close(self, number: int, *, cancel: bool) -> None:
        del self._mailboxes[number]
        if cancel and not self._listener.done():
            self._writer.write(ask_frame(AskCancel(number)))

    async def _listen(self) -> None:
        """Put replies into their mailboxes until the child is gone; then tell everyone who waits."""
        while payload := await read_frame(self._reader):
            for number, answer in read_replies(payload):
                mailbox = self._mailboxes.get(number)
                if mailbox is not None:
                    mailbox.put_nowait(answer)
        self._writer.close()
        for mailbox in self._mailboxes.values():
            mailbox.put_nowait(None)

"""The cpu engine as the server sees it: starts the child and speaks to it. Imports nothing heavy."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, cast

from puna.engine.cpu import library
from puna.engine.cpu.link import Link
from puna.engine.cpu.profile import BITS, COSTS, MOST_ROWS, PROFILE
from puna.engine.cpu.protocol import (
    AskCancel,
    AskCount,
    AskDetokenize,
    AskGenerate,
    AskMessage,
    AskScore,
    AskSettle,
    AskTokenize,
    AskWeigh,
    Failed,
    Hello,
    Load,
    ReplyBody,
    Scores,
)
from puna.engine.cpu.recruit import Spare
from puna.engine.cpu.supported import Machine, here, why_not, why_not_machine
from puna.engine.deposit import DEPOSIT
from puna.engine.engine import Engine, ModelFacts, Opinion, lacking
from puna.engine.memory import Estimate, estimate, over
from puna.engine.process import ChildProcess
from puna.engine.runner import (
    Constraint,
    End,
    Feature,
    LoadOptions,
    ModelFiles,
    Prompt,
    Ranked,
    Runner,
    RunnerInfo,
    Sampling,
    Step,
    Token,
    Weighed,
)
from puna.errors import LoadDied, LoadFailed, LoadTimeout, PunaError, RunnerDied, Unsupported
from puna.model.markup import Markup
from puna.settings import Settings
from puna.types import Candidate

SETTLING = 1.0
"""Seconds, at most, that a runner may write what is to outlive it: others may wait for its memory."""

SIGN_OF_LIFE = 2.0
"""Seconds, at most, between looks at whether a loading child still does something."""


class CpuEngine:
    """Puna's own engine, in a child process. `machine`: what it finds itself on; `trouble`: with its native library.

    `child`: the module that its process runs.
    """

    name = "cpu"
    profile = PROFILE
    child = "puna.engine.cpu.child"

    def __init__(
        self,
        settings: Settings,
        machine: Machine | None = None,
        trouble: Callable[[], str | None] = library.why_not,
    ) -> None:
        self._settings = settings
        self._machine = machine or here()
        self._trouble = trouble
        self._spare = Spare(self.child)

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
            or lacking(PROFILE, load, projectors=model.projectors, adapters=model.adapters)
            or why_not(model.architecture, model.types, model.metadata)
            or over(lambda one: self.memory(model, one), load, self._settings.cache_memory),
            need=self.memory(model, replace(load, slots=1)).total,
            merit=PROFILE.merit,
            slots=PROFILE.slots,
        )

    def memory(self, model: ModelFacts, load: LoadOptions) -> Estimate:
        """See `puna.engine.engine.Engine.memory`."""
        return estimate(model.layout, load, COSTS, self._settings.cache_memory)

    async def start(self, files: ModelFiles, load: LoadOptions, *, reason: str = "") -> Runner:
        objection = lacking(PROFILE, load, projectors=len(files.projectors), adapters=len(files.adapters))
        if objection is not None:
            raise LoadFailed(objection)
        settings = self._settings
        order = Load(
            weights=str(files.weights.absolute()),
            num_ctx=load.num_ctx,
            slots=load.slots,
            threads=load.num_thread or None,
            step_tokens=load.num_batch,
            memory=settings.memory_limit,
            cache_type=load.cache_type or "f16",
            speculation=settings.speculation,
            shards=[str(path.absolute()) for path in files.shards],
            cache_memory=settings.cache_memory,
            cache_disk=settings.cache_disk,
            cache_dir=str(settings.cache_dir.absolute() / DEPOSIT) if settings.cache_dir else "",
            content=files.digest,
        )
        recruit = await self._spare.take()
        child, link = recruit.child, recruit.link
        try:
            link.order(order)
            hello = await _ready(child, link, settings.load_timeout)
        except BaseException:
            await recruit.close()
            raise
        info = _info(hello, load, child.pid, reason, speculation=settings.speculation)
        return CpuRunner(child, link, info, settles=order.persists and not hello.trouble)

    async def prepare(self) -> None:
        """See `puna.engine.engine.Engine.prepare`: a child that has imported what it needs."""
        if self._settings.spare and self.obstacle() is None:
            await self._spare.fill()

    async def close(self) -> None:
        """See `puna.engine.engine.Engine.close`."""
        await self._spare.close()


def told(hello: Hello, load: LoadOptions, reason: str) -> str:
    """Why this engine runs the model, and what could not be had."""
    notes = [reason] if reason else []
    if hello.cache_tokens < load.num_ctx * load.slots:
        notes.append(f"for lack of memory its requests share a cache of {hello.cache_tokens} tokens")
    if hello.trouble:
        notes.append(f"its conversations do not outlive it: {hello.trouble}")
    if load.num_batch is not None and load.num_batch > MOST_ROWS:
        notes.append(f"num_batch is {MOST_ROWS}, the most that it computes in a step")
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


async def _ready(child: ChildProcess, link: Link, limit: float) -> Hello:
    """What the child says when it has loaded. `limit`: seconds it may be without a sign of life; 0: for ever."""
    events: set[asyncio.Future[Any]] = {link.hello, child.died}
    pause = min(SIGN_OF_LIFE, limit) if limit > 0 else SIGN_OF_LIFE
    clock = asyncio.get_running_loop().time
    life, since = child.life(), clock()
    while not link.hello.done():
        await asyncio.wait(events, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        if child.died.done() and not link.hello.done():
            raise LoadDied(f"the cpu engine did not start: {child.died.result()}")
        if child.life() != life:
            life, since = child.life(), clock()
        elif 0 < limit < clock() - since:
            raise LoadTimeout(f"the cpu engine showed no sign of life for {limit:g} seconds")
    word = link.hello.result()
    if isinstance(word, Failed):
        raise word.error
    if word is None:
        raise LoadDied(f"the cpu engine did not start: {await asyncio.shield(child.died)}")
    return word


class CpuRunner:
    """What was loaded, over its Link. `settles`: it has something to write before it ends."""

    def __init__(self, child: ChildProcess, link: Link, info: RunnerInfo, *, settles: bool = False) -> None:
        self._child = child
        self._settles = settles
        self._link = link
        self._info = info
        self._numbers = itertools.count(1)

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

    async def weigh(self, tokens: Sequence[int], following: Sequence[int]) -> Weighed:
        number = next(self._numbers)
        return cast("Weighed", await self._ask(AskWeigh(number, tuple(tokens), tuple(following))))

    async def busy(self) -> int:
        return (await self._count())[0]

    async def strays(self) -> frozenset[Hashable]:
        # The child has read every cancel before the count that follows it, and obeyed it before it answers.
        wanted = self._link.open_numbers()
        _, _, _, _, *numbers = await self._count()
        return frozenset(numbers) - wanted

    async def room(self) -> tuple[int, int]:
        """Blocks of its cache that are free to promise, and all. Equal when nothing runs: else some were lost."""
        _, _, free, capacity, *_ = await self._count()
        return free, capacity

    async def _count(self) -> list[int]:
        return cast("list[int]", await self._ask(AskCount(next(self._numbers))))

    async def embed(self, tokens: Sequence[int]) -> list[float]:
        raise Unsupported("the cpu engine does not embed", param="model")

    async def rank(self, query: str, document: str) -> Ranked:
        raise Unsupported("the cpu engine has no heads for ranks", param="model")

    async def generate(
        self, prompt: Prompt, sampling: Sampling, constraint: Constraint | None = None
    ) -> AsyncIterator[Step]:
        if prompt.media:
            raise Unsupported("the cpu engine takes no images or audio", param="messages")
        number = next(self._numbers)
        gbnf = constraint.gbnf if constraint else None
        mailbox = self._link.open(AskGenerate(number, prompt.tokens, sampling, gbnf, prompt.prediction))
        replies, ended = mailbox.replies, False
        try:
            while not ended:
                if not replies:
                    await mailbox.wait()
                step = replies.popleft()
                if isinstance(step, Token):
                    yield step
                    continue
                ended = isinstance(step, End | PunaError)
                yield cast("Step", await self._checked(step))
        finally:
            self._end(number, cancel=not ended)

    def kill(self, why: str) -> None:
        self._child.kill(why)

    async def close(self) -> None:
        if self._settles and not self.died.done():
            with contextlib.suppress(PunaError, asyncio.TimeoutError):
                await asyncio.wait_for(self._ask(AskSettle(next(self._numbers))), SETTLING)
        self._link.close()
        await self._child.close()
        await self._link.gone

    # ------------------------------------------------------------------------------------------------------ its asks

    async def _ask(self, ask: AskMessage) -> ReplyBody:
        """One question, one answer."""
        mailbox, answered = self._link.open(ask), False
        try:
            await mailbox.wait()
            answered = True
        finally:
            self._end(ask.number, cancel=not answered)
        return await self._checked(mailbox.replies.popleft())

    async def _checked(self, answer: ReplyBody | None) -> ReplyBody:
        if answer is None:
            raise RunnerDied(f"the cpu engine ended: {await asyncio.shield(self._child.died)}")
        if isinstance(answer, PunaError):
            raise answer
        return answer

    def _end(self, number: int, *, cancel: bool) -> None:
        self._link.forget(number)
        if cancel:
            self._link.send(AskCancel(number))

"""Batches at work: checked, answered line by line behind interactive work, and ended. One server of a state does it.

What is kept says all: a batch goes on where it stood, whenever a server ended. Each line's answer is kept together with
the counts of its batch, in one transaction, so no line is lost or answered twice in the output. At the end the answers
become files, and the lines go, in one transaction too.

Batches take turns: a large one keeps no small one waiting for hours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal, TypeAlias, cast

import structlog

from puna.errors import Conflict, InvalidRequest, PunaError, StateError, StateFull
from puna.lane import in_batches
from puna.scheduler.behind import in_background
from puna.server.batch.batch import BatchUsage, RequestBatch
from puna.server.batch.lines import (
    BatchLine,
    Checked,
    answered,
    check_lines,
    lines_of,
    numbered,
    read_line,
    unanswered,
    written,
)
from puna.server.body import parse_json
from puna.server.inside import InsideAnswer
from puna.server.kept_files import new_file
from puna.state.records import Delete, Put, Query, Record
from puna.state.state import State
from puna.types import JsonObject, JsonValue

WORK = "batches"
"""What one server of a state claims."""

LOOK_SECONDS = 5.0
"""How often it is looked whether another server was given a batch, or was told to cancel one."""

TURN_SECONDS = 300.0
"""How long a batch has the machine before another that waits."""

FEWEST_AT_ONCE = 4
"""Lines under way, where it is not known yet how many the runner takes."""

TRIES = 3
"""Of a line whose answer says that it is worth another try."""

GIVES_WAY = 3
"""How often a line gives way to interactive requests before it stays."""

_RETRY_SECONDS = 10.0
"""After what could not be kept."""

_STRETCH = 32
"""Lines that are read in one go."""
_PAGE = 500

AskInside: TypeAlias = Callable[[str, bytes, str, Mapping[str, str]], Awaitable[InsideAnswer]]
"""POST to a path, a body, in the name of an owner, with headers."""

_Ending: TypeAlias = Literal["completed", "cancelled", "expired"]

_LEFT: Mapping[_Ending, tuple[str, str]] = {
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was answered."),
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
}

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Result:
    """What a line came to, without its answer."""

    ok: bool
    usage: BatchUsage

    @classmethod
    def of(cls, record: Record) -> _Result:
        response = cast("JsonObject", record.body["out"])["response"]
        return cls(record.body["ok"] is True, BatchUsage.of(response["body"] if isinstance(response, dict) else None))


@dataclass(eq=False, slots=True)
class _Job:
    """The batch that has the machine. `why`: why it stops before its last line; `turn`: to let another go on."""

    batch: RequestBatch
    task: asyncio.Task[None] | None = None
    lines: set[asyncio.Task[None]] = field(default_factory=set)
    keeping: asyncio.Lock = field(default_factory=asyncio.Lock)
    why: _Ending | Literal["turn"] | None = None
    fault: BaseException | None = None
    answered: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def stopping(self) -> bool:
        """No other line begins."""
        return self.why is not None or self.fault is not None

    def begin(self, line: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(line)
        self.lines.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, line: asyncio.Task[None]) -> None:
        self.lines.discard(line)
        if not line.cancelled():
            self.fault = self.fault or line.exception()

    def had_its_turn(self, seconds: float) -> bool:
        """Whether it has been at work for so long, and has come further."""
        return self.answered > 0 and time.monotonic() - self.began > seconds

    async def leave(self) -> None:
        """No line is under way any more."""
        lines = [*self.lines]
        for line in lines:
            line.cancel()
        await asyncio.gather(*lines, return_exceptions=True)

    def stop(self, why: _Ending | Literal["turn"]) -> None:
        self.why = self.why or why
        if why != "turn":
            for line in self.lines:
                line.cancel()


class BatchWork:
    """All batches of a server. `slots`: how many requests the loaded runners take at once.

    `max_line`: bytes of one line. `now`: seconds since 1970.
    """

    def __init__(
        self,
        state: State,
        ask: AskInside,
        slots: Callable[[], int],
        *,
        max_line: int,
        look_seconds: float = LOOK_SECONDS,
        turn_seconds: float = TURN_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._ask = ask
        self._slots = slots
        self._max_line = max_line
        self._look_seconds = look_seconds
        self._turn_seconds = turn_seconds
        self._now = now
        self._news = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._job: _Job | None = None
        self._ran: dict[str, float] = {}

    def start(self) -> None:
        """From now on batches are answered; those too that an earlier server began."""
        if self._state.kept:
            self._looking = asyncio.create_task(self._look_again())

    async def stop(self) -> None:
        """No line is under way any more. The next server goes on."""
        tasks = [self._looking, self._job.task if self._job else None]
        running = [task for task in tasks if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def submit(self, batch: RequestBatch) -> None:
        """Keep a new one, and begin soon."""
        await self._state.apply(Put(batch.record(), new=True))
        self._news.set()

    async def cancel(self, batch: RequestBatch) -> RequestBatch:
        """Let it end soon, wherever it is answered. It is `cancelling` until then."""
        mark = Record(kind="line", id=batch.mark, owner=batch.owner, body={}, created=self._now(), parent=batch.id)
        with suppress(Conflict):
            await self._state.apply(Put(mark, new=True))
        self._news.set()
        return await self.current(batch)

    async def current(self, batch: RequestBatch) -> RequestBatch:
        """As it is to be seen: `cancelling` from the moment when somebody wanted it."""
        if batch.ended:
            return batch
        mark = await self._state.get("line", batch.mark, batch.owner)
        return batch if mark is None else batch.to("cancelling", mark.created)

    # ---------------------------------------------------------------------------------------------------- who is next

    async def _look_again(self) -> None:
        while True:
            self._news.clear()
            await self._safely(self._look())
            # `asyncio.wait_for` may lose a cancellation, before 3.12.
            again = asyncio.get_running_loop().call_later(self._look_seconds, self._news.set)
            try:
                await self._news.wait()
            finally:
                again.cancel()

    async def _look(self) -> None:
        """Do for each batch what is due: check it, end it, let it go on."""
        # Before it is read what is kept: what a job has ended must not be begun again by what was there before.
        if self._job is not None and self._job.task is not None and self._job.task.done():
            self._job = None
        if not await self._unended() or not await self._state.claim(WORK):
            return
        # Read again: what another server ended before it let go of the work.
        batches = await self._unended()
        ready = []
        for kept in batches:
            batch = await self.current(kept)
            over = _over(batch, self._now())
            if self._job is not None and batch.id == self._job.batch.id:
                if over is not None:
                    self._job.stop(over)
            elif over is not None:
                await self._end(batch, over)
            elif batch.status == "validating":
                checked = await self._check(batch)
                if checked.status != "failed":
                    ready.append(checked)
            else:
                ready.append(batch)
        if self._job is None and ready:
            self._begin(min(ready, key=lambda batch: self._ran.get(batch.id, 0)))
        elif self._job is not None and ready and self._job.had_its_turn(self._turn_seconds):
            self._job.stop("turn")

    async def _unended(self) -> list[RequestBatch]:
        return [RequestBatch.read(record) for record in await self._state.everyones("batch", {"work": "left"})]

    def _begin(self, batch: RequestBatch) -> None:
        job = self._job = _Job(batch)
        self._ran[batch.id] = time.monotonic()
        job.task = asyncio.create_task(self._run(job))
        job.task.add_done_callback(lambda _: self._news.set())

    async def _check(self, batch: RequestBatch) -> RequestBatch:
        """Look at every line."""
        path = self._state.contents.path(batch.input)
        if path is None:
            raise StateError(f"the input of {batch.id} is not there")

        def check() -> Checked:
            with path.open("rb") as file:
                lines = lines_of(file, self._max_line)
                return check_lines(lines, batch.endpoint, one_model=batch.one_model)

        found = await in_batches(check)
        checked = replace(batch, total=found.total, model=found.model, faults=found.faults)
        now = self._now()
        if found.faults:
            checked = replace(checked, total=0).to("failed", now)
            await self._keep(Put(checked.record()))
            return checked
        checked = checked.to("in_progress", now)
        work = Record(kind="line", id=batch.work, owner=batch.owner, body={}, created=now, parent=batch.id)
        await self._keep(Put(checked.record()), Put(work))
        return checked

    # --------------------------------------------------------------------------------------------------------- lines

    async def _run(self, job: _Job) -> None:
        if not await self._safely(self._go_on(job)):
            await asyncio.sleep(_RETRY_SECONDS)

    async def _go_on(self, job: _Job) -> None:
        """Answer what is not answered yet, and end the batch after its last line."""
        results = await self._results(job.batch)
        job.batch = _counted(job.batch, results.values())
        try:
            async with aclosing(self._lines(job.batch, skip=results)) as lines:
                async for line in lines:
                    while len(job.lines) > max(self._slots(), FEWEST_AT_ONCE) and not job.stopping:
                        await asyncio.wait(job.lines, return_when=asyncio.FIRST_COMPLETED)
                    if job.stopping:
                        break
                    job.begin(self._answer(job, line))
            while job.lines:
                await asyncio.wait(job.lines)
        finally:
            await job.leave()
        if job.fault is not None:
            raise job.fault
        if job.why != "turn":
            await self._end(await self.current(job.batch), job.why or "completed")

    async def _safely(self, work: Awaitable[None]) -> bool:
        """Whether it went well. A fault, of ours too, is logged and tried again: it must not end all batches."""
        try:
            await work
        except PunaError as error:
            _log.warning("batches wait", reason=str(error))
        except Exception:  # noqa: BLE001 - as it says
            _log.exception("batches wait")
        else:
            return True
        return False

    async def _lines(self, batch: RequestBatch, *, skip: Collection[int]) -> AsyncGenerator[BatchLine]:
        """The requests of a batch, but for those whose numbers are to be skipped."""
        path = self._state.contents.path(batch.input)
        if path is None:
            raise StateError(f"the input of {batch.id} is not there")
        with await in_batches(lambda: path.open("rb")) as file:
            texts = ((number, text) for number, text in numbered(lines_of(file, self._max_line)) if number not in skip)

            def stretch() -> list[BatchLine]:
                return [read_line(number, text, batch.endpoint) for number, text in islice(texts, _STRETCH)]

            while lines := await in_batches(stretch):
                for line in lines:
                    yield line

    async def _answer(self, job: _Job, line: BatchLine) -> None:
        """AskInside as anybody would, in the background, until there is an answer; keep it."""
        batch = job.batch
        tries = gave_way = 0
        while True:
            with in_background(gives_way=gave_way < GIVES_WAY) as role:
                answer = await self._ask(batch.endpoint, line.text, batch.owner, batch.headers)
            if role.gave_way:
                gave_way += 1
                continue
            tries += 1
            if tries == TRIES or (answer.status and answer.headers.get("x-should-retry") != "true"):
                break
            await asyncio.sleep(_seconds(answer.headers.get("retry-after")))
        await self._answered_with(job, line, answer)

    async def _answered_with(self, job: _Job, line: BatchLine, answer: InsideAnswer) -> None:
        body = _json(answer.body)
        ok = answer.status == 200
        out = answered(line, answer.status, answer.headers, body)
        if not answer.status:
            out = unanswered(line, "request_cancelled", "The request was cancelled.")
        kept = Record(
            kind="line",
            id=f"{job.batch.id}.{line.number}",
            owner=job.batch.owner,
            body={"number": line.number, "ok": ok, "out": out},
            created=self._now(),
            parent=job.batch.work,
        )
        async with job.keeping:
            batch = _with(job.batch, _Result.of(kept))
            await self._keep(Put(kept, new=True), Put(batch.record()))
            job.batch = batch
            job.answered += 1

    async def _keep(self, *changes: Put | Delete) -> None:
        """As soon as it can be: an owner without room, and a disk without, are waited for."""
        while True:
            if await self._kept_now(changes):
                return
            await asyncio.sleep(_RETRY_SECONDS)

    async def _kept_now(self, changes: Sequence[Put | Delete]) -> bool:
        try:
            await self._state.apply(*changes)
        except (StateFull, StateError) as error:
            _log.warning("a batch waits for room", reason=str(error))
            return False
        return True

    # ----------------------------------------------------------------------------------------------------------- end

    async def _results(self, batch: RequestBatch) -> dict[int, _Result]:
        """Of the lines that have an answer, by their numbers."""
        return {cast(int, record.body["number"]): _Result.of(record) async for record in self._kept(batch)}

    async def _kept(self, batch: RequestBatch) -> AsyncIterator[Record]:
        query = Query(parent=batch.work, limit=_PAGE, newest_first=False)
        while True:
            page = await self._state.page("line", batch.owner, query)
            for record in page.records:
                yield record
            if not page.more:
                return
            query = replace(query, after=page.records[-1].id)

    async def _end(self, batch: RequestBatch, ending: _Ending) -> None:
        """Its answers become files, and its lines go."""
        if ending == "completed" and batch.status != "finalizing":
            batch = batch.to("finalizing", self._now())
            await self._state.apply(Put(batch.record()))
        results = await self._results(batch)
        batch = _counted(batch, results.values())
        outputs = [await self._file(batch, self._outputs(batch, ok=True), "output")]
        left = _LEFT.get(ending) if batch.status != "validating" else None
        outputs.append(await self._file(batch, self._faults(batch, results, left), "error"))
        output, errors = (None if file is None else file.id for file in outputs)
        batch = replace(batch, output=output, errors=errors).to(ending, self._now())
        try:
            await self._state.apply(
                *(Put(file, new=True) for file in outputs if file is not None),
                Put(batch.record()),
                Delete("line", batch.work, batch.owner),
                Delete("line", batch.mark, batch.owner),
            )
        except BaseException:
            for file in outputs:
                if file is not None and file.content is not None:
                    await self._state.discard(file.content)
            raise
        self._ran.pop(batch.id, None)
        _log.info("batch ended", batch=batch.id, status=batch.status, completed=batch.completed, failed=batch.failed)

    async def _outputs(self, batch: RequestBatch, *, ok: bool) -> AsyncGenerator[bytes]:
        async for record in self._kept(batch):
            if record.body["ok"] == ok:
                yield written(cast(JsonObject, record.body["out"]))

    async def _faults(
        self, batch: RequestBatch, done: Collection[int], left: tuple[str, str] | None
    ) -> AsyncGenerator[bytes]:
        async for text in self._outputs(batch, ok=False):
            yield text
        if left is not None:
            async for line in self._lines(batch, skip=done):
                yield written(unanswered(line, *left))

    async def _file(self, batch: RequestBatch, lines: AsyncGenerator[bytes], what: str) -> Record | None:
        """A file of these lines; None if there are none."""
        async with aclosing(lines):
            first = await anext(lines, None)
            if first is None:
                return None
            stored = await self._state.contents.add(_again(first, lines), most=2**62)
        name = f"{batch.id}_{what}.jsonl"
        return new_file(
            batch.owner,
            stored,
            filename=name,
            purpose="batch_output",
            media_type="application/jsonl",
            seconds=batch.seconds,
        )


async def _again(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for one in others:
        yield one


def _over(batch: RequestBatch, now: float) -> _Ending | None:
    if batch.status == "cancelling":
        return "cancelled"
    return "expired" if now >= batch.expires else None


def _counted(batch: RequestBatch, results: Iterable[_Result]) -> RequestBatch:
    """With the counts of these results, and no others."""
    batch = replace(batch, completed=0, failed=0, usage=BatchUsage())
    for result in results:
        batch = _with(batch, result)
    return batch


def _with(batch: RequestBatch, result: _Result) -> RequestBatch:
    """With one result more."""
    return replace(
        batch,
        completed=batch.completed + result.ok,
        failed=batch.failed + (not result.ok),
        usage=batch.usage + result.usage,
    )


def _json(body: bytes) -> JsonValue:
    """What a route answered: JSON, else its text."""
    try:
        return parse_json(body)
    except InvalidRequest:
        return body.decode(errors="replace")


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdigit() else 1.0

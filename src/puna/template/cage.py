"""The cage: where templates that came with a model or a request are compiled, tried and run. Never in this process.

Three cells, each a process that answers one order at a time. A template that has not yet been opened, or that has ended
a cell before, gets the second one only: whoever waits behind it is no better. One that came with a request gets the
third, which there is only then. What ends a cell, or keeps it longer than its bounds, is a refusal that says so, and
the cell is replaced. Blocking and safe to call from several threads: call from one that may wait.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from puna.children import spawned
from puna.engine.confines import OVER_TIME
from puna.engine.process import child_environment, python
from puna.errors import ModelFileError, Overloaded, ServerStopping, TemplateTooCostly
from puna.shortage import ends_first
from puna.standstill import processor_seconds
from puna.template.cell import CPU_SECONDS, ROOM
from puna.template.facts import TemplateFacts, Trust
from puna.template.languages import TemplateKey
from puna.template.order import HEAD, MAX_ANSWER, CellAnswer, Errand, Opened, pack_order, read_answer
from puna.template.shaping import TakesMessages
from puna.types import JsonObject, JsonValue

WALL_SECONDS = 10.0
"""For which an answer is waited. It is the processor's time that bounds a template; this one is for a cell that the
system does not let run."""

PATIENCE_SECONDS = 30.0
"""How long an order may wait for a free cell."""

REMEMBERED = 64
"""Templates that are known, and as many that are known to be none."""


class Cage:
    """Closed by `close`, or by leaving `with`."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._cells = (_Cell(), _Cell(), _Cell())
        self._busy: set[_Cell] = set()
        self._known: OrderedDict[TemplateKey, CagedTemplate | ModelFileError] = OrderedDict()
        self._suspects: set[TemplateKey] = set()

    def __enter__(self) -> Cage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Have the cells ready before the first order; not needed, but sooner."""
        for cell in self._cells[:2]:
            cell.start()

    def close(self) -> None:
        for cell in self._cells:
            cell.close()

    def known(self, key: TemplateKey) -> CagedTemplate | None:
        """What `open` gave before; no waiting. None: open it. ModelFileError as before, if that was the outcome."""
        with self._free:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
        if isinstance(known, ModelFileError):
            raise type(known)(known.message)
        return known

    def open(self, key: TemplateKey) -> CagedTemplate:
        """Compile it and find out what it can do. ModelFileError: it is none, or breaks its bounds."""
        known = self.known(key)
        if known is not None:
            return known
        try:
            opened = self.ask("open", key, trust="suspect")
        except ModelFileError as error:
            self._remember(key, error)
            raise
        assert isinstance(opened, Opened)
        template = CagedTemplate(self, key, opened)
        self._remember(key, template)
        return template

    def read(self, key: TemplateKey) -> CagedTemplate:
        """Compile one that came with a request. It is not tried: what it can do is what its text says. Not remembered.

        ModelFileError: it is none, or breaks its bounds.
        """
        opened = self.ask("read", key, trust="brought")
        assert isinstance(opened, Opened)
        return CagedTemplate(self, key, opened, brought=True)

    def trust(self, key: TemplateKey) -> Trust:
        """Of a template that was opened."""
        return "suspect" if key in self._suspects else "known"

    def ask(
        self, job: Errand, key: TemplateKey, arguments: Mapping[str, Any] | None = None, *, trust: Trust = "known"
    ) -> str | Opened | None:
        """One order. InvalidRequest, ModelFileError; Overloaded when no cell became free."""
        order = pack_order(job, key, arguments or {})
        with self._cell(trust) as cell:
            try:
                answer = cell.ask(order)
            except _Broken as broken:
                if trust != "brought":
                    self._suspects.add(key)
                # It gets ready while nobody waits for it: that takes as long as a template may.
                with contextlib.suppress(ServerStopping, OSError):
                    cell.start()
                raise TemplateTooCostly(f"the model's chat template {broken}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    @contextmanager
    def _cell(self, trust: Trust) -> Iterator[_Cell]:
        first, second, third = self._cells
        fitting = {"known": (first, second), "suspect": (second,), "brought": (third,)}[trust]

        def first_free() -> _Cell | None:
            return next((cell for cell in fitting if cell not in self._busy), None)

        with self._free:
            if not self._free.wait_for(lambda: first_free() is not None, PATIENCE_SECONDS):
                raise Overloaded("other chat templates have kept those who run them for too long: try again")
            cell = first_free()
            assert cell is not None
            self._busy.add(cell)
        try:
            yield cell
        finally:
            with self._free:
                self._busy.discard(cell)
                self._free.notify_all()

    def _remember(self, key: TemplateKey, outcome: CagedTemplate | ModelFileError) -> None:
        with self._free:
            self._known[key] = outcome
            while len(self._known) > REMEMBERED:
                forgotten, _ = self._known.popitem(last=False)
                self._suspects.discard(forgotten)


class CagedTemplate(TakesMessages):
    """A `ChatTemplate` that runs in the cage. Its methods wait: call them from a thread that may."""

    def __init__(self, cage: Cage, key: TemplateKey, opened: Opened, *, brought: bool = False) -> None:
        self._cage = cage
        self._key = key
        self._opened = opened
        self._brought = brought

    @property
    def source(self) -> str:
        return self._key.source

    @property
    def bos(self) -> str:
        return self._key.bos

    @property
    def trust(self) -> Trust:
        return "brought" if self._brought else self._cage.trust(self._key)

    @property
    def facts(self) -> TemplateFacts:
        return self._opened.facts

    @property
    def inserts(self) -> bool:
        return self._opened.inserts

    def check(self) -> None:
        """ModelFileError where it asks for what no template is given."""
        self._cage.ask("check", self._key, trust=self.trust)

    def render_json(
        self,
        messages: Sequence[JsonObject],
        tools: Sequence[JsonObject] | None,
        *,
        add_generation_prompt: bool,
        arguments: Mapping[str, JsonValue],
    ) -> str:
        """The prompt's text."""
        return self._text(
            "render",
            {
                "messages": messages,
                "tools": tools,
                "add_generation_prompt": add_generation_prompt,
                "arguments": dict(arguments),
            },
        )

    def insert(self, prompt: str, suffix: str) -> str:
        return self._text("insert", {"prompt": prompt, "suffix": suffix})

    def _text(self, job: Errand, arguments: Mapping[str, Any]) -> str:
        text = self._cage.ask(job, self._key, arguments, trust=self.trust)
        assert isinstance(text, str)
        return text


class _Broken(Exception):
    """An order that its cell did not survive; the message says why, after "the template"."""


class _Cell:
    """One process and the socket to it, started when it is needed. One order at a time."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._closed = False
        self._changing = threading.Lock()

    def ask(self, order: bytes) -> CellAnswer:
        """_Broken when the process ended over it, or had to be ended. ServerStopping when the cage is closed;
        Overloaded when the system let it run too little.
        """
        # One that ended while it was idle, or was ended or stopped by somebody else, says nothing of the template.
        starved = False
        for _ in range(2):
            self.start()
            before = self._used()
            try:
                return self._exchange(order)
            except TimeoutError:
                starved = self._used() - before < _ITS_FAULT
                self.end()
                if not starved:
                    raise _Broken(f"was not done after {WALL_SECONDS:g} s") from None
            except (OSError, EOFError, ValueError, TypeError, KeyError):
                code = self.end()
                if code not in _FROM_OUTSIDE:
                    raise _Broken(_cause(code)) from None
                starved = False
        if starved:
            told = (
                f"the process that runs chat templates was let run too little, twice in {WALL_SECONDS:g} s: try again"
            )
            raise Overloaded(told)
        raise _Broken("could not be run: the process that runs it was ended twice")

    def start(self) -> None:
        """Nothing when it runs. ServerStopping when it was closed: the thread of a request may be late."""
        with self._changing:
            if self._closed:
                raise ServerStopping
            if self.process is None or self.process.poll() is not None:
                self._end()
                self._begin()

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # In this process's session: one of its own, and Linux gives it a tenth of a core that this one is busy on
            # (autogroups). It ignores the interrupt that a terminal sends to all.
            self.process = spawned(
                python("puna.template.cell"),
                stdin=subprocess.PIPE if sys.platform == "win32" else theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=child_environment(os.environ),
            )
            ends_first(self.process.pid)
            if sys.platform == "win32":
                shared = theirs.share(self.process.pid)
                assert self.process.stdin is not None
                self.process.stdin.write(len(shared).to_bytes(4, "little") + shared)
                self.process.stdin.flush()
        self._connection = ours

    def close(self) -> None:
        """It ends, and is not started again."""
        with self._changing:
            self._closed = True
            self._end()

    def end(self) -> int:
        """Its return code; what it was at is lost."""
        with self._changing:
            return self._end()

    def _used(self) -> float:
        process = self.process
        return 0.0 if process is None else processor_seconds(process.pid)

    def _end(self) -> int:
        process, connection = self.process, self._connection
        self.process = self._connection = None
        if connection is not None:
            connection.close()
        if process is None:
            return 0
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Whoever closed the socket is about to end: its own code tells why.
            return process.wait(_LAST_SECONDS)
        process.kill()
        return process.wait()

    def _exchange(self, order: bytes) -> CellAnswer:
        assert self._connection is not None
        until = time.monotonic() + WALL_SECONDS
        self._connection.settimeout(WALL_SECONDS)
        self._connection.sendall(HEAD.pack(len(order)) + order)
        (size,) = HEAD.unpack(self._receive(HEAD.size, until))
        if size > MAX_ANSWER:
            raise ValueError("an answer that is too long")
        return read_answer(self._receive(size, until))

    def _receive(self, size: int, until: float) -> bytes:
        assert self._connection is not None
        data = bytearray()
        while len(data) < size:
            self._connection.settimeout(max(until - time.monotonic(), 0.001))
            more = self._connection.recv(min(size - len(data), 1 << 20))
            if not more:
                raise EOFError
            data += more
        return bytes(data)


_ITS_FAULT = 2 * CPU_SECONDS
"""Seconds of a processor within which no template is to blame for an answer that does not come: its own, and those that
its process takes to begin."""

_LAST_SECONDS = 0.5
"""For which a process may be on its way out, once its socket is closed."""

_FROM_OUTSIDE = frozenset(
    -number for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP") if (number := getattr(signal, name, None))
)


def _cause(code: int) -> str:
    if code == OVER_TIME:
        return f"takes more than {CPU_SECONDS:g} s of a processor"
    return f"is nested too deep, or takes more than {ROOM >> 20} MB of memory"

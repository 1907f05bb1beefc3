"""A loop of the cpu engine over the fake model, driven step by step, and all that it told."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fakes.cpu_model import BLOCK, FakeModel
from puna.engine.cpu.cache import Cache
from puna.engine.cpu.disk import Disk
from puna.engine.cpu.loop import Census, Count, Generate, Loop, LoopLimits, Settle, Settled, Told
from puna.engine.cpu.pace import Pace
from puna.engine.cpu.sampler import Drawn
from puna.engine.cpu.stream import StreamEvent
from puna.engine.runner import End, Sampling
from puna.errors import PunaError

EOS = 7
NUM_CTX = 512


class Priced(Pace):
    """A pace at which every guess costs the same, however long steps take here."""

    def __init__(self, cost: float) -> None:
        super().__init__()
        self._cost = cost

    def price(self, rows: int, answers: int) -> float:
        return self._cost


class Bench:
    """A loop driven step by step, and all it told."""

    def __init__(
        self,
        blocks: int = 200,
        slots: int = 16,
        num_ctx: int = NUM_CTX,
        *,
        habit: float = 0.0,
        speculation: bool = True,
        price: float = 0.1,
        stateful: bool = False,
        disk: Disk | None = None,
    ) -> None:
        """`price`: what a guess costs (see `Pace.price`)."""
        self.model = FakeModel(blocks, habit=habit)
        self.cache = Cache(blocks, BLOCK)
        self.told: defaultdict[int, list[StreamEvent | Census | Settled]] = defaultdict(list)
        limits = LoopLimits(
            num_ctx, slots, self.model.vocabulary, frozenset({EOS}), speculation=speculation, stateful=stateful
        )
        self._disk = disk
        self.loop = Loop(self.model, self.cache, limits, self._hear, pace=Priced(price), disk=disk)

    def _hear(self, told: Told) -> None:
        for number, event in told:
            self.told[number].append(event)

    def generate(self, number: int, prompt: Sequence[int], **said: Any) -> None:
        matcher, prediction = said.pop("matcher", None), tuple(said.pop("prediction", ()))
        sampling = Sampling(**{"max_tokens": 30, "seed": 42, "temperature": 1.0, **said})
        self.loop.put(Generate(number, tuple(prompt), sampling, matcher, prediction))

    def step(self) -> bool:
        self.loop.read()
        return self.loop.step()

    def run(self) -> None:
        """Until nothing is to be done, or to be read from the disk."""
        while True:
            if not self.step():
                if not self.busy():
                    return
                self.loop.read(wait=True)

    def settle(self) -> None:
        """Until all is on the disk that is to be there."""
        self.loop.put(Settle(-2))
        while not self.told.pop(-2, []):
            self.loop.read(wait=True)
            self.loop.write_behind()

    def disk_done(self) -> None:
        """Until the disk has done what it was told."""
        if self._disk is not None:
            done = threading.Event()
            self._disk.touch((), lambda well, seconds: done.set())
            done.wait()

    def busy(self) -> int:
        self.loop.put(Count(-1))
        self.loop.read()
        (count,) = self.told.pop(-1)
        assert isinstance(count, Census)
        return count.running

    def tokens(self, number: int) -> list[int]:
        return [event.token for event in self.told[number] if isinstance(event, Drawn)]

    def end(self, number: int) -> End:
        end = self.told[number][-1]
        assert isinstance(end, End)
        return end

    def error(self, number: int) -> PunaError:
        error = self.told[number][-1]
        assert isinstance(error, PunaError)
        return error


def prompt(length: int, seed: int = 0) -> list[int]:
    source = random.Random(seed)
    return [source.randrange(10, 120) for _ in range(length)]

"""What one request came to, for the log: which model, how many tokens, how fast.

Whoever logs a request opens a Tally around its work; Inference fills it from whatever task the work runs in.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from puna.types import Timings, Usage


@dataclass(slots=True)
class Tally:
    """What a request cost, for the log.

    `model`: its stored Name, '' when the request asked none. Tokens and nanoseconds over all of its answers.
    """

    model: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    prompt_ns: int = 0
    decode_ns: int = 0
    cached: int = 0
    waited_ns: int = 0

    def add(self, usage: Usage, timings: Timings) -> None:
        self.tokens_in += usage.prompt
        self.tokens_out += usage.completion
        self.cached += usage.cached
        self.prompt_ns += timings.prompt
        self.decode_ns += timings.decode
        self.waited_ns += timings.load

    @property
    def fields(self) -> dict[str, str | int | float]:
        """What the log tells; nothing of what the request or its answer said. Rates in tokens a second."""
        told: dict[str, str | int | float] = {}
        if self.model:
            told["model"] = self.model
        if self.tokens_in:
            told |= {"tokens_in": self.tokens_in, "tokens_out": self.tokens_out}
        if self.prompt_ns > 0 and self.tokens_in > self.cached:
            told["in_per_s"] = round((self.tokens_in - self.cached) * 1e9 / self.prompt_ns, 1)
        if self.decode_ns > 0 and self.tokens_out:
            told["out_per_s"] = round(self.tokens_out * 1e9 / self.decode_ns, 1)
        return told


_CURRENT: ContextVar[Tally | None] = ContextVar("tally", default=None)


def opened() -> Tally:
    """A new one, for the current task and all that it starts."""
    tally = Tally()
    _CURRENT.set(tally)
    return tally


def note_model(name: str) -> None:
    if (tally := _CURRENT.get()) is not None:
        tally.model = name


def note_answer(usage: Usage, timings: Timings) -> None:
    if (tally := _CURRENT.get()) is not None:
        tally.add(usage, timings)

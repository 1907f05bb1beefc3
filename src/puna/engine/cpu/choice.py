"""The tokens of a step: rows of logits and what each stream asks, to tokens. One call of the native library a step.

`native/choice.c` does what `sampler` specifies, with the same result to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import CDLL, addressof, create_string_buffer
from dataclasses import dataclass
from typing import TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu.history import History
from puna.engine.cpu.mask import Mask
from puna.engine.cpu.odds import coolness, uniform
from puna.engine.cpu.sampler import NOT_NUMBERS, NOTHING_LEFT, Drawn, Sampler
from puna.engine.cpu.structures import ChoiceStruct, WishesStruct
from puna.errors import EngineError

_INT32 = 2**31 - 1
_FAULTS = {1: NOT_NUMBERS, 2: NOTHING_LEFT, 3: "a token outside the vocabulary was named"}


@dataclass(slots=True)
class Draw:
    """The token after the first `length` of `history` (None: after all of it), from that row of the logits.

    Several may share a history: one for each guess that is written behind it. Of a Sampler with Mirostat there is
    one Draw a call, since its limit moves with every token.
    """

    sampler: Sampler
    row: int
    history: History
    allowed: Mask | None = None
    length: int | None = None


@dataclass(slots=True)
class Rate:
    """The log-probability of a token that is there already, and of the `top` likeliest in its place."""

    row: int
    token: int
    top: int


Outcome: TypeAlias = Drawn | EngineError


class Chooser:
    """Chooses tokens of one vocabulary, one call at a time.

    `engine`: the address of a native engine whose `threads` share the rows; None: the calling thread alone.
    """

    def __init__(self, library: CDLL, vocabulary: int, *, engine: int | None = None, threads: int = 1) -> None:
        self._choose = library.puna_choose
        self._vocabulary = vocabulary
        self._engine = engine
        room = library.puna_choose_room(vocabulary)
        if room < 0:
            raise EngineError(f"a vocabulary of {vocabulary} tokens is too large to choose from")
        self._scratch = np.empty(room * threads, np.uint8)
        self._why = create_string_buffer(200)
        self._wishes: WeakKeyDictionary[Sampler, tuple[WishesStruct, int]] = WeakKeyDictionary()
        self._slots: list[_Slot] = []
        self._array = (ChoiceStruct * 0)()

    def __call__(self, logits: NDArray[np.float32], orders: Sequence[Draw | Rate]) -> list[Outcome]:
        """What each order gets, in their sequence: a token; or an EngineError when nothing can be drawn for it.

        `logits`: [rows, vocabulary], the values of a row side by side; left as they are. EngineError when an order
        has no row, or is of another vocabulary.
        """
        if logits.dtype != np.float32 or logits.ndim != 2 or logits.strides[1] != 4 or logits.strides[0] % 4:
            raise ValueError("logits are rows of float32")
        if logits.shape[1] != self._vocabulary:
            raise ValueError(f"rows of {logits.shape[1]} logits for a vocabulary of {self._vocabulary}")
        stride = logits.strides[0] // 4 if len(logits) > 1 else self._vocabulary  # of a single row it may be anything
        slots = self._slots_for(len(orders))
        for slot, order in zip(slots, orders, strict=False):
            if isinstance(order, Rate):
                slot.rate(order)
            else:
                self._draw(slot, order)
        failed = self._choose(
            self._engine, logits.ctypes.data, len(logits), stride, self._vocabulary,
            self._array, len(orders), self._scratch.ctypes.data, self._scratch.size, self._why, len(self._why),
        )  # fmt: skip
        if failed:
            raise EngineError(f"no token can be chosen: {self._why.value.decode()}")
        return [self._outcome(slot.choice, order, slot) for slot, order in zip(slots, orders, strict=False)]

    def _slots_for(self, count: int) -> list[_Slot]:
        if count > len(self._slots):
            self._array = (ChoiceStruct * max(count, 2 * len(self._slots), 16))()
            self._slots = [_Slot(choice, self._vocabulary) for choice in self._array]
        return self._slots

    def _draw(self, slot: _Slot, order: Draw) -> None:
        choice, sampler, history = slot.choice, order.sampler, order.history
        length = len(history) if order.length is None else order.length
        if not 0 <= length <= len(history):
            raise ValueError(f"{length} of {len(history)} tokens")
        wishes, address = self._wishes.get(sampler) or self._prepared(sampler)
        choice.wishes = address
        choice.history = history.address
        choice.length = length
        choice.row = order.row
        choice.given = -1
        choice.number = 0.0 if wishes.greedy else uniform(sampler.sampling.seed, length)
        choice.limit = sampler.surprise_limit
        if order.allowed is None:
            choice.mask = None
        else:
            choice.mask, choice.mask_words = order.allowed.address, order.allowed.words.size
        slot.want(sampler.sampling.logprobs)

    def _prepared(self, sampler: Sampler) -> tuple[WishesStruct, int]:
        wishes = wishes_of(sampler)
        self._wishes[sampler] = wishes, addressof(wishes)
        return self._wishes[sampler]

    @staticmethod
    def _outcome(choice: ChoiceStruct, order: Draw | Rate, slot: _Slot) -> Outcome:
        if choice.fault:
            return EngineError(_FAULTS[choice.fault])
        if isinstance(order, Draw):
            order.sampler.surprise_limit = choice.limit
        if choice.top < 0:
            return Drawn(choice.token)
        return Drawn(choice.token, choice.logprob, slot.alternatives(choice.tops))


class _Slot:
    """A ChoiceStruct that is used again, and room for its alternatives."""

    def __init__(self, choice: ChoiceStruct, most: int) -> None:
        self.choice = choice
        self._most = most
        self._ids = np.empty(0, np.int32)
        self._logprobs = np.empty(0, np.float64)

    def want(self, top: int | None) -> None:
        choice = self.choice
        choice.top = -1 if top is None else top
        room = min(top or 0, self._most)
        if room > self._ids.size:
            self._ids, self._logprobs = np.empty(room, np.int32), np.empty(room, np.float64)
            choice.top_ids, choice.top_logprobs = self._ids.ctypes.data, self._logprobs.ctypes.data

    def rate(self, order: Rate) -> None:
        if order.token < 0:
            raise ValueError("a token below 0")
        self.choice.row, self.choice.given = order.row, order.token
        self.want(order.top)

    def alternatives(self, count: int) -> tuple[tuple[int, float], ...]:
        return tuple(zip(self._ids[:count].tolist(), self._logprobs[:count].tolist(), strict=True))


def wishes_of(sampler: Sampler) -> WishesStruct:
    """As the library reads them. It points into the sampler's arrays, which must outlive it."""
    sampling = sampler.sampling
    return WishesStruct(
        typical=sampling.typical_p,
        nucleus=sampling.top_p,
        tau=sampling.mirostat_tau,
        eta=sampling.mirostat_eta,
        bias_ids=sampler.bias_ids.ctypes.data,
        bias=sampler.bias.ctypes.data,
        banned=sampler.banned.ctypes.data,
        biases=sampler.bias_ids.size,
        bans=sampler.banned.size,
        coolness=coolness(sampling.temperature),
        deepest=sampler.deepest,
        repeat=sampling.repeat_penalty,
        frequency=sampling.frequency_penalty,
        presence=sampling.presence_penalty,
        last=max(-1, min(sampling.repeat_last_n, _INT32)),
        top_k=max(0, min(sampling.top_k, _INT32)),
        mirostat=sampling.mirostat,
        greedy=sampling.temperature <= 0,
    )

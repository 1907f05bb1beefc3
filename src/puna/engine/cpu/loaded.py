"""A model loaded into this process: forward, tokenizer and cache, and its words for what the loop tells."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import puna
from puna.engine.cpu.cache import Cache, capacity_for
from puna.engine.cpu.check import check_numbers
from puna.engine.cpu.disk import Disk
from puna.engine.cpu.forward import Forward
from puna.engine.cpu.library import variant
from puna.engine.cpu.lists import ByteTexts
from puna.engine.cpu.loop import Census, LoopLimits, Settled
from puna.engine.cpu.pace import Pace
from puna.engine.cpu.plan import SMALLEST
from puna.engine.cpu.profile import BITS, MOST_ROWS
from puna.engine.cpu.protocol import Hello, Load, ReplyBody
from puna.engine.cpu.sampler import Drawn
from puna.engine.cpu.stream import Scored, StreamEvent
from puna.engine.cpu.tokenizer import Tokenizer
from puna.engine.deposit import Deposit, DepositError, kind_of
from puna.engine.runner import Token
from puna.errors import InvalidRequest
from puna.model.shards import read_whole
from puna.types import Candidate

if TYPE_CHECKING:
    from puna.engine.cpu.constraint import Grammars


@dataclass(frozen=True, slots=True)
class ModelParts:
    """All that a loop needs of a loaded model. `pieces`: each token's bytes."""

    model: Forward
    tokenizer: Tokenizer
    cache: Cache
    limits: LoopLimits
    pace: Pace
    pieces: ByteTexts
    hello: Hello
    disk: Disk | None = None

    def encode(self, text: str, *, special: bool, bos: bool) -> list[int]:
        return self.tokenizer.encode(text, special=special, bos=bos)

    def detokenize(self, tokens: tuple[int, ...]) -> bytes:
        """InvalidRequest for a token that is not there."""
        unknown = [token for token in tokens if not 0 <= token < self.tokenizer.vocabulary]
        if unknown:
            raise InvalidRequest(f"there is no token {unknown[0]}", param="tokens")
        return self.tokenizer.detokenize(tokens)

    def grammars(self) -> Grammars:
        """Made anew, with the library that it needs: many servers never get a grammar."""
        from puna.engine.cpu.constraint import Grammars, TokenTable

        return Grammars(TokenTable(self.pieces, self.tokenizer.control, self.tokenizer.eos))

    def answer(self, event: StreamEvent | Census | Settled) -> ReplyBody:
        """What the loop told, in the words of the protocol."""
        match event:
            case Drawn(token, logprob, top):
                return Token(token, self._shown(token), logprob, self._candidates(top))
            case Scored(tokens):
                return [(drawn.logprob or 0.0, self._candidates(drawn.top)) for drawn in tokens]
            case Census(running, waiting, open_, capacity, numbers):
                return [running, waiting, open_, capacity, *numbers]
            case Settled():
                return []
            case _:
                return event

    def _candidates(self, top: tuple[tuple[int, float], ...]) -> tuple[Candidate, ...]:
        return tuple(Candidate(token, self._shown(token), logprob) for token, logprob in top)

    def _shown(self, token: int) -> bytes:
        """As an answer shows it."""
        return b"" if token in self.tokenizer.control else self.pieces[token]


def load(order: Load) -> ModelParts:
    """Load, make room, and compute a first step. LoadFailed or ModelFileError says why that is not possible."""
    files = [Path(path) for path in (order.weights, *order.shards)]
    header = read_whole(files, arrays=True)
    with ThreadPoolExecutor(1, "words") as beside:  # packing leaves the interpreter's lock alone
        reading = beside.submit(Tokenizer, header)
        model = Forward(
            files,
            header,
            threads=order.threads or cores(),
            num_ctx=order.num_ctx,
            most_rows=max(MOST_ROWS, order.slots + SMALLEST),
            cache_type=order.cache_type,
        )
        tokenizer = reading.result()
    size, states = model.block_size, order.slots if model.bytes_per_state else 0
    free = psutil.virtual_memory().available - states * model.bytes_per_state
    left = free
    if order.memory:
        left = min(left, order.memory - psutil.Process().memory_info().rss - states * model.bytes_per_state)
    blocks = capacity_for(
        order.num_ctx,
        order.slots,
        block_size=size,
        bytes_per_block=model.bytes_per_block,
        left=left,
        free=free,
        most=order.cache_memory,
    )
    model.allocate(blocks, states)
    check_numbers(model)
    disk, trouble = _disk(order, model)
    return ModelParts(
        model=model,
        tokenizer=tokenizer,
        cache=Cache(blocks, size),
        limits=LoopLimits(
            order.num_ctx,
            order.slots,
            model.vocabulary,
            frozenset(tokenizer.eos),
            speculation=order.speculation,
            stateful=bool(states),
        ),
        pace=Pace(order.step_tokens and min(order.step_tokens, MOST_ROWS)),  # more would be slower, and take memory
        pieces=tokenizer.pieces.filled(model.vocabulary),
        hello=Hello(
            version=variant(),
            vocabulary=model.vocabulary,
            bos=tokenizer.bos,
            eos=tuple(tokenizer.eos),
            add_bos=tokenizer.add_bos,
            embedding_length=header.embedding_length or 0,
            cache_tokens=blocks * size,
            memory=psutil.Process().memory_info().rss,
            markup=tokenizer.markup,
            trouble=trouble,
        ),
        disk=disk,
    )


def _disk(order: Load, model: Forward) -> tuple[Disk | None, str]:
    """What is on the disk of its cache; or None, and why, if there was to be something."""
    if not order.persists:
        return None, ""
    kind = kind_of((puna.__version__, BITS, order.content, *model.identity()))
    try:
        return Disk(Deposit(Path(order.cache_dir), kind, order.cache_disk)), ""
    except DepositError as error:
        return None, str(error)


def cores() -> int:
    """Cores that this process may use: a second thread on a core adds nothing where all do the same."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))

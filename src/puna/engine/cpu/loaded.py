"""A model loaded into this process: forward, tokenizer, cache and grammars, and its words for what the loop tells."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from puna.engine.cpu.cache import Cache, capacity_for
from puna.engine.cpu.check import check_numbers
from puna.engine.cpu.constraint import Grammars, TokenTable
from puna.engine.cpu.forward import Forward
from puna.engine.cpu.library import variant
from puna.engine.cpu.loop import Census, LoopLimits
from puna.engine.cpu.pace import Pace
from puna.engine.cpu.plan import SMALLEST
from puna.engine.cpu.profile import MOST_ROWS
from puna.engine.cpu.protocol import Hello, Load, ReplyBody
from puna.engine.cpu.sampler import Drawn
from puna.engine.cpu.stream import Scored, StreamEvent
from puna.engine.cpu.tokenizer import Tokenizer
from puna.engine.runner import Token
from puna.errors import InvalidRequest
from puna.model.gguf import Header
from puna.model.shards import read_whole
from puna.types import Candidate


@dataclass(frozen=True, slots=True)
class ModelParts:
    """All that a loop needs of a loaded model.

    `shown`: each token's bytes as an answer shows them, empty for control tokens.
    """

    model: Forward
    tokenizer: Tokenizer
    cache: Cache
    limits: LoopLimits
    grammars: Grammars
    pace: Pace
    shown: tuple[bytes, ...]
    hello: Hello

    def encode(self, text: str, *, special: bool, bos: bool) -> list[int]:
        return self.tokenizer.encode(text, special=special, bos=bos)

    def detokenize(self, tokens: tuple[int, ...]) -> bytes:
        """InvalidRequest for a token that is not there."""
        unknown = [token for token in tokens if not 0 <= token < self.tokenizer.vocabulary]
        if unknown:
            raise InvalidRequest(f"there is no token {unknown[0]}", param="tokens")
        return self.tokenizer.detokenize(tokens)

    def answer(self, event: StreamEvent | Census) -> ReplyBody:
        """What the loop told, in the words of the protocol."""
        match event:
            case Drawn(token, logprob, top):
                return Token(token, self.shown[token], logprob, self._candidates(top))
            case Scored(tokens):
                return [(drawn.logprob or 0.0, self._candidates(drawn.top)) for drawn in tokens]
            case Census(running, waiting, open_, capacity):
                return [running, waiting, open_, capacity]
            case _:
                return event

    def _candidates(self, top: tuple[tuple[int, float], ...]) -> tuple[Candidate, ...]:
        return tuple(Candidate(token, self.shown[token], logprob) for token, logprob in top)


def load(order: Load) -> ModelParts:
    """Load, make room, and compute a first step. LoadFailed or ModelFileError says why that is not possible."""
    files = [Path(path) for path in (order.weights, *order.shards)]
    header = read_whole(files, arrays=True)
    with ThreadPoolExecutor(1, "words") as beside:  # packing leaves the interpreter's lock alone
        reading = beside.submit(_read_words, header)
        model = Forward(
            files,
            header,
            threads=order.threads or cores(),
            num_ctx=order.num_ctx,
            most_rows=max(MOST_ROWS, order.slots + SMALLEST),
            cache_type=order.cache_type,
        )
        words = reading.result()
    left = psutil.virtual_memory().available
    if order.memory:
        left = min(left, order.memory - psutil.Process().memory_info().rss)
    size = model.block_size
    blocks = capacity_for(order.num_ctx, order.slots, block_size=size, bytes_per_block=model.bytes_per_block, left=left)
    model.allocate(blocks)
    check_numbers(model)
    tokenizer, control = words.tokenizer, words.control
    pieces = words.pieces + [b""] * max(model.vocabulary - tokenizer.vocabulary, 0)
    return ModelParts(
        model=model,
        tokenizer=tokenizer,
        cache=Cache(blocks, size),
        limits=LoopLimits(
            order.num_ctx, order.slots, model.vocabulary, frozenset(tokenizer.eos), speculation=order.speculation
        ),
        grammars=Grammars(TokenTable(pieces, control, tokenizer.eos)),
        pace=Pace(order.step_tokens and min(order.step_tokens, MOST_ROWS)),  # more would be slower, and take memory
        shown=tuple(b"" if token in control else piece for token, piece in enumerate(pieces)),
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
        ),
    )


@dataclass(frozen=True, slots=True)
class _Words:
    """What a model file says of its tokens."""

    tokenizer: Tokenizer
    pieces: list[bytes]
    control: frozenset[int]


def _read_words(header: Header) -> _Words:
    tokenizer = Tokenizer(header)
    return _Words(tokenizer, tokenizer.pieces, tokenizer.control)


def cores() -> int:
    """Cores that this process may use: a second thread on a core adds nothing where all do the same."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))

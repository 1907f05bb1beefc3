"""The arrays that one step hands to the model. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu.cache import blocks_for
from puna.engine.cpu.choice import Draw, Outcome, Rate
from puna.engine.cpu.plan import Span
from puna.engine.cpu.stream import Stream


class ForwardPass(Protocol):
    """Tokens to logits, and logits to tokens; `puna.engine.cpu.forward.Forward` is one.

    Sequence i of a step has the tokens `ids[begins[i]:begins[i + 1]]`, after `past[i]` that are in the cache, in the
    blocks `blocks[block_begins[i]:block_begins[i + 1]]`. The result holds one row of logits for each of `rows` (places
    in `ids`), and is valid until the next call. A row's bytes depend on its tokens and those before them, and on
    nothing else.

    `states` [3, sequences]: of sequences that have one, its number, how many tokens it has absorbed, and how many it is
    to have absorbed after the step.
    """

    def __call__(
        self,
        ids: NDArray[np.int32],
        past: NDArray[np.int32],
        begins: NDArray[np.int32],
        blocks: NDArray[np.int32],
        block_begins: NDArray[np.int32],
        rows: NDArray[np.int32],
        states: NDArray[np.int32] | None = None,
    ) -> NDArray[np.float32]: ...

    def copy(self, source: int, target: int) -> None:
        """Let block `target` hold what block `source` does."""
        ...

    def block(self, number: int) -> memoryview:
        """The bytes of a block, to be read or filled."""
        ...

    def choose(self, logits: NDArray[np.float32], orders: Sequence[Draw | Rate]) -> list[Outcome]:
        """What each order asks of its row."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """`ForwardPass`'s arguments. `wanted`: for each span, where its rows begin in the result, and how many they are."""

    ids: NDArray[np.int32]
    past: NDArray[np.int32]
    begins: NDArray[np.int32]
    blocks: NDArray[np.int32]
    block_begins: NDArray[np.int32]
    rows: NDArray[np.int32]
    states: NDArray[np.int32] | None
    wanted: tuple[tuple[int, int], ...]

    def run(self, model: ForwardPass) -> NDArray[np.float32]:
        return model(self.ids, self.past, self.begins, self.blocks, self.block_begins, self.rows, self.states)


def batch(spans: Sequence[Span], streams: Sequence[Stream], block_size: int) -> Batch:
    """The spans of a plan, one after the other.

    An answer wants the row of its last token and of each guess, a scoring every row.
    """
    ids, past, begins = array("i"), array("i"), array("i", [0])
    blocks, block_begins, rows = array("i"), array("i", [0]), array("i")
    wanted: list[tuple[int, int]] = []
    for span in spans:
        stream, end = streams[span.index], span.start + span.count
        ids.extend(stream.tokens[span.start : end])
        ids.extend(span.guesses)
        past.append(span.start)
        begins.append(len(ids))
        blocks.extend(stream.table.blocks[: blocks_for(span.end, block_size)])
        block_begins.append(len(blocks))
        answered = 1 + len(span.guesses) if end == len(stream.tokens) else 0
        count = span.count if stream.scored else answered
        wanted.append((len(rows), count))
        rows.extend(range(len(ids) - count, len(ids)))
    return Batch(
        ids=np.frombuffer(ids, np.int32),
        past=np.frombuffer(past, np.int32),
        begins=np.frombuffer(begins, np.int32),
        blocks=np.frombuffer(blocks, np.int32),
        block_begins=np.frombuffer(block_begins, np.int32),
        rows=np.frombuffer(rows, np.int32) if rows else np.zeros(0, np.int32),
        states=_states(spans, streams),
        wanted=tuple(wanted),
    )


def _states(spans: Sequence[Span], streams: Sequence[Stream]) -> NDArray[np.int32] | None:
    """All tokens that are certain are absorbed, and no guess. What has absorbed too many begins anew."""
    found = []
    for span in spans:
        holding = streams[span.index].holding
        if holding is None:
            return None
        absorbed, keep = holding.absorbed, span.start + span.count
        found.append((holding.number, absorbed if absorbed <= span.start else 0, keep))
        holding.absorbed = keep
    return np.ascontiguousarray(np.array(found, np.int32).T)

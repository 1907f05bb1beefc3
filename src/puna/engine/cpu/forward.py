"""Forward: token ids of many sequences in, logits of the asked rows out, one call of the native library a step.

Knows no requests. A row's bytes depend on its own sequence alone: not on company, on how a prompt was cut, on threads
or on the processor's instructions. So whole blocks of any sequence may be shared, a prompt's as an answer's.
"""

from __future__ import annotations

import ctypes
import itertools
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu import library, structures, supported
from puna.engine.cpu.assembly import Assembly, assemble
from puna.engine.cpu.choice import Chooser, Draw, Outcome, Rate
from puna.engine.cpu.memory import room
from puna.engine.cpu.packing import TILE
from puna.engine.cpu.profile import MOST_ROWS
from puna.engine.cpu.reader import Tensors
from puna.engine.cpu.shape import LayerKind, read_shape
from puna.engine.cpu.structures import CACHE_TYPES, MOST_THREADS, StepStruct
from puna.errors import LoadFailed
from puna.model.gguf import Header

Whole = Sequence[int] | NDArray[np.int32]

BLOCK_SIZE = 32
"""Tokens of one block of keys and values; the library's."""

_WORDS = 512
"""Bytes that the library has to say what is wrong."""


class Forward:
    """One loaded model. Not safe to use from two threads at once."""

    def __init__(
        self,
        files: Path | Sequence[Path],
        header: Header,
        *,
        threads: int,
        num_ctx: int = 0,
        most_rows: int = MOST_ROWS,
        cache_type: str = "f16",
    ) -> None:
        """`files`: the model's, or all of them where it has shards; `header`: of them all.

        `num_ctx`: the longest a sequence will become, 0: the model's own context. `most_rows`: tokens of one step.

        `cache_type`: what keys and values are kept as, a name of CACHE_TYPES.

        Raises LoadFailed, or ModelFileError for a file that lacks something.
        """
        reason = supported.why_not(header.architecture, {t.type.name for t in header.tensors}, header.metadata)
        if reason is not None:
            raise LoadFailed(reason)
        self._library = library.load()
        structures.check(self._library)
        self._shape = read_shape(header)
        self._threads = max(1, min(threads, MOST_THREADS))
        tensors = Tensors([files] if isinstance(files, Path) else files, header)
        self._assembly: Assembly = assemble(self._library, self._shape, tensors, num_ctx=num_ctx, threads=self._threads)
        tensors.let_go()  # all but the rows of embeddings was packed elsewhere
        model = self._assembly.model
        model.most_rows, model.cache_type = most_rows, CACHE_TYPES[cache_type]
        self._layer_blocks = self._sizes_of_blocks()
        linear = self._shape.linear
        self._layer_state: int = self._library.puna_state_bytes(linear.values, linear.size) if linear else 0
        self._vocabulary = int(model.vocabulary)
        self._stride = self._vocabulary + -self._vocabulary % TILE
        self._step = StepStruct()
        self._step_at = ctypes.addressof(self._step)
        self._why = ctypes.create_string_buffer(_WORDS)
        self._logits = np.empty((0, self._stride), np.float32)
        self._cache: NDArray[np.uint8] | None = None
        self._states: NDArray[np.uint8] | None = None
        self._engine: int | None = None
        self._chooser: Chooser | None = None
        self._end: weakref.finalize[..., Forward] | None = None

    @property
    def block_size(self) -> int:
        """Tokens of one block."""
        return BLOCK_SIZE

    @property
    def vocabulary(self) -> int:
        """Logits in a row."""
        return self._vocabulary

    @property
    def context(self) -> int:
        """Tokens of the longest sequence."""
        return int(self._assembly.model.context)

    @property
    def hidden(self) -> int:
        return self._shape.hidden

    @property
    def bytes_per_block(self) -> int:
        """Bytes of one block over all layers."""
        return sum(self._layer_blocks)

    def _sizes_of_blocks(self) -> list[int]:
        """Bytes of a block in each layer, 0 in one that reads another's."""
        library, cache_type, linear = self._library, self._assembly.model.cache_type, self._shape.linear
        sizes: list[int] = []
        for number, layer in enumerate(self._shape.layers):
            if layer.keys_of != number:
                sizes.append(0)
            elif layer.kind is LayerKind.CONVOLUTION:
                sizes.append(library.puna_convolution_bytes(self._shape.hidden))
            elif layer.kind is LayerKind.LINEAR:
                assert linear is not None
                sizes.append(library.puna_delta_bytes(linear.keys, linear.values, linear.size))
            else:
                sizes.append(library.puna_block_bytes(cache_type, layer.kv_heads, layer.head_size))
        return sizes

    @property
    def bytes_per_state(self) -> int:
        """Bytes of what a sequence may have beside its blocks, over all layers; 0: this model has no states."""
        return len(self._assembly.deltas) * self._layer_state

    def allocate(self, n_blocks: int, n_states: int = 0) -> None:
        """Blocks 0 … n_blocks-1 and states 0 … n_states-1 for the caller, empty. LoadFailed where memory is short."""
        self.close()
        stride, assembly = self.bytes_per_block, self._assembly
        try:
            # All layers of a block lie together: so a block that is first used takes one piece of the system's memory.
            cache = self._cache = room(n_blocks * stride)
            states = self._states = room(n_states * self.bytes_per_state)
        except MemoryError as error:
            raise LoadFailed(f"there is no memory for a cache of {n_blocks * BLOCK_SIZE} tokens") from error
        for number, delta in enumerate(assembly.deltas):
            begin = number * self._layer_state
            delta.states, delta.states_bytes = states.ctypes.data + begin, states.nbytes - begin
            delta.states_stride = self.bytes_per_state
        assembly.model.states = n_states if assembly.deltas else 0
        begins = list(itertools.accumulate(self._layer_blocks, initial=0))
        for layer, shape in zip(assembly.layers, self._shape.layers, strict=True):
            begin = begins[shape.keys_of]
            layer.cache, layer.cache_bytes, layer.cache_stride = cache.ctypes.data + begin, cache.nbytes - begin, stride
        assembly.model.blocks = n_blocks
        self._engine = self._library.puna_create(
            ctypes.addressof(assembly.model), self._threads, self._why, len(self._why)
        )
        if not self._engine:
            raise LoadFailed(f"the cpu engine cannot run this model: {self._reason()}")
        self._end = weakref.finalize(self, self._library.puna_destroy, self._engine)
        self._chooser = Chooser(self._library, self._vocabulary, engine=self._engine, threads=self._threads)

    def close(self) -> None:
        """End the library's threads and give the cache back. `allocate` makes both anew."""
        if self._end is not None:
            self._end()
        self._engine, self._chooser, self._end = None, None, None
        self._cache = self._states = None

    def __call__(
        self,
        ids: Whole,
        past: Whole,
        begins: Whole,
        blocks: Whole,
        block_begins: Whole,
        rows: Whole,
        states: NDArray[np.int32] | None = None,
    ) -> NDArray[np.float32]:
        """Logits [len(rows), vocabulary] of the tokens at `rows`. They stay valid until the next call.

        Sequence i has the tokens `begins[i]` … `begins[i+1]` of `ids`; `past[i]` tokens of it are in the cache, and its
        blocks, those to be written among them, are `block_begins[i]` … of `blocks`. ValueError for what does not go
        together.

        `states` [3, sequences], of a model that has them: the state that each sequence has to itself, or -1; how many
        of its tokens that has absorbed, no more than are in the cache; and how many it is to have absorbed after this
        step. What it has not absorbed it does now, so they change no byte of the result, only how long it takes.
        """
        ids, past, begins, blocks, block_begins, rows = (
            _prepared(ids), _prepared(past), _prepared(begins), _prepared(blocks), _prepared(block_begins),
            _prepared(rows),
        )  # fmt: skip
        count, wanted = len(past), len(rows)
        if self._engine is None:
            raise ValueError("there is no cache: it is to be allocated first")
        if (
            len(begins) != count + 1
            or len(block_begins) != count + 1
            or begins[count] != len(ids)
            or block_begins[count] != len(blocks)
        ):
            raise ValueError("the tokens or the blocks of a step are not those of its sequences")
        if wanted > len(self._logits):
            self._logits = self._more_logits(wanted)
        step = self._step
        step.rows, step.sequences, step.wanted = len(ids), count, wanted
        step.ids, step.past, step.begins = _address(ids), _address(past), _address(begins)
        step.blocks, step.block_begins, step.want = _address(blocks), _address(block_begins), _address(rows)
        if states is not None and states.shape != (3, count):
            raise ValueError("the states of a step are not those of its sequences")
        told = [None] * 3 if states is None else [_address(row) for row in states]
        step.state, step.absorbed, step.keep = told
        if self._library.puna_step(self._engine, self._step_at, self._why, _WORDS):
            raise ValueError(f"a step that the native library does not take: {self._reason()}")
        return self._logits[:wanted, : self._vocabulary]

    def copy(self, source: int, target: int) -> None:
        """Let block `target` of the cache hold the keys and values that block `source` does."""
        if self._cache is None:
            raise ValueError("there is no cache: it is to be allocated first")
        blocks = self._cache.reshape(-1, self.bytes_per_block)
        blocks[target] = blocks[source]

    def block(self, number: int) -> memoryview:
        """The bytes of block `number` of the cache, of all its layers, where they are. ValueError as of `copy`."""
        if self._cache is None:
            raise ValueError("there is no cache: it is to be allocated first")
        begin = number * self.bytes_per_block
        return self._cache[begin : begin + self.bytes_per_block].data

    def identity(self) -> tuple[object, ...]:
        """All that decides, beside the model's files, which bytes a block of some tokens holds."""
        model = self._assembly.model
        ropes = [model.rope[number] for number in range(model.ropes)]
        turns = tuple((ctypes.string_at(one.speeds, 4 * one.pairs).hex(), one.magnitude) for one in ropes)
        return (library.digest(), model.cache_type, tuple(self._layer_blocks), turns)

    def choose(self, logits: NDArray[np.float32], orders: Sequence[Draw | Rate]) -> list[Outcome]:
        """A token of each order's row, by the threads that computed the rows. Errors as of Chooser."""
        if self._chooser is None:
            raise ValueError("there are no threads: a cache is to be allocated first")
        return self._chooser(logits, orders)

    def _more_logits(self, rows: int) -> NDArray[np.float32]:
        """Room for twice as many as before, or for `rows`."""
        rows = max(rows, 2 * len(self._logits))
        logits = room(rows * self._stride * 4).view(np.float32).reshape(rows, self._stride)
        self._step.logits = _address(logits)
        return logits

    def _reason(self) -> str:
        return self._why.value.decode("utf-8", "replace") or "it does not say why"


def _prepared(values: Whole) -> NDArray[np.int32]:
    """As the library takes it; an array that is so already is not copied."""
    return np.ascontiguousarray(values, np.int32)


def _address(array: NDArray[np.generic]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address

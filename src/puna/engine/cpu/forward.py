"""Forward: token ids of many sequences in, logits of the asked rows out. Owns compile settings and padding.

Knows no requests. The rules that keep a row's bytes the same in any company (all measured):

1. The number of rows chooses the kernel of a multiplication: one row has its own. So a step is padded to two rows,
   and further to few different numbers of rows (see _ROWS_TOGETHER).
2. A prompt's last chunk must not be a single token: it would take decoding's attention kernel. The caller's to keep.
3. Except in `exact` mode the cache is kept in bytes, and an open block is quantised again at each write: chunks of a
   prompt end on block edges. The caller's to keep.
4. Only blocks of prompts may be shared: decoded keys and values differ in bytes. The caller's to keep.
5. Precision is float32 with integer dynamic quantisation; `exact` switches that off too. Half precision gives NaN.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from puna.engine.cpu import supported, unpacked, weights
from puna.engine.cpu.graph import BLOCK_SIZE, STEP_INPUTS, Graph
from puna.engine.cpu.reader import Tensors
from puna.engine.cpu.runtime import ov
from puna.engine.cpu.shape import Dimensions, read_shape
from puna.errors import LoadFailed
from puna.model.gguf import Header

Whole = Sequence[int] | NDArray[np.int32]

_MIN_ROWS = 2
_ANY_ROWS = 32
_ROWS_TOGETHER = 16
"""A step of more than _ANY_ROWS rows is padded to a multiple of this: for every number of rows that it meets, the
runtime makes kernels, which takes 10 to 20 ms once and half a megabyte for ever."""
_ALIGNMENT = 64


class Forward:
    """One loaded model. Not safe to use from two threads at once."""

    def __init__(
        self,
        model_path: Path,
        header: Header,
        *,
        exact: bool = False,
        threads: int | None = None,
        cache_dir: Path | None = None,
        num_ctx: int = 0,
    ) -> None:
        """`threads` None: the runtime chooses. `cache_dir`: where unpacked weights are kept, None: in memory only.

        `num_ctx`: the longest a sequence will become; some models turn differently beyond their first context.
        Raises LoadFailed, or ModelFileError for a file that lacks something.
        """
        reason = supported.why_not(header.architecture, {t.type.name for t in header.tensors})
        if reason is not None:
            raise LoadFailed(reason)
        self._shape = read_shape(header)
        tensors = Tensors(model_path, header)
        workers = threads or os.cpu_count() or 1
        wanted = unpacked.bundles(header)
        order = _row_order(self._shape)
        linears = unpacked.load(
            cache_dir,
            unpacked.cache_key(model_path, header, exact=exact, engine=ov.__version__),
            wanted,
            lambda bundle: unpacked.unpack(bundle, tensors, order, exact=exact),
            threads=workers,
        )
        graph = Graph(self._shape, tensors, wanted, linears, order=order, num_ctx=num_ctx)
        family = supported.FAMILIES[header.architecture].module
        build = importlib.import_module(f"puna.engine.cpu.families.{family}").build
        model = graph.finish(build(graph))
        compiled = ov.Core().compile_model(model, "CPU", _settings(exact, threads))
        self._request = compiled.create_infer_request()
        self._caches = [port for port in compiled.inputs if "_cache." in port.get_any_name()]
        self._held: list[Any] = []
        self._scratch = 0
        self._linears = linears
        self._constants = graph.constants  # the compiled model lies over them; the graph itself is done with
        self._embedding = tensors.rows("token_embd.weight")
        self._embedding_type = tensors.kind("token_embd.weight")

    @property
    def block_size(self) -> int:
        """Tokens of one block."""
        return BLOCK_SIZE

    @property
    def vocabulary(self) -> int:
        """Logits in a row."""
        return len(self._embedding)

    @property
    def hidden(self) -> int:
        return self._shape.hidden

    @property
    def bytes_per_block(self) -> int:
        """Bytes of one block over all layers."""
        return sum(math.prod(_cache_sizes(port, 1)) * port.element_type.bitwidth // 8 for port in self._caches)

    def allocate(self, n_blocks: int) -> None:
        """Blocks 0 … n_blocks-1 for the caller, empty. One more is kept for padding.

        Takes the first step, in which the runtime packs its weights once more. LoadFailed if that gives no numbers.
        """
        self._held = []
        for port in self._caches:
            room = _zeros(_cache_sizes(port, n_blocks + 1), port.element_type.to_dtype())
            tensor = ov.Tensor(room, shared_memory=True)
            self._request.set_tensor(port, tensor)
            self._held += [room, tensor]
        self._scratch = n_blocks
        if not np.isfinite(self([0, 0], [0, 1], [0], [0, 2], [n_blocks], [0, 1], [0, 1])).all():
            raise LoadFailed("the model's first step gave logits that are no numbers")
        unpacked.let_go(self._linears)

    def __call__(
        self,
        ids: Whole,
        positions: Whole,
        past: Whole,
        begins: Whole,
        blocks: Whole,
        block_begins: Whole,
        rows: Whole,
    ) -> NDArray[np.float32]:
        """Logits [len(rows), vocabulary] of the tokens at `rows`. They stay valid until the next call.

        Sequence i has the tokens `begins[i]` … `begins[i+1]` of `ids`, at their `positions`; `past[i]` tokens of it are
        in the cache, and its blocks, those to be written among them, are `block_begins[i]` … of `blocks`.
        """
        ids, positions, past, begins, blocks, block_begins, wanted = (
            np.asarray(values, np.int32) for values in (ids, positions, past, begins, blocks, block_begins, rows)
        )
        padding = _padding(len(ids))
        longest = max(int((past + np.diff(begins)).max()), padding)
        if padding:  # one more sequence, in a block of its own
            ids, positions = np.append(ids, np.zeros(padding, np.int32)), np.append(positions, _whole(range(padding)))
            past, begins = np.append(past, _whole([0])), np.append(begins, _whole([len(ids)]))
            blocks, block_begins = (
                np.append(blocks, _whole([self._scratch])),
                np.append(block_begins, _whole([len(blocks) + 1])),
            )
        wanted = np.append(wanted, np.zeros(_padding(len(wanted)), np.int32))
        request = self._request
        request.set_tensor("embeddings", ov.Tensor(self._embed(ids)))
        request.set_tensor("positions", ov.Tensor(positions))
        for name, values in zip(STEP_INPUTS, (past, begins, blocks, block_begins), strict=True):
            request.set_tensor(name, ov.Tensor(values))
        request.set_tensor("longest", ov.Tensor(np.array(longest, np.int32)))
        request.set_tensor("rows", ov.Tensor(wanted))
        request.infer()
        logits: NDArray[np.float32] = request.get_tensor("logits").data
        return logits[: len(rows)]

    def _embed(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        return np.ascontiguousarray(weights.values(self._embedding_type, self._embedding[ids]))


def _padding(rows: int) -> int:
    """How many rows are put to so many."""
    if rows <= _ANY_ROWS:
        return max(_MIN_ROWS - rows, 0)
    return -rows % _ROWS_TOGETHER


def _whole(values: Iterable[int]) -> NDArray[np.int32]:
    return np.fromiter(values, np.int32)


def _cache_sizes(port: Any, count: int) -> list[int]:
    """The sizes of a cache of `count` blocks."""
    return [count, *(dimension.get_length() for dimension in list(port.partial_shape)[1:])]


def _zeros(sizes: list[int], kind: np.dtype[Any]) -> NDArray[Any]:
    """Zeros from the edge of a cache line on. The system gives the memory for them when they are first written."""
    size = math.prod(sizes) * kind.itemsize
    raw = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(kind).reshape(sizes)


def _settings(exact: bool, threads: int | None) -> dict[str, object]:
    settings: dict[str, object] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    if exact:
        settings |= {"KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    return settings


def _row_order(shape: Dimensions) -> unpacked.RowOrder:
    """Rows of queries and keys so that the halves of rotary pairs lie apart, as the graph rotates them."""
    heads_of = {"attn_q": shape.heads, "attn_k": shape.kv_heads}
    interleaved = supported.FAMILIES[shape.architecture].rotary is supported.Rotary.INTERLEAVED

    def order(name: str) -> NDArray[np.intp] | None:
        heads = heads_of.get(name.split(".")[-2])
        if heads is None or not interleaved:
            return None
        rows = np.arange(heads * shape.head_size, dtype=np.intp).reshape(heads, shape.head_size // 2, 2)
        return np.swapaxes(rows, 1, 2).reshape(-1)

    return order

"""What llama.cpp itself makes of a model file: logits, token ids, quantised tensors. Run as a process of its own.

Reads JSON jobs from standard input, one a line, answers each with one, and writes arrays with NumPy; the library is the
one inside the engine's package, spoken to over its C interface, since its door for Python gives no logits of a whole
prompt.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

_HEAD = (512, 2048, 512, 1)
"""Defaults of n_ctx, n_batch, n_ubatch and n_seq_max: known, so a change of the structure is noticed."""
_THREADS = (7, 8)
"""Places of n_threads and n_threads_batch."""
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Threads of its wait for each other at work: two on one core take several times what one does."""


class _ModelParameters(ctypes.Structure):
    """Larger than the library's own, which is passed by value as the last argument and read from its start."""

    _fields_ = (("raw", ctypes.c_byte * 256),)


class _ContextParameters(ctypes.Structure):
    _fields_ = (("head", ctypes.c_uint32 * 10), ("raw", ctypes.c_byte * 216))


class _Batch(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_int32),
        ("tokens", ctypes.POINTER(ctypes.c_int32)),
        ("embeddings", ctypes.c_void_p),
        ("positions", ctypes.POINTER(ctypes.c_int32)),
        ("sequence_counts", ctypes.POINTER(ctypes.c_int32)),
        ("sequences", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("wanted", ctypes.POINTER(ctypes.c_int8)),
    )


_Log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class Native:
    """One model file, loaded."""

    def __init__(self, library: ctypes.CDLL, path: str, *, tokens: int) -> None:
        self._library = library
        parameters = library.llama_model_default_params()
        self._model = library.llama_model_load_from_file(path.encode(), parameters)
        if not self._model:
            raise SystemExit(f"llama.cpp does not load {path}")
        context = library.llama_context_default_params()
        if tuple(context.head[: len(_HEAD)]) != _HEAD:
            raise SystemExit("llama.cpp's parameters are laid out in another way")
        context.head[0] = max(tokens, 64)
        for place in _THREADS:
            context.head[place] = _CORES
        self._context = library.llama_init_from_model(self._model, context)
        self._vocabulary = library.llama_model_get_vocab(self._model)
        self._count = library.llama_vocab_n_tokens(self._vocabulary)

    def close(self) -> None:
        self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)

    def logits(self, ids: list[int], at_once: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """[len(ids), vocabulary], `at_once` tokens in a batch, 512 at most."""
        rows = []
        for start in range(0, len(ids), at_once):
            chunk = ids[start : start + at_once]
            batch = self._library.llama_batch_init(len(chunk), 0, 1)
            batch.count = len(chunk)
            for place, token in enumerate(chunk):
                batch.tokens[place], batch.positions[place] = token, start + place
                batch.sequence_counts[place], batch.sequences[place][0], batch.wanted[place] = 1, 0, 1
            if self._library.llama_decode(self._context, batch) != 0:
                raise SystemExit("llama.cpp does not decode")
            pointer = self._library.llama_get_logits(self._context)
            rows.append(np.ctypeslib.as_array(pointer, (len(chunk), self._count)).copy())
            self._library.llama_batch_free(batch)
        return np.concatenate(rows)

    def encode(self, text: str, *, bos: bool, special: bool) -> list[int]:
        data = text.encode()
        buffer = (ctypes.c_int32 * (len(data) * 2 + 16))()
        count = self._library.llama_tokenize(self._vocabulary, data, len(data), buffer, len(buffer), bos, special)
        return list(buffer[:count])

    def pieces(self) -> list[str]:
        """Every token's bytes, as hexadecimal text."""
        buffer = ctypes.create_string_buffer(4096)
        size = len(buffer)
        tokens = range(self._count)
        counts = (self._library.llama_token_to_piece(self._vocabulary, i, buffer, size, 0, True) for i in tokens)
        return [buffer.raw[:count].hex() for count in counts]

    def ends(self) -> list[int]:
        return [token for token in range(self._count) if self._library.llama_vocab_is_eog(self._vocabulary, token)]


def open_library() -> ctypes.CDLL:
    spec = find_spec("xllamacpp")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("xllamacpp is not installed")
    library = ctypes.CDLL(str(next(Path(spec.submodule_search_locations[0]).glob("*.so"))))
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "llama_model_default_params": (_ModelParameters, ()),
        "llama_context_default_params": (_ContextParameters, ()),
        "llama_model_load_from_file": (pointer, (ctypes.c_char_p, _ModelParameters)),
        "llama_init_from_model": (pointer, (pointer, _ContextParameters)),
        "llama_free": (None, (pointer,)),
        "llama_model_free": (None, (pointer,)),
        "llama_model_get_vocab": (pointer, (pointer,)),
        "llama_vocab_n_tokens": (number, (pointer,)),
        "llama_vocab_is_eog": (ctypes.c_bool, (pointer, number)),
        "llama_batch_init": (_Batch, (number, number, number)),
        "llama_batch_free": (None, (_Batch,)),
        "llama_decode": (number, (pointer, _Batch)),
        "llama_get_logits": (ctypes.POINTER(ctypes.c_float), (pointer,)),
        "llama_tokenize": (
            number,
            (pointer, ctypes.c_char_p, number, ctypes.POINTER(number), number, ctypes.c_bool, ctypes.c_bool),
        ),
        "llama_token_to_piece": (number, (pointer, number, ctypes.c_char_p, number, number, ctypes.c_bool)),
        "ggml_quantize_chunk": (
            ctypes.c_size_t,
            (number, pointer, pointer, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, pointer),
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    # Only its warnings, and kept alive as long as the library.
    library.log = _Log(lambda level, text, _: sys.stderr.write(text.decode(errors="replace")) if level >= 4 else None)
    library.llama_log_set(library.log, None)
    library.llama_backend_init()
    return library


def run(library: ctypes.CDLL, job: dict[str, Any]) -> dict[str, Any]:
    """`model` with `ids` and `at_once`, `texts`; or `quantise`: [[array file, type number, bytes of a row]]."""
    result: dict[str, Any] = {}
    if "quantise" in job:
        for path, kind, row_bytes in job["quantise"]:
            numbers = np.ascontiguousarray(np.load(path), np.float32)
            packed = np.zeros((len(numbers), row_bytes), np.uint8)
            library.ggml_quantize_chunk(
                kind, numbers.ctypes.data, packed.ctypes.data, 0, len(numbers), numbers.shape[1], None
            )
            np.save(path, packed)
        return result
    with closing(Native(library, job["model"], tokens=len(job.get("ids", [])))) as native:
        if "ids" in job:
            np.save(job["logits"], native.logits(job["ids"], job["at_once"]))
        if "texts" in job:
            result["plain"] = [native.encode(text, bos=False, special=False) for text in job["texts"]]
            result["special"] = [native.encode(text, bos=True, special=True) for text in job["texts"]]
            result["pieces"], result["ends"] = native.pieces(), native.ends()
    return result


def main() -> None:
    """Until the other side is gone."""
    library = open_library()
    for line in sys.stdin:
        print(json.dumps(run(library, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()

"""What the native library is told, field for field as `model.h`, `layout.h` and `choice.h` of `native/` have it."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_float, c_int32, c_int64, c_void_p

from puna.errors import LoadFailed

MOST_ROPES = 2
MOST_THREADS = 64

CACHE_TYPES = {"f16": 0, "q8_0": 1}
"""What keys and values can be kept as: numbers of 16 bits, or bytes with one scale a token and head."""


class MatrixStruct(ctypes.Structure):
    """One packed matrix, [outputs][k]."""

    _fields_ = (
        ("data", c_void_p),
        ("bias", c_void_p),
        ("bytes", c_int64),
        ("format", c_int32),
        ("outputs", c_int32),
        ("k", c_int32),
        ("unused", c_int32),
    )


class MixtureStruct(ctypes.Structure):
    _fields_ = (
        ("router", MatrixStruct),
        ("gate", c_void_p),
        ("up", c_void_p),
        ("down", c_void_p),
        ("experts", c_int32),
        ("used", c_int32),
        ("renormalise", c_int32),
        ("share_scale", c_float),
        ("between", c_int32),
        ("unused", c_int32),
        ("norm", c_void_p),
        ("router_norm", c_void_p),
        ("post_norm", c_void_p),
        ("plain_post_norm", c_void_p),
    )


class ConvolutionStruct(ctypes.Structure):
    _fields_ = (
        ("before", MatrixStruct),
        ("after", MatrixStruct),
        ("input", MatrixStruct),
        ("filter", c_void_p),
        ("taps", c_int32),
        ("unused", c_int32),
    )


class DeltaStruct(ctypes.Structure):
    _fields_ = (
        ("mixed", MatrixStruct),
        ("gate", MatrixStruct),
        ("beta", MatrixStruct),
        ("alpha", MatrixStruct),
        ("filter", c_void_p),
        ("decay", c_void_p),
        ("norm", c_void_p),
        ("states", c_void_p),
        ("states_bytes", c_int64),
        ("states_stride", c_int64),
        ("taps", c_int32),
        ("keys", c_int32),
        ("values", c_int32),
        ("size", c_int32),
    )


class AdditionStruct(ctypes.Structure):
    """What a layer adds of its own to each token."""

    _fields_ = (("gate", MatrixStruct), ("output", MatrixStruct), ("norm", c_void_p))


class InputsStruct(ctypes.Structure):
    """What those additions are made of, for all layers."""

    _fields_ = (
        ("rows", c_void_p),
        ("rows_bytes", c_int64),
        ("projection", MatrixStruct),
        ("norm", c_void_p),
        ("type", c_int32),
        ("width", c_int32),
        ("scale", c_float),
        ("share", c_float),
    )


class LayerStruct(ctypes.Structure):
    _fields_ = (
        ("attention_norm", c_void_p),
        ("post_attention_norm", c_void_p),
        ("feed_norm", c_void_p),
        ("post_feed_norm", c_void_p),
        ("query_norm", c_void_p),
        ("key_norm", c_void_p),
        ("value_norm", c_void_p),
        ("sinks", c_void_p),
        ("query", MatrixStruct),
        ("key", MatrixStruct),
        ("value", MatrixStruct),
        ("output", MatrixStruct),
        ("attention_gate", MatrixStruct),
        ("gate", MatrixStruct),
        ("up", MatrixStruct),
        ("down", MatrixStruct),
        ("mixture", c_void_p),
        ("convolution", c_void_p),
        ("delta", c_void_p),
        ("addition", c_void_p),
        ("cache", c_void_p),
        ("cache_bytes", c_int64),
        ("cache_stride", c_int64),
        ("rope", c_int32),
        ("window", c_int32),
        ("kv_heads", c_int32),
        ("head", c_int32),
        ("between", c_int32),
        ("scale", c_float),
    )


class RopeStruct(ctypes.Structure):
    _fields_ = (("speeds", c_void_p), ("pairs", c_int32), ("magnitude", c_float))


class ModelStruct(ctypes.Structure):
    _fields_ = (
        ("layers", c_int32),
        ("hidden", c_int32),
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("head", c_int32),
        ("between", c_int32),
        ("vocabulary", c_int32),
        ("most_rows", c_int32),
        ("context", c_int32),
        ("blocks", c_int32),
        ("activation", c_int32),
        ("ropes", c_int32),
        ("cache_type", c_int32),
        ("states", c_int32),
        ("epsilon", c_float),
        ("attention_scale", c_float),
        ("attention_cap", c_float),
        ("logit_cap", c_float),
        ("embedding_scale", c_float),
        ("embedding_type", c_int32),
        ("rope", RopeStruct * MOST_ROPES),
        ("embedding", c_void_p),
        ("embedding_bytes", c_int64),
        ("output_norm", c_void_p),
        ("output", MatrixStruct),
        ("layer", c_void_p),
        ("inputs", c_void_p),
    )


class StepStruct(ctypes.Structure):
    _fields_ = (
        ("rows", c_int32),
        ("sequences", c_int32),
        ("wanted", c_int32),
        ("ids", c_void_p),
        ("past", c_void_p),
        ("begins", c_void_p),
        ("blocks", c_void_p),
        ("block_begins", c_void_p),
        ("want", c_void_p),
        ("logits", c_void_p),
        ("state", c_void_p),
        ("absorbed", c_void_p),
        ("keep", c_void_p),
    )


class WishesStruct(ctypes.Structure):
    """What one request asks of all its tokens."""

    _fields_ = (
        ("typical", c_double),
        ("nucleus", c_double),
        ("tau", c_double),
        ("eta", c_double),
        ("bias_ids", c_void_p),
        ("bias", c_void_p),
        ("banned", c_void_p),
        ("biases", c_int32),
        ("bans", c_int32),
        ("coolness", c_float),
        ("deepest", c_float),
        ("repeat", c_float),
        ("frequency", c_float),
        ("presence", c_float),
        ("last", c_int32),
        ("top_k", c_int32),
        ("mirostat", c_int32),
        ("greedy", c_int32),
    )


class ChoiceStruct(ctypes.Structure):
    """One choice: what is asked, and what came of it."""

    _fields_ = (
        ("wishes", c_void_p),
        ("history", c_void_p),
        ("mask", c_void_p),
        ("number", c_double),
        ("limit", c_double),
        ("length", c_int64),
        ("mask_words", c_int32),
        ("row", c_int32),
        ("given", c_int32),
        ("top", c_int32),
        ("top_ids", c_void_p),
        ("top_logprobs", c_void_p),
        ("logprob", c_double),
        ("token", c_int32),
        ("tops", c_int32),
        ("fault", c_int32),
    )


_IN_ORDER = (
    MatrixStruct,
    MixtureStruct,
    LayerStruct,
    RopeStruct,
    ModelStruct,
    StepStruct,
    WishesStruct,
    ChoiceStruct,
    ConvolutionStruct,
    DeltaStruct,
    AdditionStruct,
    InputsStruct,
)


def check(library: ctypes.CDLL) -> None:
    """LoadFailed if the library lays a structure out in another way."""
    for which, structure in enumerate(_IN_ORDER):
        if library.puna_struct_bytes(which) != ctypes.sizeof(structure):
            raise LoadFailed(f"the native library has another {structure.__name__} than this version of Puna")

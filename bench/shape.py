"""Write a model of a given shape with random weights in Q4_K_M, to measure what has no weights that can be had.

    python bench/shape.py SMALL.gguf TARGET.gguf

The shape is that of Llama 3.2 1B (1.24 billion weights: 16 layers of 2048, heads 32 of which 8 for keys, 8192 in
between, 128,256 tokens, a tied head). Tokens and template are those of SMALL, filled up to that number. Every layer
has the same random blocks: their speed is what counts. Needs the package `gguf` (in the extra `test`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from puna.model.gguf import read_header

LAYERS, HIDDEN, BETWEEN, HEADS, KEY_HEADS, VOCABULARY = 16, 2048, 8192, 32, 8, 128_256
KEYS = HIDDEN // HEADS * KEY_HEADS
SHAPES = {
    "attn_q": (HIDDEN, HIDDEN),
    "attn_k": (KEYS, HIDDEN),
    "attn_v": (KEYS, HIDDEN),
    "attn_output": (HIDDEN, HIDDEN),
    "ffn_gate": (BETWEEN, HIDDEN),
    "ffn_up": (BETWEEN, HIDDEN),
    "ffn_down": (HIDDEN, BETWEEN),
}
"""[rows, columns] of a layer's matrices."""

Bytes = NDArray[np.uint8]


def kind_of(name: str, layer: int) -> Kind:
    """llama.cpp's mixture: values and the way back take more bits in half of the layers."""
    more = name in {"attn_v", "ffn_down"} and (layer < LAYERS // 8 or layer >= 7 * LAYERS // 8 or layer % 3 == 2)
    return Kind.Q6_K if more else Kind.Q4_K


def blocks(random: np.random.Generator, kind: Kind, rows: int, columns: int) -> Bytes:
    """Random blocks of 256 weights, about 0.02 in size and 0 in the mean."""
    size = {Kind.Q4_K: 144, Kind.Q6_K: 210}[kind]
    made = random.integers(0, 256, (rows, columns // 256, size), np.uint8)

    def put(at: int, value: float) -> None:
        made[..., at : at + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)

    if kind is Kind.Q4_K:
        put(0, 1e-4)
        put(2, 7.5e-4)
    else:
        put(208, 1.5e-5)
    return made.reshape(rows, -1)


def words(small: Path, writer: Any) -> None:
    """The tokenizer and template of `small`, with as many tokens as the shape has."""
    metadata = read_header(small, arrays=True).metadata
    tokens, types, merges = (list(metadata[f"tokenizer.ggml.{key}"]) for key in ("tokens", "token_type", "merges"))  # type: ignore[arg-type]
    missing = VOCABULARY - len(tokens)
    writer.add_tokenizer_model(metadata["tokenizer.ggml.model"])
    writer.add_tokenizer_pre(metadata["tokenizer.ggml.pre"])
    writer.add_token_list(tokens + [f"<|unused_{place}|>" for place in range(missing)])
    writer.add_token_types(types + [gguf.TokenType.UNUSED] * missing)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(metadata["tokenizer.ggml.bos_token_id"])
    writer.add_eos_token_id(metadata["tokenizer.ggml.eos_token_id"])
    writer.add_chat_template(metadata["tokenizer.chat_template"])


def write(small: Path, target: Path) -> None:
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(131_072)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(BETWEEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(500_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    words(small, writer)
    random = np.random.default_rng(1)
    head = blocks(random, Kind.Q6_K, VOCABULARY // 8, HIDDEN)
    writer.add_tensor("token_embd.weight", np.tile(head, (8, 1)), raw_dtype=Kind.Q6_K)
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    made = {
        (name, kind): blocks(random, kind, *shape)
        for name, shape in SHAPES.items()
        for kind in {kind_of(name, layer) for layer in range(LAYERS)}
    }
    for layer in range(LAYERS):
        for part in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{part}.weight", np.ones(HIDDEN, np.float32))
        for name in SHAPES:
            kind = kind_of(name, layer)
            writer.add_tensor(f"blk.{layer}.{name}.weight", made[name, kind], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("small", type=Path)
    parser.add_argument("target", type=Path)
    said = parser.parse_args()
    write(said.small, said.target)


if __name__ == "__main__":
    main()

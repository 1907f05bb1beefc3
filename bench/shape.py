"""Write a model of a given shape with random weights in Q4_K_M, to measure what has no weights that can be had.

    python bench/shape.py SMALL.gguf TARGET.gguf [1b|3b|8b]

The shapes are those of Llama 3.2 1B (1.24 billion weights) and 3B (3.21 billion), with tied heads, and of Llama 3.1 8B
(8.03 billion); all have 128,256 tokens. Tokens and template are those of SMALL, filled up to that number. Every layer
has the same random blocks: their speed is what counts. Needs the package `gguf` (in the extra `test`).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from puna.model.gguf import read_header

VOCABULARY = 128_256


@dataclass(frozen=True)
class Shape:
    """`head`: numbers of one head. `tied`: the embeddings are the head too."""

    layers: int
    hidden: int
    between: int
    heads: int
    key_heads: int
    head: int
    tied: bool = True

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """[rows, columns] of a layer's."""
        hidden, keys = self.hidden, self.key_heads * self.head
        return {
            "attn_q": (self.heads * self.head, hidden),
            "attn_k": (keys, hidden),
            "attn_v": (keys, hidden),
            "attn_output": (hidden, self.heads * self.head),
            "ffn_gate": (self.between, hidden),
            "ffn_up": (self.between, hidden),
            "ffn_down": (hidden, self.between),
        }


SHAPES = {
    "1b": Shape(16, 2048, 8192, 32, 8, 64),
    "3b": Shape(28, 3072, 8192, 24, 8, 128),
    "8b": Shape(32, 4096, 14336, 32, 8, 128, tied=False),
}

Bytes = NDArray[np.uint8]


def kind_of(name: str, layer: int, layers: int) -> Kind:
    """llama.cpp's mixture: values and the way back take more bits in half of the layers."""
    more = name in {"attn_v", "ffn_down"} and (layer < layers // 8 or layer >= 7 * layers // 8 or layer % 3 == 2)
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


def write(small: Path, target: Path, name: str = "1b") -> None:
    shape = SHAPES[name]
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_block_count(shape.layers)
    writer.add_context_length(131_072)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.between)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_heads)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(500_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    words(small, writer)
    random = np.random.default_rng(1)
    head = np.tile(blocks(random, Kind.Q6_K, VOCABULARY // 8, shape.hidden), (8, 1))
    embedding, kind = (
        (head, Kind.Q6_K) if shape.tied else (blocks(random, Kind.Q4_K, VOCABULARY, shape.hidden), Kind.Q4_K)
    )
    writer.add_tensor("token_embd.weight", embedding, raw_dtype=kind)
    if not shape.tied:
        writer.add_tensor("output.weight", head, raw_dtype=Kind.Q6_K)
    writer.add_tensor("output_norm.weight", np.ones(shape.hidden, np.float32))
    layers = range(shape.layers)
    made = {
        (matrix, kind): blocks(random, kind, *size)
        for matrix, size in shape.matrices.items()
        for kind in {kind_of(matrix, layer, shape.layers) for layer in layers}
    }
    for layer in layers:
        for part in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{part}.weight", np.ones(shape.hidden, np.float32))
        for matrix in shape.matrices:
            kind = kind_of(matrix, layer, shape.layers)
            writer.add_tensor(f"blk.{layer}.{matrix}.weight", made[matrix, kind], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("small", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("shape", choices=SHAPES, default="1b", nargs="?")
    said = parser.parse_args()
    write(said.small, said.target, said.shape)


if __name__ == "__main__":
    main()

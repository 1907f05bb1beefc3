"""Llama 1 to 3, Mistral, SmolLM2 and all that keep their shape."""

from __future__ import annotations

from puna.engine.cpu.families.common import head, plain_layer
from puna.engine.cpu.graph import Graph, GraphNode


def build(graph: Graph) -> GraphNode:
    factors = "rope_freqs.weight" if "rope_freqs.weight" in graph else None
    rope = graph.rope(graph.shape.rope_base, factors)
    x = graph.embeddings()
    for layer in range(graph.shape.layers):
        x = plain_layer(graph, x, f"blk.{layer}", rope)
    return head(graph, x)

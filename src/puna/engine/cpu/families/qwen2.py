"""Qwen 2 and 2.5: Llama's order, with biases on the attention's projections (a projection adds those it finds)."""

from __future__ import annotations

from puna.engine.cpu.families.common import head, plain_layer
from puna.engine.cpu.graph import Graph, GraphNode


def build(graph: Graph) -> GraphNode:
    rope = graph.rope(graph.shape.rope_base)
    x = graph.embeddings()
    for layer in range(graph.shape.layers):
        x = plain_layer(graph, x, f"blk.{layer}", rope)
    return head(graph, x)

"""Qwen 3: a norm over each head of queries and keys, before they are rotated."""

from __future__ import annotations

from puna.engine.cpu.families.common import head, plain_layer
from puna.engine.cpu.graph import Graph, GraphNode


def build(graph: Graph) -> GraphNode:
    rope = graph.rope(graph.shape.rope_base)
    x = graph.embeddings()
    for layer in range(graph.shape.layers):
        x = plain_layer(graph, x, f"blk.{layer}", rope, head_norms=True)
    return head(graph, x)

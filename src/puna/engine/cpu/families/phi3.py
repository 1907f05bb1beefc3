"""Phi 3 and 4: queries, keys and values in one tensor, gate and up in another; long contexts turn by other factors."""

from __future__ import annotations

from puna.engine.cpu.families.common import attention_scale, head
from puna.engine.cpu.graph import Graph, GraphNode
from puna.engine.cpu.rope import Rope


def build(graph: Graph) -> GraphNode:
    shape = graph.shape
    beyond = graph.num_ctx > shape.rope_scaling.original_context
    factors = f"rope_factors_{'long' if beyond else 'short'}.weight"
    rope = graph.rope(shape.rope_base, factors if factors in graph else None)
    x = graph.embeddings()
    for layer in range(shape.layers):
        x = _layer(graph, x, f"blk.{layer}", rope)
    return head(graph, x)


def _layer(graph: Graph, x: GraphNode, block: str, rope: Rope) -> GraphNode:
    shape = graph.shape
    (fused,) = graph.project(graph.norm(x, f"{block}.attn_norm.weight"), f"{block}.attn_qkv")
    widths = [heads * shape.head_size for heads in (shape.heads, shape.kv_heads, shape.kv_heads)]
    query, key, value = graph.split(fused, widths)
    query, key = graph.rotate(query, shape.heads, rope, "all"), graph.rotate(key, shape.kv_heads, rope, "all")
    attended = graph.attend(query, key, value, scale=attention_scale(graph))
    x = graph.add(x, *graph.project(attended, f"{block}.attn_output"))
    (fused,) = graph.project(graph.norm(x, f"{block}.ffn_norm.weight"), f"{block}.ffn_up")
    gate, up = graph.split(fused, [shape.feed_forward, shape.feed_forward])
    return graph.add(x, *graph.project(graph.gated(gate, up), f"{block}.ffn_down"))

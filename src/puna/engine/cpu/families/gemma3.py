"""Gemma 3: scaled embeddings, a norm on both sides of every part, five layers with a window to one that sees all.

Layers with a window turn by a base of their own, unscaled. Source: the Gemma 3 report (arXiv:2503.19786).
"""

from __future__ import annotations

from puna.engine.cpu.families.common import attention_scale, feed_forward, head
from puna.engine.cpu.graph import Graph, GraphNode
from puna.engine.cpu.rope import Rope

_LARGEST = 62
"""Layers of the 27B model, which scales attention by the width of its embedding."""


def build(graph: Graph) -> GraphNode:
    shape = graph.shape
    everywhere, nearby = graph.rope(shape.rope_base), graph.rope(shape.rope_base_window, scaled=False)
    x = graph.multiply(graph.embeddings(), float(shape.hidden) ** 0.5)
    for layer in range(shape.layers):
        near = (layer + 1) % shape.window_period != 0
        x = _layer(graph, x, f"blk.{layer}", nearby if near else everywhere, shape.window if near else 0)
    return head(graph, x)


def _layer(graph: Graph, x: GraphNode, block: str, rope: Rope, window: int) -> GraphNode:
    shape, kind = graph.shape, "near" if window else "all"
    h = graph.norm(x, f"{block}.attn_norm.weight")
    query, key, value = graph.project(h, f"{block}.attn_q", f"{block}.attn_k", f"{block}.attn_v")
    query = graph.rotate(graph.head_norm(query, shape.heads, f"{block}.attn_q_norm.weight"), shape.heads, rope, kind)
    key = graph.rotate(graph.head_norm(key, shape.kv_heads, f"{block}.attn_k_norm.weight"), shape.kv_heads, rope, kind)
    scale = (shape.hidden / shape.heads) ** -0.5 if shape.layers == _LARGEST else attention_scale(graph)
    attended = graph.attend(query, key, value, scale=scale, window=window)
    (h,) = graph.project(attended, f"{block}.attn_output")
    x = graph.add(x, graph.norm(h, f"{block}.post_attention_norm.weight"))
    h = feed_forward(graph, graph.norm(x, f"{block}.ffn_norm.weight"), block, gelu=True)
    return graph.add(x, graph.norm(h, f"{block}.post_ffw_norm.weight"))

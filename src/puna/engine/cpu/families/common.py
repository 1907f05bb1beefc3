"""What most families share: a layer in Llama's order, the gated feed-forward, the head."""

from __future__ import annotations

from puna.engine.cpu.graph import Graph, GraphNode
from puna.engine.cpu.rope import Rope


def plain_layer(graph: Graph, x: GraphNode, block: str, rope: Rope, *, head_norms: bool = False) -> GraphNode:
    """Norm, attention, add; norm, gated feed-forward, add."""
    shape = graph.shape
    h = graph.norm(x, f"{block}.attn_norm.weight")
    query, key, value = graph.project(h, f"{block}.attn_q", f"{block}.attn_k", f"{block}.attn_v")
    if head_norms:
        query = graph.head_norm(query, shape.heads, f"{block}.attn_q_norm.weight")
        key = graph.head_norm(key, shape.kv_heads, f"{block}.attn_k_norm.weight")
    query, key = graph.rotate(query, shape.heads, rope, "all"), graph.rotate(key, shape.kv_heads, rope, "all")
    attended = graph.attend(query, key, value, scale=attention_scale(graph))
    x = graph.add(x, *graph.project(attended, f"{block}.attn_output"))
    h = graph.norm(x, f"{block}.ffn_norm.weight")
    return graph.add(x, feed_forward(graph, h, block))


def feed_forward(graph: Graph, x: GraphNode, block: str, *, gelu: bool = False) -> GraphNode:
    gate, up = graph.project(x, f"{block}.ffn_gate", f"{block}.ffn_up")
    (down,) = graph.project(graph.gated(gate, up, gelu=gelu), f"{block}.ffn_down")
    return down


def attention_scale(graph: Graph) -> float:
    return graph.shape.attention_scale or float(graph.shape.head_size) ** -0.5


def head(graph: Graph, x: GraphNode) -> GraphNode:
    """The last norm and the logits, of the asked rows only. Without a head of its own a model uses its embedding."""
    x = graph.norm(graph.wanted_rows(x), "output_norm.weight")
    (logits,) = graph.project(x, "output" if "output.weight" in graph else "token_embd")
    return logits

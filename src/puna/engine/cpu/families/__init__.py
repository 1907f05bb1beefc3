"""One short builder a family: `build(graph) -> logits`. A builder knows its order of blocks and nothing below them."""

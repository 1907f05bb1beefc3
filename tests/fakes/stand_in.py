"""Writes the file of the scripted engine's stand-in: `python tests/fakes/stand_in.py` after a change here."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.gguf_files import gguf_bytes

DIRECTORY = Path(__file__).parents[2] / "src" / "puna" / "engine" / "stand_in"

LONGEST_TOKEN = "<|endoftext|>"
"""Of the engine's: by it a prompt that is too long is known as such before it is tokenised."""

TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools: <tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>\n"
    'Call with <tool_call>\n{"name": ..., "arguments": ...}\n</tool_call><|im_end|>\n{% endif %}'
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n\n{% endif %}"
    '{{ message.content }}{% for call in message.tool_calls or [] %}<tool_call>\n{"name": "{{ call.function.name }}", '
    '"arguments": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}'
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def stand_in_bytes() -> bytes:
    """A header without weights: a long context, ids to fill in between, a template with tools and thinking."""
    return gguf_bytes(
        architecture="scripted",
        tokens=["none", "prefix", "suffix", "middle", LONGEST_TOKEN],
        chat_template=TEMPLATE,
        metadata={
            "general.name": "Stand-in of the scripted engine: no model",
            "scripted.context_length": 131072,
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.merges": ["n o"],
            "tokenizer.ggml.fim_pre_token_id": 1,
            "tokenizer.ggml.fim_suf_token_id": 2,
            "tokenizer.ggml.fim_mid_token_id": 3,
        },
    )


if __name__ == "__main__":
    for old in DIRECTORY.glob("sha256-*"):
        old.unlink()
    data = stand_in_bytes()
    (DIRECTORY / f"sha256-{hashlib.sha256(data).hexdigest()}").write_bytes(data)

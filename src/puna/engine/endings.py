"""Which tokens of a vocabulary end an answer: by their role in the model file, or by their text. Pure.

One rule for every engine, llama.cpp's: it is what models were tried with.
"""

from __future__ import annotations

from collections.abc import Mapping

TEXTS = frozenset({
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>",
    "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
})  # fmt: skip
"""Tokens of these texts end an answer, whatever the file says of them."""

ROLE_TEXTS: Mapping[str, frozenset[str]] = {
    "fim_pad": frozenset({"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}),
    "fim_rep": frozenset({"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}),
    "fim_sep": frozenset({"<|file_sep|>"}),
}  # fmt: skip
"""Texts that have a role where the file names no token for it."""

ROLES = ("eos", "eot", "eom", *ROLE_TEXTS)
"""Roles whose token ends an answer."""

CANDIDATES = TEXTS.union(*ROLE_TEXTS.values())
"""Every text that may end an answer."""


def ending_tokens(known: Mapping[str, int], named: Mapping[str, tuple[int, str]]) -> tuple[int, ...]:
    """Ids, sorted. `known`: the id of each text of CANDIDATES that is a token; `named`: the file's id and text by role.

    Where a model ends its answers with tokens that are made for it, `<|end|>` or `</s>` only ends a part of one.
    """
    found = {known[text]: text for text in TEXTS & known.keys()}
    for role in ROLES:
        if role in named:
            token, text = named[role]
            found[token] = text
        else:
            found |= {known[text]: text for text in ROLE_TEXTS.get(role, frozenset()) & known.keys()}
    texts = set(found.values())
    parts: set[str] = set()
    if texts >= {"<|return|>", "<|call|>"} or (texts & {"<|call|>", "<|calls|>"} and "<|flush|>" in texts):
        parts.add("<|end|>")
    if "<|tool_response>" in texts:
        parts.add("</s>")
    return tuple(sorted(token for token, text in found.items() if text not in parts))

"""Capability: what a model can do, told from its header and templates. Pure.

A template is only looked at, never run: the words it mentions tell what it was written for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from typing import Literal

from puna.errors import ModelFileError
from puna.model.gguf import Header
from puna.model.goparse import parse
from puna.model.goscan import names, thinking_tags
from puna.model.manifest import Config


class Capability(str, Enum):
    COMPLETION = "completion"
    TOOLS = "tools"
    INSERT = "insert"
    THINKING = "thinking"
    VISION = "vision"
    AUDIO = "audio"
    EMBEDDING = "embedding"
    RERANK = "rerank"


@lru_cache
def words(found: frozenset[Capability]) -> tuple[str, ...]:
    """As lists have them, in their order. Thousands of models have the same few."""
    return tuple(one.value for one in Capability if one in found)


THINKING_TAGS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<reasoning>", "</reasoning>"),
    ("<thinking>", "</thinking>"),
)
"""What models are known to write around their thinking."""

EMBEDDING_ARCHITECTURES = frozenset(
    {
        "bert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
    }
)
"""Encoders: they cannot generate, whatever else their header says."""


_TAKEN_AT_ITS_WORD = frozenset({Capability.THINKING.value, Capability.INSERT.value})
"""Of what a config says: the rest shows in the file itself, or nothing here could make it true."""


def capabilities(
    header: Header, go_template: str | None = None, projectors: Iterable[Header] = (), config: Config | None = None
) -> frozenset[Capability]:
    """All of them. `go_template`: the template layer, if there is one; `projectors`: headers of projector layers.

    What `config` says of itself counts too, where nothing in the files could tell it.
    """
    if header.ranks:
        return frozenset({Capability.RERANK})
    said = frozenset() if config is None else frozenset(config.capabilities)
    of_config = Capability.EMBEDDING.value in said and Capability.COMPLETION.value not in said
    if of_config or header.pooling_type is not None or header.architecture in EMBEDDING_ARCHITECTURES:
        return frozenset({Capability.EMBEDDING})
    kind = template_kind(go_template, header.chat_template, renderer=None if config is None else config.renderer)
    # A template that knows no tools gets them described, and the calls are kept to their form: see `puna.chat.calls`.
    found = {Capability.COMPLETION, Capability.TOOLS}
    if kind == "go" and go_template is not None:
        found |= go_capabilities(go_template)
    template = {"go": go_template, "jinja": header.chat_template}.get(kind)
    if template is not None and _shows_thought(template):
        found.add(Capability.THINKING)
    if fill_in_tokens(header) is not None:
        found.add(Capability.INSERT)
    if _ranks_by_words(header):
        found.add(Capability.RERANK)
    if header.architecture in {"gptoss", "gpt-oss"}:
        found.add(Capability.THINKING)
    found |= {Capability(word) for word in said & _TAKEN_AT_ITS_WORD}
    return frozenset(found | _media(projectors))


def _ranks_by_words(header: Header) -> bool:
    """Whether it was trained to say of a query and a document `yes` or `no`, as Qwen's rerankers were: nothing but
    their names tells."""
    names = f"{header.text('general.name')} {header.text('general.basename')}".lower()
    return header.architecture == "qwen3" and "reranker" in names


def fill_in_tokens(header: Header) -> tuple[int, int, int] | None:
    """The control tokens before the beginning, the end and the middle of a text to fill in, if the header names all."""
    special = header.special_tokens
    pre, suf, mid = (
        next((special[name].id for name in names if name in special), None)
        for names in (("fim_pre", "prefix"), ("fim_suf", "suffix"), ("fim_mid", "middle"))
    )
    return None if pre is None or suf is None or mid is None else (pre, suf, mid)


TemplateKind = Literal["go", "jinja", "none"]


def template_kind(go_template: str | None, jinja: str | None, *, renderer: str | None = None) -> TemplateKind:
    """Which template makes the prompts: the Go one, unless the Jinja one knows more of tools and thought.

    A model whose config names a `renderer` is written for code inside Ollama, and its Go template, if it has one, for
    nobody: only the file's own Jinja says the same.
    """
    if go_template is None or renderer is not None:
        return "none" if jinja is None else "jinja"
    if jinja is None:
        return "go"
    of_go, of_jinja = go_capabilities(go_template), jinja_capabilities(jinja)
    go_returns, jinja_returns = _go_takes_results(go_template), _jinja_takes_results(jinja)
    knows_more = of_jinja > of_go and (jinja_returns or not go_returns)
    returns_more = of_jinja == of_go and Capability.TOOLS in of_go and jinja_returns and not go_returns
    return "jinja" if knows_more or returns_more else "go"


def go_capabilities(template: str) -> frozenset[Capability]:
    """Of a Go template: tools and insert by the variables that it mentions, thinking by the tags around it."""
    try:
        tree = parse(template)
    except ModelFileError:
        return frozenset()
    words = {name.lower() for name in names(tree)}
    found = {capability for word, capability in _GO_WORDS.items() if word in words}
    return frozenset(found | ({Capability.THINKING} if thinking_tags(tree) is not None else set()))


_GO_WORDS = {"tools": Capability.TOOLS, "suffix": Capability.INSERT}


def jinja_capabilities(template: str) -> frozenset[Capability]:
    """Of a Jinja template, by Ollama's rule: tools and thinking."""
    found: set[Capability] = set()
    if "tools" in template or "tool_call" in template:
        found.add(Capability.TOOLS)
    splits = "</think>" in template and ".split(" in template and "reasoning_content" not in template
    if splits or ("<think>" in template and "</think>" in template):
        found.add(Capability.THINKING)
    return frozenset(found)


def _shows_thought(template: str) -> bool:
    """It shows a thought, or how one ends: a template that only strips old thinking tells that too."""
    harmony = "<|channel|>" in template and "<|message|>" in template
    return harmony or "reasoning_content" in template or any(close in template for _, close in THINKING_TAGS)


def _go_takes_results(template: str) -> bool:
    try:
        words = {name.lower() for name in names(parse(template))}
    except ModelFileError:
        return False
    named = re.search(r"eq\s+\$?[.\w]*\.Role\s+[\"`]tool[\"`]", template) is not None
    return {"tools", "toolcalls"} <= words and (named or "tool_response" in template or "TOOL_RESULTS" in template)


def _jinja_takes_results(template: str) -> bool:
    calls = "tool_calls" in template or "assistant_tool_call" in template
    results = any(word in template for word in ("tool_response", "tool_results", "ipython"))
    named = re.search(r"role(?:['\"]\])?\s*==\s*['\"]tool['\"]", template) is not None
    return "tools" in template and calls and (results or named)


def _media(projectors: Iterable[Header]) -> set[Capability]:
    """By projectors alone: one whose tensors lie among the model's own is used by no engine."""
    found: set[Capability] = set()
    for projector in projectors:
        hears = projector.metadata.get("clip.has_audio_encoder") is True
        # Projectors from before there were others say neither: they see.
        sees = projector.metadata.get("clip.has_vision_encoder", not hears) is True
        found |= ({Capability.AUDIO} if hears else set()) | ({Capability.VISION} if sees else set())
    return found

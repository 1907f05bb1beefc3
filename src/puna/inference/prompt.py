"""A chat request to the prompt of a Runner: which template, which messages, how many tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from puna.chat.facts import ChatTemplate
from puna.chat.fit import check_fit, kept_from
from puna.chat.gotemplate import GoTemplate
from puna.chat.render import JinjaTemplate
from puna.chat.text import ThinkTags
from puna.engine.runner import MEDIA_MARKER, Prompt, Runner
from puna.errors import InvalidRequest, Unsupported
from puna.inference.decode import prompt_size
from puna.model.capabilities import template_kind
from puna.model.model import Model
from puna.types import AudioPart, ChatRequest, ImagePart, JsonValue, Message, Tool

PLAIN_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
"""For a model without any template: ChatML, as llama.cpp and Ollama do."""


@dataclass(frozen=True, slots=True)
class TemplateKey:
    """What a compiled template depends on."""

    language: str
    source: str
    bos: str
    eos: str


def template_key(model: Model, override: str | None = None) -> TemplateKey:
    """The template that makes this model's prompts. `override`: a caller's own, in either language."""
    bos, eos = model.header.bos_token or "", model.header.eos_token or ""
    if override is not None:
        return TemplateKey("jinja" if "{%" in override else "go", override, bos, eos)
    kind = template_kind(model.go_template, model.chat_template)
    source = {"go": model.go_template, "jinja": model.chat_template}.get(kind) or PLAIN_TEMPLATE
    return TemplateKey("go" if kind == "go" else "jinja", source, bos, eos)


def compile_template(key: TemplateKey) -> ChatTemplate:
    """Raises ModelFileError."""
    if key.language == "go":
        return GoTemplate(key.source, bos=key.bos)
    return JinjaTemplate(key.source, bos=key.bos, eos=key.eos)


def whole_messages(model: Model, request: ChatRequest) -> tuple[Message, ...]:
    """The model's own system message and stored messages, then the request's."""
    messages = request.messages if request.context else (*model.messages, *request.messages)
    if model.system and not (request.messages and request.messages[0].role == "system"):
        return (Message.of("system", model.system), *messages)
    return messages


@dataclass(frozen=True, slots=True)
class Rendering:
    """How messages become text; all but the messages, which fitting varies."""

    template: ChatTemplate
    tools: tuple[Tool, ...]
    arguments: Mapping[str, JsonValue]
    prefill: bool

    def text(self, messages: Sequence[Message]) -> str:
        if not self.prefill:
            return self.template.render(messages, tools=self.tools, arguments=self.arguments)
        *before, last = messages
        return self.template.render(before, tools=self.tools, arguments=self.arguments) + self._begun(last)

    def _begun(self, last: Message) -> str:
        """The beginning of the answer, as the model would have written it."""
        tags = self.template.facts.thinking
        if tags is None or not last.thinking:
            return last.text
        closed = tags.close if last.content else ""
        return f"{tags.open}{last.thinking}{closed}{last.text}"


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """`dropped`: how many messages were left out. `inside`: the prompt has opened the thinking."""

    prompt: Prompt
    dropped: int
    inside: bool


async def chat_prompt(
    runner: Runner, rendering: Rendering, messages: Sequence[Message], request: ChatRequest
) -> ChatPrompt:
    """Render, tokenise, fit. Raises ContextLengthExceeded; with `truncate` only when the last message is too long."""
    num_ctx = runner.info.num_ctx
    built = await build_prompt(runner, rendering, messages, request)
    kept = messages
    if request.truncate and await prompt_size(runner, built.prompt) >= num_ctx:
        built, kept = await _shortened(runner, rendering, messages, request)
    # What media come to, the engine sees to itself.
    if not built.prompt.media:
        check_fit(len(built.prompt.tokens), num_ctx)
    return ChatPrompt(built.prompt, len(messages) - len(kept), built.inside)


async def _shortened(
    runner: Runner, rendering: Rendering, messages: Sequence[Message], request: ChatRequest
) -> tuple[ChatPrompt, Sequence[Message]]:
    """The most that fits, by halving: the more messages are dropped, the shorter the prompt."""
    low, high = 1, max(len(messages) - 1, 0)
    kept = kept_from(messages, high)
    best = await build_prompt(runner, rendering, kept, request)
    while low < high:
        middle = (low + high) // 2
        candidate = kept_from(messages, middle)
        built = await build_prompt(runner, rendering, candidate, request)
        if await prompt_size(runner, built.prompt) < runner.info.num_ctx:
            high, best, kept = middle, built, candidate
        else:
            low = middle + 1
    return best, kept


async def build_prompt(
    runner: Runner, rendering: Rendering, messages: Sequence[Message], request: ChatRequest
) -> ChatPrompt:
    """Render and tokenise all of `messages`, whether that fits or not."""
    text = rendering.text(messages)
    media = tuple(
        part.data for message in messages for part in message.content if isinstance(part, ImagePart | AudioPart)
    )
    if media:
        _check_places(text.count(MEDIA_MARKER), len(media))
    bos = rendering.template.bos
    tokens = await tokenize_prompt(runner, text, bos, begun=bool(request.context))
    whole = await _whole_text(runner, request.context, text, bos) if media else None
    prompt = Prompt((*request.context, *tokens), whole, media, request.cache_key)
    return ChatPrompt(prompt, 0, _inside(text, rendering.template.facts.thinking, rendering.prefill))


def _check_places(found: int, wanted: int) -> None:
    if found > wanted:
        raise InvalidRequest(
            f"beside images or sounds no text may hold {MEDIA_MARKER}, which stands for one", param="messages"
        )
    if found < wanted:
        raise Unsupported(
            f"the model's template has a place for {found} of the {wanted} images and sounds", param="messages"
        )


async def _whole_text(runner: Runner, context: Sequence[int], text: str, bos: str) -> str:
    """What goes with media: all of the prompt as text, without the `bos` that the engine adds."""
    if context:
        text = (await runner.detokenize(context)).decode(errors="replace") + text
    return text.removeprefix(bos) if runner.info.add_bos else text


async def tokenize_prompt(runner: Runner, text: str, bos: str, *, begun: bool = False) -> list[int]:
    """Control tokens' text counts as these. A prompt begins with one `bos` if the model wants it, however it came."""
    written = bool(bos) and text.startswith(bos)
    return await runner.tokenize(text, special=True, bos=not (written or begun))


def _inside(text: str, tags: ThinkTags | None, prefill: bool) -> bool:
    if tags is None:
        return False
    if prefill:
        return text.rfind(tags.open) > text.rfind(tags.close)
    return text.rstrip().endswith(tags.open)

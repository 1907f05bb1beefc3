"""A chat request to the prompt of a Runner: which template, which messages, how many tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from uuid import uuid4

from puna.chat.calls import DEFAULT_SYNTAX
from puna.chat.disguise import Disguise, Given, Written
from puna.chat.fit import check_fit, kept_from, system_places
from puna.chat.turns import plainer
from puna.engine.runner import Prompt, Runner
from puna.errors import ContextLengthExceeded, InvalidRequest, ModelFileError, Unsupported
from puna.inference.decode import prompt_size
from puna.inference.length import LONG_TEXT, check_least, is_long
from puna.inference.literal import beside, spelled, tokenize_written
from puna.lane import Lane, as_brought, in_lane, on_trial, while_waiting
from puna.model.gguf import Header
from puna.model.markup import Markup
from puna.model.model import Model
from puna.template.facts import ChatTemplate, ThinkTags, Trust
from puna.template.languages import TemplateKey
from puna.types import MEDIA_MARKER, AudioPart, ChatRequest, ImagePart, JsonValue, Message, TextPart, Tool

_NEAR = 200
"""Characters at a prompt's end in which its last control token is looked for."""

NO_TOKEN = -1
"""In place of an id, for what is markup without being a token."""

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


WAITING: Mapping[Trust, Lane] = {"known": while_waiting, "suspect": on_trial, "brought": as_brought}
"""Templates are run by other processes: where such a one is waited for."""


def template_key(model: Model, override: str | None = None, *, chat: bool = True) -> TemplateKey:
    """The template that makes this model's prompts. `override`: a caller's own, in either language.

    Unsupported for a `chat` when the model is published to be rendered by what is not there. Other prompts need none.
    """
    bos, eos = model.header.bos_token or "", model.header.eos_token or ""
    if override is not None:
        return TemplateKey("jinja" if "{%" in override else "go", override, bos, eos)
    if chat and model.unrendered is not None:
        raise Unsupported(f'"{model.name.short}" cannot chat: {model.unrendered}', param="model")
    kind = model.template_kind
    source = {"go": model.go_template, "jinja": model.chat_template}.get(kind) or PLAIN_TEMPLATE
    return TemplateKey("go" if kind == "go" else "jinja", source, bos, eos)


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
    header: Header | None = None

    def check(self, messages: Sequence[Message], num_ctx: int) -> None:
        """ContextLengthExceeded when texts that the template shows cannot fit. Little is rendered for it."""
        long = {f"text{uuid4().hex}": message.text for message in messages if _is_long(message)}
        if not long:
            return
        marks = iter(long)
        marked = [
            replace(message, content=(TextPart(next(marks)),)) if _is_long(message) else message for message in messages
        ]
        try:
            text, _ = self._texts(Given(tuple(marked), self.tools, self.arguments))
        except InvalidRequest:
            return  # it looks into the texts: what it makes of them is seen when it has them
        check_least([whole for mark, whole in long.items() if mark in text], self.header, num_ctx, cut=True)

    def write(self, messages: Sequence[Message], markup: Markup) -> Written:
        """The prompt's text, in which of `markup` only what the template wrote counts.

        Messages that the template refuses are tried in plainer forms.
        """
        try:
            return self._write(messages, markup)
        except InvalidRequest:
            for turns in self._plainer(messages):
                with suppress(InvalidRequest):
                    return self._write(turns, markup)
            raise

    def _plainer(self, messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
        """Without the last one, if that is an answer to go on with."""
        end = len(messages) - 1 if self.prefill else len(messages)
        return ((*turns, *messages[end:]) for turns in plainer(messages[:end], DEFAULT_SYNTAX))

    def _write(self, messages: Sequence[Message], markup: Markup) -> Written:
        given = Given(tuple(messages), self.tools, self.arguments)
        disguise = Disguise.needed(markup, given, self.template.source)
        if disguise is None:
            return self._written(given)
        hidden = disguise.written(*self._texts(disguise.given(given)))
        plain = self._plain(given)
        # Nothing was to be hidden, if all control tokens are there with it and without.
        if plain is not None and markup.controls(plain.disguised) == markup.controls(hidden.disguised):
            return plain
        return hidden

    def _plain(self, given: Given) -> Written | None:
        """None: the template refuses what it is given as it is."""
        try:
            return self._written(given)
        except InvalidRequest:
            return None

    def _written(self, given: Given) -> Written:
        text, begun = self._texts(given)
        return Written(text, begun=begun)

    def _texts(self, given: Given) -> tuple[str, int]:
        """The prompt, and how many characters at its end begin the answer."""
        messages = given.messages[:-1] if self.prefill else given.messages
        text = self.template.render(messages, tools=given.tools, arguments=given.arguments)
        begun = self._begun(given.messages[-1]) if self.prefill else ""
        return text + begun, len(begun)

    def _begun(self, last: Message) -> str:
        """The beginning of the answer, as the model would have written it."""
        tags = self.template.facts.thinking
        if tags is None or not last.thinking:
            return last.text
        closed = tags.close if last.content else ""
        return f"{tags.open}{last.thinking}{closed}{last.text}"


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A chat as an engine gets it.

    `dropped`: how many messages were left out. `inside`: the prompt has opened the thinking.

    `changed`: a control token's text in a message could only be kept text by a character without width (see `beside`).
    `tail`: the text after its last control token, of what is near its end; an answer goes on with it.
    """

    prompt: Prompt
    dropped: int
    inside: bool
    changed: bool = False
    tail: str = ""


async def chat_prompt(
    runner: Runner, rendering: Rendering, messages: Sequence[Message], request: ChatRequest
) -> ChatPrompt:
    """Render, tokenise, fit. Raises ContextLengthExceeded; with `truncate` only when the last message is too long."""
    num_ctx = runner.info.num_ctx
    built, kept = await _fitting(runner, rendering, messages, request), messages
    if built is None:
        built, kept = await _shortened(runner, rendering, messages, request)
    # What media come to, the engine sees to itself.
    if not built.prompt.media:
        check_fit(len(built.prompt.tokens), num_ctx)
    return replace(built, dropped=len(messages) - len(kept))


async def _fitting(
    runner: Runner, rendering: Rendering, messages: Sequence[Message], request: ChatRequest
) -> ChatPrompt | None:
    """The prompt; None when it is too long and may be cut. Raises ContextLengthExceeded when it may not."""
    try:
        built = await build_prompt(runner, rendering, messages, request, num_ctx=runner.info.num_ctx)
    except ContextLengthExceeded:
        if request.truncate:
            return None
        raise
    too_long = request.truncate and await prompt_size(runner, built.prompt) >= runner.info.num_ctx
    return None if too_long else built


async def _shortened(
    runner: Runner, rendering: Rendering, messages: Sequence[Message], request: ChatRequest
) -> tuple[ChatPrompt, Sequence[Message]]:
    """The most that fits, by halving: the more messages are dropped, the shorter the prompt."""
    low, high = 1, max(len(messages) - 1, 0)
    systems = system_places(messages)
    kept = kept_from(messages, high, systems)
    best = await build_prompt(runner, rendering, kept, request, num_ctx=runner.info.num_ctx)
    while low < high:
        middle = (low + high) // 2
        candidate = kept_from(messages, middle, systems)
        built = await _fitting(runner, rendering, candidate, request)
        if built is not None:
            high, best, kept = middle, built, candidate
        else:
            low = middle + 1
    return best, kept


async def build_prompt(
    runner: Runner,
    rendering: Rendering,
    messages: Sequence[Message],
    request: ChatRequest,
    *,
    num_ctx: int | None = None,
) -> ChatPrompt:
    """Render and tokenise all of `messages`, whether that fits or not.

    `num_ctx`: raise ContextLengthExceeded, without the work, when it certainly does not fit that.
    """
    markup = runner.info.markup

    def write() -> tuple[Written, tuple[bytes, ...]]:
        media = tuple(
            part.data for message in messages for part in message.content if isinstance(part, ImagePart | AudioPart)
        )
        if num_ctx is not None:
            rendering.check(messages, num_ctx)
        written = rendering.write(messages, markup.and_(MEDIA_MARKER, NO_TOKEN) if media else markup)
        if num_ctx is not None:
            check_least([written.disguised], rendering.header, num_ctx)
        return written, media

    trust = rendering.template.trust
    slow = trust == "known" and is_long(Given(tuple(messages), rendering.tools, rendering.arguments))
    try:
        written, media = await (in_lane(write) if slow else WAITING[trust](write))
    except ModelFileError as error:
        if trust != "brought":
            raise
        raise InvalidRequest(f"template error: {error}", param="template") from error
    bos = rendering.template.bos
    tokens = await tokenize_written(runner, written, bos, begun=bool(request.context))
    texts: tuple[str, ...] = ()
    changed = False
    if media:
        _check_places(written.disguised.count(MEDIA_MARKER), len(media))
        (first, *others), changed = beside(written, markup)
        # The engine adds a `bos` of its own; what came before the prompt comes before its first text.
        first = first.removeprefix(bos) if runner.info.add_bos and not request.context else first
        earlier = await spelled(runner, request.context) if request.context else ""
        texts = (earlier + first, *others)
    prompt = Prompt((*request.context, *tokens), texts, media, request.cache_key)
    return ChatPrompt(prompt, 0, _inside(written, rendering.template.facts.thinking), changed, _tail(written, markup))


def _tail(written: Written, markup: Markup) -> str:
    """Some hundred characters; of a text without control tokens, from the last line on."""
    near = written.disguised[-_NEAR:]
    last = [*markup.split(near), ""][-2 if near else -1]
    if isinstance(last, int):
        return ""
    return written.shown(last if last != near else last[last.rstrip("\n").rfind("\n") + 1 :])


def _is_long(message: Message) -> bool:
    return len(message.content) == 1 and message.role in {"user", "system"} and len(message.text) > LONG_TEXT


def _check_places(found: int, wanted: int) -> None:
    if found > wanted:
        raise InvalidRequest(
            f"beside images or sounds no text may hold {MEDIA_MARKER}, which stands for one", param="messages"
        )
    if found < wanted:
        raise Unsupported(
            f"the model's template has a place for {found} of the {wanted} images and sounds", param="messages"
        )


def _inside(written: Written, tags: ThinkTags | None) -> bool:
    """Whether the prompt ends in a thought: one that the answer's beginning opens, or the template before it."""
    if tags is None:
        return False
    end = len(written.disguised) - written.begun
    begun = written.disguised[end:]
    if tags.open in begun or tags.close in begun:
        return begun.rfind(tags.open) > begun.rfind(tags.close)
    return written.disguised[:end].rstrip().endswith(tags.open)

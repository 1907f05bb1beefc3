"""One chat: planned before a Runner is leased, run on it."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from puna.chat.calls import DEFAULT_SYNTAX, CallPlan, plan_calls
from puna.chat.fit import room
from puna.chat.harmony import MARKS as HARMONY_MARKS
from puna.chat.harmony import HarmonySplitter
from puna.chat.text import Splitter, TextStream, ThinkingSplitter
from puna.chat.turns import spelled_out, told, with_short_ids
from puna.engine.runner import Constraint, Feature, Runner, RunnerInfo
from puna.errors import InvalidRequest, ModelFileError, Unsupported
from puna.grammar.around import after_thinking
from puna.grammar.schema import conforms
from puna.inference.choice import Choice
from puna.inference.controls import all_control_bytes, control_bytes, in_a_form
from puna.inference.decode import Job, decode_all, prompt_size
from puna.inference.prompt import ChatPrompt, Rendering, build_prompt, chat_prompt, whole_messages
from puna.inference.report import done, started, whole
from puna.inference.sampling import Decided, choice_seed, cut_context, decide, first_seed, require, sampling
from puna.inference.think import think_arguments
from puna.inference.thought import ThoughtLimit, ThoughtWatch, closing_text
from puna.model.capabilities import Capability
from puna.model.model import Model
from puna.template.facts import HARMONY, ChatTemplate, TemplateFacts, ThinkTags
from puna.types import AudioPart, ChatRequest, Event, ImagePart, JsonOutput, Message, Part


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """All that is known of a chat without its runner. `messages` are those the template gets, but for fitting."""

    model: Model
    request: ChatRequest
    rendering: Rendering
    messages: tuple[Message, ...]
    calls: CallPlan
    ignored: tuple[str, ...]
    media: str | None
    """Where the first image or sound is."""

    @property
    def facts(self) -> TemplateFacts:
        return self.rendering.template.facts


def plan_chat(model: Model, template: ChatTemplate, request: ChatRequest) -> ChatPlan:
    """Decides all that can be; raises what the model, its template or the request's tools and schema do not allow."""
    _check_model(model, template, request)
    facts = template.facts
    calls = plan_calls(
        request.tools,
        request.tool_choice,
        parallel=request.parallel_tool_calls,
        native=facts.tools and facts.tool_calls,
        syntax=facts.syntax,
        output=request.output,
    )
    arguments, ignored = think_arguments(request.think, request.template_arguments, facts)
    if request.think_budget is not None and facts.thinking is None and _thinks(model, template):
        # It thinks, but by which tags is not known.
        ignored = (*ignored, "think_budget")
    return ChatPlan(
        model=model,
        request=request,
        rendering=Rendering(template, calls.tools, arguments, request.prefill, model.header),
        messages=_messages(whole_messages(model, request), calls, facts),
        calls=calls,
        ignored=(*calls.ignored, *ignored, *_dropped_names(request, facts), *_unread(request, template)),
        media=_first(request.messages, ImagePart, AudioPart),
    )


def _dropped_names(request: ChatRequest, facts: TemplateFacts) -> list[str]:
    """Speakers that the template does not tell apart. A tool's own name it takes from the call."""
    if facts.names:
        return []
    named = (index for index, message in enumerate(request.messages) if message.name and message.role != "tool")
    return [f"messages[{index}].name" for index in named]


_GO_NAMES = {"enable_thinking": "Think", "reasoning_effort": "ThinkLevel"}
"""What templates of Ollama's language call the same."""


def _unread(request: ChatRequest, template: ChatTemplate) -> list[str]:
    """Template arguments that the template nowhere names."""
    return [
        f"template_arguments.{name}"
        for name in request.template_arguments
        if not any(re.search(rf"\b{re.escape(word)}\b", template.source) for word in (name, _GO_NAMES.get(name, name)))
    ]


def _check_model(model: Model, template: ChatTemplate, request: ChatRequest) -> None:
    name = model.name.short
    if Capability.COMPLETION not in model.capabilities:
        raise Unsupported(f'"{name}" does not support chat', param="model")
    if request.template is not None:
        try:
            template.check()
        except ModelFileError as error:
            raise InvalidRequest(f"template error: {error}", param="template") from error
    if not template.facts.user:
        whose = f'of "{name}"' if request.template is None else "of this request"
        param = "model" if request.template is None else "template"
        raise Unsupported(f"the template {whose} has no place for what a user says", param=param)
    if request.think and not request.think_if_able and not _thinks(model, template):
        raise Unsupported(f'"{name}" does not support thinking', param="think")
    if Capability.VISION not in model.capabilities and (place := _first(request.messages, ImagePart)):
        raise Unsupported(
            f'"{name}" does not support images: {model.unused or "it has no vision projector"}', param=place
        )
    if Capability.AUDIO not in model.capabilities and (place := _first(request.messages, AudioPart)):
        raise Unsupported(
            f'"{name}" does not support audio: {model.unused or "it has no audio projector"}', param=place
        )


def _thinks(model: Model, template: ChatTemplate) -> bool:
    return Capability.THINKING in model.capabilities or template.facts.thinking is not None


def _first(messages: Sequence[Message], *kinds: type[Part]) -> str | None:
    """Where the first part of these kinds is."""
    for index, message in enumerate(messages):
        for at, part in enumerate(message.content):
            if isinstance(part, kinds):
                return f"messages[{index}].content[{at}]"
    return None


def _messages(messages: tuple[Message, ...], calls: CallPlan, facts: TemplateFacts) -> tuple[Message, ...]:
    """Past calls in the form that this template, or these instructions, speak of."""
    called = any(message.tool_calls for message in messages)
    answered = any(message.role == "tool" for message in messages)
    if calls.instructions or (called and not facts.tool_calls) or (answered and not facts.tool_results):
        messages = spelled_out(messages, DEFAULT_SYNTAX)
    elif called and not facts.raw_arguments:
        messages = spelled_out(messages, DEFAULT_SYNTAX, unreadable_only=True)
    if not facts.any_id:
        messages = with_short_ids(messages)
    return told(messages, calls.instructions) if calls.instructions else messages


@dataclass(frozen=True, slots=True)
class CountedPrompt:
    """A chat's prompt and how long it is. `tokens` None: media are among them, which have no ids. `ignored`,
    `ignored_parameters` as in Started.
    """

    count: int
    tokens: tuple[int, ...] | None
    ignored: tuple[str, ...]
    ignored_parameters: tuple[str, ...]


class ChatRun:
    """A chat request on its way through a runner. `runner` is leased for as long as the run is used."""

    def __init__(self, plan: ChatPlan, runner: Runner, watch: ThoughtWatch | None = None) -> None:
        """`watch`: by which somebody else may end its thoughts."""
        self._plan = plan
        self._runner = runner
        self._watch = watch

    async def prompt(self) -> ChatPrompt:
        """Rendered, tokenised and fitted."""
        return await chat_prompt(self._runner, self._plan.rendering, self._plan.messages, self._plan.request)

    async def counted(self) -> CountedPrompt:
        """The prompt's tokens, whether it fits or not."""
        _check_features(self._runner.info, self._plan)
        built = await build_prompt(self._runner, self._plan.rendering, self._plan.messages, self._plan.request)
        plan, count = self._plan, await prompt_size(self._runner, built.prompt)
        cut, cut_parameters = cut_context(plan.request.options, plan.model, self._runner.info.num_ctx)
        return CountedPrompt(
            count,
            None if built.prompt.media else built.prompt.tokens,
            (*cut, *plan.ignored, *(self._changed() if built.changed else ())),
            (*plan.model.ignored_parameters, *cut_parameters),
        )

    async def events(self, began: int, load_ns: int) -> AsyncGenerator[Event, None]:
        """All events, none begun. `began`: when the request came, `load_ns`: how long its lease took."""
        plan, request, info = self._plan, self._plan.request, self._runner.info
        decided = decide(request.options, plan.model.options, info)
        _check_features(info, plan)
        built = await self.prompt()
        unused: tuple[str, ...] = ()
        if request.prediction is not None:
            if Feature.PREDICTION in info.features:
                built = await self._with_prediction(built, request.prediction)
            else:
                unused = ("prediction",)
        jobs = await self._jobs(decided, built)
        first = started(
            request.model,
            plan.model,
            info,
            request.options,
            # What stands for media in a text is none to go on with.
            prompt=() if built.prompt.media else built.prompt.tokens,
            dropped=built.dropped,
            ignored=(*decided.ignored, *plan.ignored, *unused, *(self._changed() if built.changed else ())),
            ignored_parameters=decided.ignored_parameters,
        )
        batches = decode_all(self._runner, jobs)
        return whole(first, batches, lambda: done([jobs], began, load_ns))

    async def _with_prediction(self, built: ChatPrompt, prediction: str) -> ChatPrompt:
        """Its tokens as an answer's: what spells a control token is text."""
        tokens = await self._runner.tokenize(prediction, special=False, bos=False)
        return replace(built, prompt=replace(built.prompt, prediction=tuple(tokens)))

    def _changed(self) -> list[str]:
        """The messages in which a control token's text stands."""
        return [
            f"messages[{place}].content"
            for place, message in enumerate(self._plan.request.messages)
            if self._runner.info.markup.spans(message.text)
        ]

    async def _jobs(self, decided: Decided, built: ChatPrompt) -> list[Job]:
        request, options = self._plan.request, decided.options
        limit = room(len(built.prompt.tokens), self._runner.info.num_ctx, options.num_predict)
        seed = first_seed(options.seed, lambda: secrets.randbits(32))
        stops, markup = options.stop or (), self._runner.info.markup
        if request.output is not None or request.tool_choice.mode == "required":
            # The whole answer is a form. Where it may be free text, control tokens in that are left out as ever.
            stops = in_a_form(stops, markup) if request.options.stop is None else stops
            controls = all_control_bytes(markup)
        else:
            controls = await control_bytes(self._runner, (*stops, *self._marks()))
        constraint = self._constraint(built)
        thought = self._thought()
        jobs = []
        for index in range(request.n):
            settings = sampling(
                options,
                max_tokens=max(limit, 1),
                seed=choice_seed(seed, index),
                logprobs=request.logprobs,
                cut=thought is not None,
            )
            choice = self._choice(index, stops, controls, built)
            asked = settings if limit else None
            jobs.append(Job(choice, built.prompt, asked, constraint, computed=not index, thought=thought))
        return jobs

    def _thought(self) -> ThoughtLimit | None:
        """When thoughts are closed. None: they take as long as they take."""
        tags, budget = self._plan.facts.thinking, self._plan.request.think_budget
        if tags is None or (budget is None and self._watch is None):
            return None
        gbnf = self._plan.calls.constraint
        return ThoughtLimit(
            closing_text(tags), budget, self._watch or ThoughtWatch(), None if gbnf is None else Constraint(gbnf)
        )

    def _choice(self, index: int, stops: tuple[str, ...], controls: dict[int, bytes], built: ChatPrompt) -> Choice:
        request, calls, output = self._plan.request, self._plan.calls, self._plan.request.output
        checked = isinstance(output, JsonOutput) and not request.prefill
        return Choice(
            index,
            TextStream(stops, _splitter(self._plan.facts.thinking, built.inside), held=calls.constraint is not None),
            parser=calls.parser() if calls.form is not None else None,
            controls=controls,
            logprobs=request.logprobs is not None,
            check=partial(conforms, schema=output.schema) if checked and isinstance(output, JsonOutput) else None,
        )

    def _marks(self) -> list[str]:
        """What the model may write with control tokens and is read here."""
        tags, syntax = self._plan.facts.thinking, self._plan.facts.syntax
        marks = [tags.open, tags.close] if tags else []
        if tags == HARMONY:
            marks += HARMONY_MARKS
        if syntax is not None and self._plan.calls.form is not None:
            marks += [syntax.mark, syntax.between.strip(), syntax.after.strip("}] \n")]
        return marks

    def _constraint(self, built: ChatPrompt) -> Constraint | None:
        """What comes after a thought; the thought itself is free."""
        gbnf, tags = self._plan.calls.constraint, self._plan.facts.thinking
        if gbnf is None:
            return None
        if tags is not None and (built.inside or self._plan.request.think is not False):
            gbnf = after_thinking(gbnf, None if built.inside else tags.open, tags.close)
        return Constraint(gbnf)


def _splitter(tags: ThinkTags | None, inside: bool) -> Splitter:
    return HarmonySplitter() if tags == HARMONY else ThinkingSplitter(tags, inside=inside)


def _check_features(info: RunnerInfo, plan: ChatPlan) -> None:
    request = plan.request
    if request.logprobs is not None:
        require(info, Feature.LOGPROBS, "log-probabilities", "logprobs")
    if plan.calls.constraint is not None:
        require(info, Feature.CONSTRAINT, "constrained output", "tools" if plan.calls.form else "output")
    if plan.media is not None:
        require(info, Feature.MEDIA, "images and audio", plan.media)

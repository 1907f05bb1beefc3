"""Decisions: how likely each of some texts is to be the answer of a chat. See `labels` for what that means.

An answer is looked for where the template puts one, without a thought.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from puna.engine.runner import Feature, Runner
from puna.errors import ContextLengthExceeded, InvalidRequest, Unsupported
from puna.inference.chat import ChatPlan, ChatRun
from puna.inference.labels import LabelIds, label_logprobs, shares
from puna.inference.prompt import ChatPrompt
from puna.inference.sampling import cut_context, require
from puna.template.facts import HARMONY, TemplateFacts
from puna.types import ChatRequest, DecisionRequest, Decisions, Message, TextPart, Timings, Usage


def asked_chats(request: DecisionRequest) -> list[ChatRequest]:
    """A chat for each question: the conversation, then the question, in one turn with what the user said last."""
    return [
        ChatRequest(
            model=request.model,
            messages=_asked(request.messages, question.text),
            options=request.options,
            think=False,
        )
        for question in request.questions
    ]


def _asked(messages: tuple[Message, ...], question: str) -> tuple[Message, ...]:
    if not messages or messages[-1].role != "user":
        return (*messages, Message.of("user", question))
    last = messages[-1]
    return (*messages[:-1], replace(last, content=(*last.content, TextPart(f"\n{question}"))))


async def decisions(
    runner: Runner, plans: Sequence[ChatPlan], request: DecisionRequest, began: int, load_ns: int
) -> Decisions:
    """`plans`: of the questions' chats, in order."""
    require(runner.info, Feature.SCORE, "log-probabilities of given texts", "questions")
    ready = time.perf_counter_ns()
    probabilities: list[tuple[float, ...]] = []
    usage = Usage()
    for place, (plan, question) in enumerate(zip(plans, request.questions, strict=True)):
        found, counted = await _decide(runner, plan, question.labels, f"questions[{place}]")
        probabilities.append(found)
        usage = Usage(prompt=usage.prompt + counted.prompt, cached=usage.cached + counted.cached)
    model = plans[0].model
    cut, cut_parameters = cut_context(request.options, model, runner.info.num_ctx)
    now = time.perf_counter_ns()
    return Decisions(
        probabilities=tuple(probabilities),
        usage=usage,
        timings=Timings(total=now - began, load=load_ns, prompt=now - ready),
        ignored=cut,
        ignored_parameters=(*model.ignored_parameters, *cut_parameters),
    )


async def _decide(runner: Runner, plan: ChatPlan, labels: Sequence[str], where: str) -> tuple[tuple[float, ...], Usage]:
    built = await ChatRun(plan, runner).prompt()
    if built.prompt.media:
        raise Unsupported(
            "decisions are made of text: the tokens of images and sounds have no labels", param="messages"
        )
    before, tail = await _answer_place(runner, built, plan.facts)
    texts = [await _continued(runner, before, tail, label) for label in labels]
    if len(set(texts)) < len(texts):
        raise InvalidRequest(f"{where}: two labels are the same to this model", param=where)
    longest = max(map(len, texts))
    if longest > runner.info.num_ctx:
        raise ContextLengthExceeded(longest, runner.info.num_ctx)
    common = min(_common(texts), min(map(len, texts)) - 1)
    logprobs, cached = await label_logprobs(runner, texts[0][:common], [text[common:] for text in texts])
    return shares([text[common:] for text in texts], logprobs), Usage(prompt=len(before), cached=cached)


async def _answer_place(runner: Runner, built: ChatPrompt, facts: TemplateFacts) -> tuple[LabelIds, str]:
    """The prompt up to where the answer's text begins, and the text that this goes on with.

    A thought that the prompt has begun is closed, and a model that cannot be told not to think gets an empty one;
    Harmony's answers are in a channel of their own.
    """
    tokens, tags, switch = built.prompt.tokens, facts.thinking, facts.switch
    if tags == HARMONY:
        opened = await runner.tokenize("<|channel|>final<|message|>", special=True, bos=False)
        return (*tokens, *opened), ""
    if tags is not None and (built.inside or not switch):
        thought = f"{'' if built.inside else tags.open}\n\n{tags.close}\n\n"
        return (*tokens, *await runner.tokenize(thought, special=True, bos=False)), "\n\n"
    return tokens, built.tail


async def _continued(runner: Runner, before: LabelIds, tail: str, label: str) -> LabelIds:
    """`before`, and `label` as it goes on with its last text: what a tokenizer makes of both together."""
    ends = await runner.tokenize(tail, special=False, bos=False) if tail else []
    if ends and list(before[-len(ends) :]) == ends:
        return (*before[: -len(ends)], *await runner.tokenize(tail + label, special=False, bos=False))
    return (*before, *await runner.tokenize(label, special=False, bos=False))


def _common(texts: Sequence[LabelIds]) -> int:
    """How many tokens all of them begin with."""
    columns = zip(*texts, strict=False)
    return next((place for place, column in enumerate(columns) if len(set(column)) > 1), min(map(len, texts)))

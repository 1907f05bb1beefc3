"""What is done with messages for templates that cannot take them as they are. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace
from itertools import groupby

from puna.template.facts import PROBED_ID, CallSyntax
from puna.template.shaping import arguments_json, unreadable
from puna.types import (
    Message,
    Part,
    TextPart,
    ToolCall,
)


def told(messages: Sequence[Message], instructions: str) -> tuple[Message, ...]:
    """The messages with `instructions` at the end of the first system message, which is made if there is none."""
    first = next((place for place, message in enumerate(messages) if message.role == "system"), None)
    if first is None:
        return (Message.of("system", instructions), *messages)
    system = messages[first]
    longer = replace(system, content=(*system.content, TextPart(f"\n{instructions}")))
    return (*messages[:first], longer, *messages[first + 1 :])


def spelled_out(
    messages: Sequence[Message], syntax: CallSyntax, *, unreadable_only: bool = False
) -> tuple[Message, ...]:
    """Calls and their results as plain text, for a template that has no place for them.

    `unreadable_only`: only the calls that are `unreadable`, and what answers them.
    """
    turns: list[Message] = []
    spelled: set[str | None] = set()
    results: list[Part] = []
    for message in messages:
        if message.role == "tool" and (not unreadable_only or message.tool_call_id in spelled):
            results += _result(message)
            continue
        if results:
            turns.append(Message("user", tuple(results)))
            results = []
        meant = {call for call in message.tool_calls if not unreadable_only or unreadable(call)}
        spelled.update(call.id for call in meant)
        turns.append(_with_calls(message, meant, syntax))
    return (*turns, Message("user", tuple(results))) if results else tuple(turns)


def _result(message: Message) -> tuple[Part, ...]:
    """Of a tool, as text; images in it stay where they are."""
    if all(isinstance(part, TextPart) for part in message.content):
        return (TextPart(f"<tool_response>\n{message.text}\n</tool_response>"),)
    return (TextPart("<tool_response>\n"), *message.content, TextPart("\n</tool_response>"))


def _with_calls(message: Message, meant: Set[ToolCall], syntax: CallSyntax) -> Message:
    calls = tuple(
        TextPart(f"{syntax.before}{call.name}{syntax.between}{_arguments_text(call)}{syntax.after}")
        for call in message.tool_calls
        if call in meant
    )
    others = tuple(call for call in message.tool_calls if call not in meant)
    return replace(message, content=(*message.content, *calls), tool_calls=others) if calls else message


def _arguments_text(call: ToolCall) -> str:
    value = arguments_json(call)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def plainer(messages: Sequence[Message], syntax: CallSyntax) -> Iterator[tuple[Message, ...]]:
    """The same conversation in forms that more templates take, for one that refuses it.

    First with one call a turn; then with calls and results as text, and one turn of a speaker between two of the other.
    """
    if any(len(message.tool_calls) > 1 for message in messages):
        yield _one_call_each(messages)
    spelled = _joined(spelled_out(messages, syntax))
    if spelled != tuple(messages):
        yield spelled


def _one_call_each(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Each call of a turn in a turn of its own, before its result."""
    turns: list[Message] = []
    waiting = deque(messages)
    while waiting:
        message = waiting.popleft()
        if len(message.tool_calls) < 2:
            turns.append(message)
            continue
        results: list[Message] = []
        while waiting and waiting[0].role == "tool":
            results.append(waiting.popleft())
        turns += _called_one_by_one(message, results)
    return tuple(turns)


def _called_one_by_one(message: Message, results: Sequence[Message]) -> Iterator[Message]:
    """A result that names no call answers the first without one; one that answers none comes last."""
    answers: dict[str | None, deque[Message]] = {}
    for result in results:
        answers.setdefault(result.tool_call_id, deque()).append(result)
    for number, call in enumerate(message.tool_calls):
        said = message if number == 0 else replace(message, content=(TextPart(""),), thinking=None)
        yield replace(said, tool_calls=(call,))
        found = answers.get(call.id) or answers.get(None)
        if found:
            yield found.popleft()
    for left in answers.values():
        yield from left


def _joined(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Neighbours of the user's, and of the assistant's, are one turn; an empty line stands between their texts."""
    turns: list[Message] = []
    for role, group in groupby(messages, key=lambda message: message.role):
        members = list(group)
        if len(members) == 1 or role in {"system", "tool"}:
            turns += members
            continue
        thinking = "\n\n".join(message.thinking for message in members if message.thinking)
        calls = tuple(call for message in members for call in message.tool_calls)
        content = tuple(_paragraphs(part for message in members for part in message.content))
        turns.append(replace(members[-1], content=content, thinking=thinking or None, tool_calls=calls))
    return tuple(turns)


def _paragraphs(parts: Iterable[Part]) -> Iterator[Part]:
    """Neighbouring texts as one."""
    for text, group in groupby(parts, key=lambda part: isinstance(part, TextPart)):
        if text:
            yield TextPart("\n\n".join(part.text for part in group if isinstance(part, TextPart)))
        else:
            yield from group


def with_short_ids(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Each call with an id of nine letters and digits, and what answers it with the same.

    A result that names no call answers the first one of its name that has no answer yet, or else the first at all.
    """
    turns: list[Message] = []
    waiting = _Unanswered(())
    for place, message in enumerate(messages):
        if message.tool_calls:
            calls = tuple(replace(call, id=_short(call.id, place, at)) for at, call in enumerate(message.tool_calls))
            waiting = _Unanswered(zip(message.tool_calls, calls, strict=True))
            turns.append(replace(message, tool_calls=calls))
            continue
        if message.role == "tool" and waiting.calls:
            turns.append(replace(message, tool_call_id=waiting.answered(message)))
            continue
        turns.append(message)
    return tuple(turns)


class _Unanswered:
    """The calls of a turn that have no answer yet: by number, in order, under the ids that they get."""

    def __init__(self, calls: Iterable[tuple[ToolCall, ToolCall]]) -> None:
        self.calls: dict[int, str] = {}
        self._of_id: dict[str | None, deque[int]] = {}
        self._of_name: dict[str | None, deque[int]] = {}
        for number, (old, new) in enumerate(calls):
            self.calls[number] = new.id
            self._of_id.setdefault(old.id, deque()).append(number)
            self._of_name.setdefault(new.name, deque()).append(number)
        self._in_order = deque(self.calls)

    def answered(self, result: Message) -> str:
        """The id of the call that this answers, which has its answer now."""
        for numbers in (self._of_id.get(result.tool_call_id), self._of_name.get(result.name), self._in_order):
            while numbers and numbers[0] not in self.calls:
                numbers.popleft()
            if numbers:
                return self.calls.pop(numbers[0])
        raise AssertionError("none is left")


def _short(id_: str, *place: int) -> str:
    """The id itself if it is such a one; else always the same for the same id at the same place."""
    if len(id_) == len(PROBED_ID) and id_.isascii() and id_.isalnum():
        return id_
    return hashlib.sha256(f"{place} {id_}".encode()).hexdigest()[: len(PROBED_ID)]

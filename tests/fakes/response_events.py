"""The order that the events of a response have, told apart from the code that makes them.

A checker of its own, from OpenAI's description: it knows nothing of how Puna tells an answer.
"""

from __future__ import annotations

import json
from typing import Any

from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ENDS = ("response.completed", "response.incomplete", "response.failed")
PARTS = {
    "response.output_text": ("response.content_part", "content_index", "text"),
    "response.reasoning_text": ("response.content_part", "content_index", "text"),
    "response.reasoning_summary_text": ("response.reasoning_summary_part", "summary_index", "text"),
    "response.function_call_arguments": ("", "", "arguments"),
    "response.custom_tool_call_input": ("", "", "input"),
}
"""What a kind of delta grows: the part that it belongs to, that part's index, the word for all of it."""


def read_events(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream; each is named as its data says."""
    events = []
    for block in body.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        assert [line.partition(":")[0] for line in lines] == ["event", "data"], lines
        event = json.loads(lines[1].removeprefix("data: "))
        assert event["type"] == lines[0].removeprefix("event: ")
        events.append(event)
    return events


def check_events(events: list[dict[str, Any]], *, background: bool = False) -> dict[str, Any]:
    """The response they tell. AssertionError where the order, a number or a text is wrong, or OpenAI's types have no
    such event."""
    for event in events:
        EVENT.validate_python(event, strict=False)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    first = ["response.created", *(["response.queued"] if background else []), "response.in_progress"]
    if events[len(first) - 1]["type"] == "response.failed":
        del first[-1]  # the work never began
    assert [event["type"] for event in events[: len(first)]] == first
    assert events[-1]["type"] in ENDS
    assert not [event for event in events[:-1] if event["type"] in ENDS]
    whole = [event["response"] for event in events if "response" in event]
    assert len({response["id"] for response in whole}) == 1
    output: list[dict[str, Any]] = []
    rest = events[len(first) : -1]
    while rest:
        rest = rest[_item(rest, len(output), output) :]
    assert whole[-1]["output"] == output
    return dict(whole[-1])


def _item(events: list[dict[str, Any]], index: int, output: list[dict[str, Any]]) -> int:
    """The first item of `events` is number `index`. How many events it took."""
    added = events[0]
    assert (added["type"], added["output_index"]) == ("response.output_item.added", index)
    begun = added["item"]
    assert begun.get("status", "in_progress") == "in_progress"
    last = next(place for place, event in enumerate(events) if event["type"] == "response.output_item.done")
    done, inner = events[last]["item"], events[1:last]
    assert (events[last]["output_index"], done["id"], done["type"]) == (index, begun["id"], begun["type"])
    assert all(event["output_index"] == index and event["item_id"] == begun["id"] for event in inner)
    assert done.get("call_id") == begun.get("call_id")
    assert done["status"] in {"completed", "incomplete"}
    kinds = {event["type"].rpartition(".")[0] for event in inner if event["type"].endswith(".delta")}
    assert len(kinds) <= 1, kinds
    kind = kinds.pop() if kinds else next(event["type"].rpartition(".")[0] for event in inner if _grown(event))
    part, place, word = PARTS[kind]
    wanted = [f"{part}.added"] * bool(part)
    deltas = [event for event in inner if event["type"] == f"{kind}.delta"]
    wanted += [f"{kind}.delta"] * len(deltas) + [f"{kind}.done"] + [f"{part}.done"] * bool(part)
    assert [event["type"] for event in inner] == wanted
    assert all(event[place] == 0 for event in inner if place)
    text = "".join(event["delta"] for event in deltas)
    assert next(event[word] for event in inner if event["type"] == f"{kind}.done") == text
    if part:
        shown = (done.get("summary") or done["content"])[0]
        assert (inner[-1]["part"], shown["text"]) == (shown, text)
        assert inner[0]["part"]["text"] == ""
    else:
        assert (begun[word], done[word]) == ("", text)
    output.append(done)
    return last + 1


def _grown(event: dict[str, Any]) -> bool:
    return event["type"].rpartition(".")[0] in PARTS

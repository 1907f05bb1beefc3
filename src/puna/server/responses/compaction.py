"""A conversation made short: what its model says of it, as an item that stands for all that was."""

from __future__ import annotations

import time

from puna.errors import EngineError
from puna.server.contract.report import Report
from puna.server.responses.convert import SUMMARY
from puna.server.responses.ids import ResponseIds
from puna.server.responses.objects import PREFIXES, usage_json
from puna.server.responses.thought import sealed
from puna.types import Answer, Done, Finished, JsonObject, Started, TextDelta, Usage


async def compacted(answer: Answer, report: Report, ids: ResponseIds) -> JsonObject:
    """OpenAI's object. Its one item is given back in the place of the conversation. A summary that was cut is told."""
    text: list[str] = []
    usage: Usage | None = None
    async with report.reading(answer) as events:
        async for event in events:
            match event:
                case Started():
                    report.start(event)
                case TextDelta():
                    text.append(event.text)
                case Finished(reason="length"):
                    report.cut()
                case Done():
                    usage = event.usage
                case _:
                    pass
    if usage is None:
        raise EngineError("the engine gave no whole answer")
    item: JsonObject = {
        "id": ids.next(PREFIXES["compaction"]),
        "type": "compaction",
        "encrypted_content": sealed(SUMMARY + "".join(text).strip()),
    }
    return {
        "id": ids.whole("resp"),
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [item],
        "usage": usage_json(usage),
    }

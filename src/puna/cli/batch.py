"""`batch run`: a file of requests, answered into a file, with or without a server.

What is answered is written at once: the same command goes on where it stood.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from puna.cli.connect import store
from puna.cli.progress import counting, error_console, stopping
from puna.client.client import Client
from puna.errors import PunaError

if TYPE_CHECKING:
    from puna.types import JsonObject

TRIES = 3
"""Of a line whose answer says that it is worth another try."""

_PATH = re.compile("/v1/[A-Za-z0-9_/-]+")
_FAULTS = 20
"""Of the input, that are told."""


class UnfitInput(PunaError):
    """The input is no file of requests."""


class LinesFailed(PunaError):
    """Some lines were answered with an error."""


@dataclass(frozen=True, slots=True)
class AskedLine:
    """One line: a request."""

    custom_id: str
    url: str
    body: JsonObject


async def run(source: Path, target: Path, parallel: int) -> None:
    """UnfitInput before anything is asked; LinesFailed at the end. What `target` has already is not asked again."""
    lines = read_input(source)
    console = error_console()
    with _opened(target) as output:
        done = kept(output)
        failed = sum(done.get(line.custom_id, False) for line in lines)
        left = [line for line in lines if line.custom_id not in done]
        if done:
            console.print(f"{len(lines) - len(left)} of {len(lines)} lines are in {target} already", markup=False)
        told = f"Stopped. The lines that were answered are in {target}; the same command goes on."
        async with store() as client:
            with stopping(told, console), counting(console, "answering", len(lines), len(lines) - len(left)) as shown:
                waiting = iter(left)

                async def work() -> None:
                    nonlocal failed
                    for line in waiting:
                        answer = await _answer(client, line)
                        output.write(json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
                        output.flush()
                        failed += _failed(answer)
                        shown()

                await _all([work() for _ in range(min(parallel, len(left)))])
        os.fsync(output.fileno())
    console.print(f"{len(lines)} lines are answered in {target}", markup=False)
    if failed:
        raise LinesFailed(f"{failed} of {len(lines)} lines failed: their answers in {target} say why")


def _opened(target: Path) -> BinaryIO:
    try:
        return target.open("a+b")
    except OSError as error:
        raise UnfitInput(f"cannot write {target}: {error.strerror or error}") from error


def read_input(source: Path) -> list[AskedLine]:
    """The requests of a file. UnfitInput names the lines that are none."""
    lines: list[AskedLine] = []
    faults: list[str] = []
    ids: set[str] = set()
    try:
        with source.open("rb") as file:
            for number, text in enumerate(file, 1):
                if not text.strip():
                    continue
                line = _read(text)
                if isinstance(line, AskedLine) and line.custom_id in ids:
                    line = f"a line before has the custom_id {line.custom_id!r}"
                if isinstance(line, str):
                    faults.append(f"line {number}: {line}")
                else:
                    ids.add(line.custom_id)
                    lines.append(line)
    except OSError as error:
        raise UnfitInput(f"cannot read {source}: {error.strerror or error}") from error
    if faults:
        more = f"\n… and {len(faults) - _FAULTS} more" if len(faults) > _FAULTS else ""
        raise UnfitInput(f"{source} is no file of requests:\n" + "\n".join(faults[:_FAULTS]) + more)
    if not lines:
        raise UnfitInput(f"{source} has no lines")
    return lines


def _read(text: bytes) -> AskedLine | str:
    """The request of a line; or what is wrong with it."""
    try:
        value = json.loads(text.decode("utf-8-sig"))
    except ValueError:
        return "it is no JSON"
    if not isinstance(value, dict):
        return "it is no JSON object"
    custom_id, url, body = value.get("custom_id"), value.get("url"), value.get("body")
    if not isinstance(custom_id, str) or not custom_id:
        return "'custom_id' must be a text"
    if value.get("method", "POST") != "POST":
        return "'method' must be POST"
    if not isinstance(url, str) or not _PATH.fullmatch(url):
        return "'url' must be a path such as /v1/chat/completions"
    if not isinstance(body, dict):
        return "'body' must be an object"
    if body.get("stream"):
        return "answers are not streamed here"
    if body.get("background"):
        return "answers are waited for here: none is made in the background"
    return AskedLine(custom_id, url, body)


_BEGINNING = b'{"id": "batch_'
"""Of a line that is an answer."""


def kept(output: BinaryIO) -> dict[str, bool]:
    """The custom_ids of the whole lines of a file, and whether they failed. It then ends behind its last whole line.

    UnfitInput where it is a file of something else.
    """
    output.seek(0)
    done: dict[str, bool] = {}
    end = 0
    for text in output:
        whole = text.endswith(b"\n")
        answer = _answered(text) if whole else None
        if answer is None and (whole or not (text.startswith(_BEGINNING) or _BEGINNING.startswith(text))):
            raise UnfitInput(f"{output.name} holds something else than answers: name another file")
        if answer is None:
            break
        done[str(answer["custom_id"])] = _failed(answer)
        end += len(text)
    output.truncate(end)
    output.seek(end)
    return done


def _answered(text: bytes) -> JsonObject | None:
    """A line that is an answer; a request is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict) or "response" not in value or not isinstance(value.get("custom_id"), str):
        return None
    return value


async def _answer(client: Client, line: AskedLine) -> JsonObject:
    tries = 0
    while True:
        answer = await client.ask_line(line.url, line.body)
        tries += 1
        if answer.retry_after is None or tries == TRIES:
            break
        await asyncio.sleep(answer.retry_after)
    response: JsonObject = {"status_code": answer.status, "request_id": answer.request_id, "body": answer.body}
    if answer.reported:
        response["headers"] = answer.reported
    return {"id": f"batch_{answer.request_id}", "custom_id": line.custom_id, "response": response, "error": None}


def _failed(answer: JsonObject) -> bool:
    response = answer["response"]
    return isinstance(response, dict) and response.get("status_code") != 200


async def _all(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Until all are done, or one has failed: then the others end."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

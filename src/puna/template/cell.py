"""A process that runs other people's templates: one order after the other, each within bounds.

It can write to one socket and has little memory. Whatever a template does to it, it does to this process alone: when
it needs too much time or memory the process ends, and its cage takes another.
"""

from __future__ import annotations

import os
import socket
import sys
from functools import lru_cache
from typing import Any

import pydantic_core  # noqa: F401  what a first order needs is there before it comes

from puna.engine import leash
from puna.engine.confines import bound_memory, bound_time
from puna.errors import InvalidRequest, ModelFileError, TemplateTooCostly
from puna.template.gotemplate import GoTemplate
from puna.template.jinja import JinjaTemplate
from puna.template.languages import TemplateKey, compile_template
from puna.template.order import HEAD, CellAnswer, Errand, Opened, pack_answer, read_order

CPU_SECONDS = 0.7
"""Of a processor, that one order may take: a template's trials all together."""

ROOM = 256 << 20
"""Bytes of memory beyond those that an idle cell has."""

_TOO_LARGE = f"the model's chat template takes more than {ROOM >> 20} MB of memory"

_compiled = lru_cache(maxsize=64)(compile_template)


def work(job: Errand, key: TemplateKey, arguments: Any) -> CellAnswer:
    """The answer to one order; never an exception but MemoryError."""
    try:
        return _done(_compiled(key), job, arguments)
    except (InvalidRequest, ModelFileError) as error:
        return error
    except RecursionError:
        return TemplateTooCostly("the model's chat template is nested too deep")


def _done(template: GoTemplate | JinjaTemplate, job: Errand, arguments: Any) -> CellAnswer:
    match job:
        case "open":
            return Opened(template.facts, template.inserts)
        case "read":
            return Opened(template.told, template.inserts)
        case "check":
            template.check()
            return None
        case "render":
            return template.render_json(
                arguments["messages"],
                arguments["tools"],
                add_generation_prompt=arguments["add_generation_prompt"],
                arguments=arguments["arguments"],
            )
        case "insert":
            return template.insert(arguments["prompt"], arguments["suffix"])


def _connection() -> socket.socket:
    if sys.platform == "win32":
        return socket.fromshare(sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(4), "little")))
    return socket.socket(fileno=os.dup(0))


def _receive(connection: socket.socket, size: int) -> bytes:
    """So many bytes; b"" when the other side is gone."""
    data = bytearray()
    while len(data) < size:
        more = connection.recv(min(size - len(data), 1 << 20))
        if not more:
            return b""
        data += more
    return bytes(data)


def serve(connection: socket.socket) -> None:
    """Until the other side is gone."""
    while head := _receive(connection, HEAD.size):
        order = _receive(connection, HEAD.unpack(head)[0])
        if not order:
            return
        bound_time(CPU_SECONDS)
        try:
            answer = pack_answer(work(*read_order(order)))
        except MemoryError:
            answer = pack_answer(TemplateTooCostly(_TOO_LARGE))
        bound_time(0)
        connection.sendall(HEAD.pack(len(answer)) + answer)
        del order, answer


def main() -> None:
    leash.ignore_interrupt()
    connection = _connection()
    bound_memory(ROOM)
    serve(connection)


if __name__ == "__main__":
    main()

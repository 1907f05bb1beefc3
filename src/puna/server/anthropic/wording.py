"""What is wrong with a request, in OpenAI's words, which name the field; by a code, what its clients act upon."""

from __future__ import annotations

from puna.errors import Unsupported
from puna.server.contract.faults import Wording
from puna.server.openai import wording as openai

_FELL_BACK = "thread"
"""A client that reads the code of this refusal goes on without it."""


def _refused(path: str, meaning: str) -> Unsupported:
    error = openai.WORDING.refused(path, meaning)
    if path == _FELL_BACK:
        error.code = "thread_unsupported_request"
    return error


WORDING = Wording(openai.WORDING.fault, openai.WORDING.unknown, _refused)

"""What OpenAI runs on its own machines and this server does not: refused by its name. Pure."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from puna.server.contract.shapes import Refused
from puna.server.openai.wording import UNSUPPORTED


def _refuse(name: str) -> str:
    raise PydanticCustomError(UNSUPPORTED, "This server has no '{name}': it runs no tools of its own.", {"name": name})


_MEANING = "This server runs no tools of its own; each is refused by its name. Send functions or custom tools."

HostedTool: TypeAlias = Annotated[
    Literal[
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
        "file_search",
        "code_interpreter",
        "image_generation",
        "mcp",
        "computer",
        "computer_use",
        "computer_use_preview",
        "local_shell",
        "shell",
        "apply_patch",
        "tool_search",
        "programmatic_tool_calling",
    ],
    AfterValidator(_refuse),
    Refused(_MEANING),
]
"""The type of a tool that OpenAI runs itself, or knows the form of."""

HostedItem: TypeAlias = Annotated[
    Literal[
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "computer_call",
        "computer_call_output",
        "local_shell_call",
        "local_shell_call_output",
        "shell_call",
        "shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
        "tool_search_call",
        "tool_search_output",
        "additional_tools",
        "configuration_update",
        "compaction_trigger",
        "program",
        "program_output",
    ],
    AfterValidator(_refuse),
    Refused("What such tools did, or changes of settings in the middle; each is refused by its name."),
]
"""The type of an item of such a tool."""

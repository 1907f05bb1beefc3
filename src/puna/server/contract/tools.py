"""How many tools a request may have, and what their names may be, in every dialect. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from puna.chat.callparser import NAME

MAX_TOOLS = 1_024
ToolName = Annotated[str, Field(min_length=1, max_length=256, pattern=NAME)]

"""How much a chat template may write, in whichever language: it comes with a model, and is not trusted."""

from __future__ import annotations

MAX_OUTPUT = 32_000_000
"""Characters of a prompt's text."""

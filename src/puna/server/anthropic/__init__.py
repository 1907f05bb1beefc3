"""Anthropic's dialect: `/v1/messages`, counting, models in its form."""

"""Ollama's native API. `routes.routes(services)` is all that the rest of the server needs."""

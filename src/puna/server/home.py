"""`/`: to Ollama's clients the text that they look for, to a browser a small page of what is here and how to use it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

import puna
from puna.human import human_bytes, human_past, human_until
from puna.model.listed import Listed
from puna.scheduler.place import Loaded
from puna.server.services import Services

RUNNING = "Ollama is running"
"""Clients look for exactly this text."""

_ENDPOINTS = (
    ("OpenAI", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models"),
    ("Anthropic", "/v1/messages", "/v1/messages/count_tokens"),
    ("Ollama", "/api/chat", "/api/generate", "/api/embed", "/api/tags", "/api/ps", "/api/show", "/api/pull"),
    ("State", "/health", "/ready", "/metrics", "/api/version"),
)

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --dim: #777; }
@media (prefers-color-scheme: dark) { :root { --dim: #999; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; overflow-wrap: anywhere; }
th, td { border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--dim); }
code { font: .9em ui-monospace, monospace; }
pre { background: var(--soft); padding: .7rem 1rem; border-radius: .4rem; overflow-x: auto; }
p.dim { color: var(--dim); }
"""

_POLICY = "; ".join((
    "default-src 'none'",
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
))  # fmt: skip

_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "vary": "accept",
}


class Home:
    def __init__(self, services: Services) -> None:
        self._library = services.library
        self._scheduler = services.scheduler
        self._locked = bool(services.settings.api_keys)

    async def root(self, request: Request) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return PlainTextResponse(RUNNING, headers={"vary": "accept"})
        base = f"{request.url.scheme}://{request.headers.get('host', '')}"
        if self._locked:
            # A browser sends no key: whoever comes by learns no more than that it runs.
            return HTMLResponse(page(_connect(base, "YOUR_KEY", "MODEL")), headers=_HEADERS)
        models = await asyncio.to_thread(self._library.listed)
        now = datetime.now(timezone.utc)
        model = models[0].name.short if models else "smollm2"
        parts = (_loaded(self._scheduler.loaded(), now), _models(models, now), _connect(base, "ignored", model))
        return HTMLResponse(page(*parts), headers=_HEADERS)


def page(*parts: str) -> str:
    """The whole document. `parts` are HTML already."""
    title = f"Puna {escape(puna.__version__)}"
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{title} is running</h1>\n{''.join(parts)}</body>\n</html>\n"
    )


def _loaded(loaded: Sequence[Loaded], now: datetime) -> str:
    if not loaded:
        return _section("Loaded", _dim("No model is in memory; the first request to one loads it."))
    rows = [
        (
            item.model.name.short,
            item.engine,
            str(item.num_ctx),
            human_bytes(item.size),
            human_until(item.expires_at, now) if item.expires_at else "Forever",
        )
        for item in loaded
    ]
    return _section("Loaded", _table(("Model", "Engine", "Context", "Memory", "Until"), rows))


def _models(models: Sequence[Listed], now: datetime) -> str:
    if not models:
        return _section("Models", _dim("None yet.") + _code("puna pull smollm2"))
    rows = [
        (
            model.name.short,
            model.label.parameter_size,
            model.label.quantization,
            human_bytes(model.label.size),
            human_past(model.modified, now),
        )
        for model in models
    ]
    return _section("Models", _table(("Name", "Parameters", "Quantization", "Size", "Modified"), rows))


def _connect(base: str, key: str, model: str) -> str:
    python = (
        "from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base}/v1/", api_key="{key}")\n'
        'messages = [{"role": "user", "content": "Say hi."}]\n'
        f'answer = client.chat.completions.create(model="{model}", messages=messages)\n'
        "print(answer.choices[0].message.content)"
    )
    rows = [
        ("OpenAI's clients", f"base_url {base}/v1/, api_key {key}"),
        ("Ollama's clients", f"host {base}" + (f", header Authorization: Bearer {key}" if key == "YOUR_KEY" else "")),
    ]
    endpoints = [(name, " ".join(paths)) for name, *paths in _ENDPOINTS]
    return _section("Connect", _table((), rows) + _code(python)) + _section("Endpoints", _table((), endpoints))


def _section(title: str, inner: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{inner}\n"


def _dim(text: str) -> str:
    return f'<p class="dim">{escape(text)}</p>'


def _code(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = f"<tr>{''.join(f'<th>{escape(text)}</th>' for text in headers)}</tr>" if headers else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>\n" for row in rows)
    return f"<table>{head}\n{body}</table>"

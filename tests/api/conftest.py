"""The whole server over the scripted engine: a real uvicorn on a free loopback port, a store of tiny models.

    server      the running Server: `.url`, `.post`, `.get`, `.stream` …; one for the whole session
    serving     to start another one, with a script or settings of its own
    openai      OpenAI's client on `server`

Models: `tiny` (ChatML), `tools` (its template knows tools), `thinker` (its template thinks), `vision` (has a
projector), `listener` (has one that hears), `embedder` (embeds only), `ranker` (ranks only), `says-yes` (ranks by two
words), `begins` (its texts begin with a token for that).
"""

from __future__ import annotations

import asyncio
import atexit
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from fakes.gguf_files import CHATML, Value, write_tiny_llama
from fakes.raw_http import Answer
from puna.engine.scripted import Script, ScriptedEngine
from puna.model.digest import Digest
from puna.model.manifest import CONFIG_TYPE, MODEL_TYPE, PROJECTOR_TYPE, Config, Layer, Manifest
from puna.model.name import Name
from puna.server.run import Server as Uvicorn
from puna.server.run import bound, listening, parts
from puna.server.services import Services
from puna.settings import Address, Settings
from puna.store.library import Library
from puna.template.cage import Cage

SCRIPT: dict[str, Any] = {
    "rules": [
        {"when": {"contains": "RESULT"}, "answer": {"text": "It is sunny."}},
        {"when": {"contains": "SAMPLING"}, "answer": {"echo": "sampling"}},
        {"when": {"contains": "PROMPT"}, "answer": {"echo": "prompt"}},
        {"when": {"contains": "GRAMMAR"}, "answer": {"echo": "constraint"}},
        {
            "when": {"contains": "EMOJI"},
            "answer": {"tokens": ["Hi ", [0xF0, 0x9F], [0x98, 0x80], " 世", [0xE7], [0x95, 0x8C], "!"]},
        },
        {"when": {"contains": "HALF FIRST"}, "answer": {"tokens": [[0xF0, 0x9F], [0x98, 0x80], " ok"]}},
        {"when": {"contains": "THINK"}, "answer": {"thinking": "Let me see.", "text": "Forty-two."}},
        {
            "when": {"contains": "CALL TWO"},
            "answer": {
                "tool_calls": [
                    {"name": "get_weather", "arguments": {"city": "Paris"}},
                    {"name": "get_weather", "arguments": {"city": "Oslo"}},
                ]
            },
        },
        {
            "when": {"contains": "CALL"},
            "answer": {"tool_calls": [{"name": "get_weather", "arguments": {"city": "Paris"}}]},
        },
        {"when": {"contains": "FOREVER"}, "answer": {"text": "on and ", "repeat": True, "delay": 0.01}},
        {"when": {"contains": "SLOW"}, "answer": {"text": "at last", "prompt_delay": 0.6}},
        {
            "when": {"contains": "DIE FIRST"},
            "answer": {"text": "x", "error": {"after": 0, "message": "scripted death"}},
        },
        {
            "when": {"contains": "DIE LATE"},
            "answer": {"text": "one two three four", "error": {"after": 2, "message": "scripted death"}},
        },
        {"when": {"contains": "LETTERS"}, "answer": {"tokens": [[byte] for byte in b"one two three"]}},
        {"when": {"contains": "EMPTY"}, "answer": {"text": ""}},
        {"when": {"contains": "JSON"}, "answer": {"text": '{"ok": true}'}},
    ],
    "default": {"text": "Hello there, friend."},
    "models": [{"match": "begins*", "bos": True}],
}

TOOL_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools: <tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>\n"
    'Call with <tool_call>\n{"name": ..., "arguments": ...}\n</tool_call><|im_end|>\n{% endif %}'
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    '{% for call in message.tool_calls or [] %}<tool_call>\n{"name": "{{ call.function.name }}", "arguments": '
    "{{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINK_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@dataclass(frozen=True)
class TinyModel:
    """A model of the test store. Each has weights of its own, so that each has a runner of its own."""

    name: str
    template: str | None = CHATML
    metadata: dict[str, Value] = field(default_factory=dict)
    projector: bool = False
    context: int = 4096
    hears: bool = False


FILL_IN = ("pre", "suf", "mid")

MODELS = (
    # The letters A, B and C are its tokens for filling in the middle.
    TinyModel("tiny", metadata={f"tokenizer.ggml.fim_{role}_token_id": 65 + i for i, role in enumerate(FILL_IN)}),
    TinyModel("tools", TOOL_TEMPLATE),
    TinyModel("thinker", THINK_TEMPLATE),
    TinyModel("vision", projector=True),
    TinyModel("listener", projector=True, hears=True),
    TinyModel("begins"),
    TinyModel("ranker", None, {"general.architecture": "bert", "bert.context_length": 512, "bert.pooling_type": 4}),
    TinyModel("says-yes", metadata={"general.architecture": "qwen3", "general.name": "Some Reranker"}),
    TinyModel("embedder", None, {"general.architecture": "bert", "bert.context_length": 512, "bert.pooling_type": 1}),
)


def add_model(library: Library, directory: Path, model: TinyModel) -> None:
    """Write its weights and its manifest."""
    weights = write_tiny_llama(
        directory / f"{model.name.replace('/', '-').replace(':', '-')}.gguf",
        chat_template=model.template,
        metadata={"general.name": model.name, **model.metadata},
        context_length=model.context,
    )
    layers = [_layer(library, weights, MODEL_TYPE)]
    if model.projector:
        projector = directory / f"{model.name}-projector.gguf"
        write_tiny_llama(
            projector,
            metadata={
                "general.architecture": "clip",
                "clip.has_vision_encoder": not model.hears,
                "clip.has_audio_encoder": model.hears,
            },
            chat_template=None,
        )
        layers.append(_layer(library, projector, PROJECTOR_TYPE))
    config = Config(model_format="gguf", model_family="llama").dump()
    digest = library.blobs.add_bytes(config)
    library.write_manifest(
        Name.parse(model.name),
        Manifest(Layer(CONFIG_TYPE, digest, len(config)), tuple(layers)),
    )


def _layer(library: Library, path: Path, media_type: str) -> Layer:
    digest: Digest = library.blobs.add_file(path)
    return Layer(media_type, digest, path.stat().st_size)


# ---------------------------------------------------------------------------------------------------------- server


@dataclass
class Server:
    """A running server."""

    port: int
    services: Services
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: dict[str, str] | None = None,
        chunked: Iterator[bytes] | None = None,
    ) -> Answer:
        """`body`: bytes as they are, anything else as JSON; or `chunked`, whose length is not told before."""
        with self.open(method, path, body, headers=headers, chunked=chunked) as response:
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: dict[str, str] | None = None,
        chunked: Iterator[bytes] | None = None,
    ) -> Iterator[HTTPResponse]:
        """An answer whose body is not read yet; leaving closes the connection."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"content-type": "application/json", **(headers or {})}
        if chunked is not None:
            sent["transfer-encoding"] = "chunked"
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(
                method, path, data if chunked is None else chunked, sent, encode_chunked=chunked is not None
            )
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()

    def get(self, path: str, **arguments: Any) -> Answer:
        return self.request("GET", path, **arguments)

    def post(self, path: str, body: object = None, **arguments: Any) -> Answer:
        return self.request("POST", path, body, **arguments)

    def chat(
        self, text: str = "Hi", *, model: str = "tiny", headers: dict[str, str] | None = None, **fields: Any
    ) -> Answer:
        """POST /v1/chat/completions with one user message; `fields` win."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return self.post("/v1/chat/completions", body, headers=headers)

    def sampling(self, **fields: Any) -> dict[str, Any]:
        """The engine's settings of a chat with these fields."""
        answer = self.chat("SAMPLING", **fields)
        assert answer.status == 200, answer.body
        settings: dict[str, Any] = json.loads(answer.json["choices"][0]["message"]["content"])
        return settings

    def busy(self) -> int:
        """How many slots work, over all loaded runners."""

        async def count() -> int:
            return sum(
                [await place.runner.busy() for place in self.services.scheduler._places.values() if place.runner]
            )

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(10)


_cage = Cage()
"""Of all servers in this process: each would start two cells, for a few templates that are the same."""
atexit.register(_cage.close)


@contextmanager
def run_server(settings: Settings, script: dict[str, Any]) -> Iterator[Server]:
    """A server in a thread of its own, ready when this yields, gone when it is left."""
    ready: Future[Server] = Future()
    stopping: list[Callable[[], None]] = []

    async def main() -> None:
        engine = ScriptedEngine(Script.parse(json.dumps(script)))
        with listening(settings.address) as listener:
            async with parts(settings, {"scripted": engine}, cage=_cage) as services:
                loop = asyncio.get_running_loop()
                port = bound(listener, settings.address).port
                uvicorn = Uvicorn(services, on_ready=lambda: ready.set_result(Server(port, services, loop)))
                stopping.append(lambda: loop.call_soon_threadsafe(uvicorn.stop))
                await uvicorn.serve(sockets=[listener])

    def thread_main() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=thread_main, name="server")
    thread.start()
    try:
        yield ready.result(30)
    finally:
        for stop in stopping:
            with suppress(RuntimeError):  # its loop has ended already
                stop()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with MODELS. Shared: a test that changes models copies one first."""
    directory = tmp_path_factory.mktemp("store")
    models = directory / "models"
    library = Library.open(models)
    for model in MODELS:
        add_model(library, directory, model)
    return models


@pytest.fixture(scope="session")
def settings(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        address=Address(port=0),
        models=store,
        engine="scripted",
        keep_alive=300,
        registries=("127.0.0.1",),
        state=tmp_path_factory.mktemp("state") / "objects",
    )


@pytest.fixture(scope="session")
def server(settings: Settings) -> Iterator[Server]:
    with run_server(settings, SCRIPT) as running:
        yield running


@pytest.fixture(scope="session")
def serving(settings: Settings) -> Callable[..., Any]:
    """`with serving(script={...}, strict=True) as server:` settings by name, over those of `server`."""

    def start(script: dict[str, Any] | None = None, **changes: Any) -> Any:
        return run_server(replace(settings, **changes), SCRIPT if script is None else script)

    return start


@pytest.fixture(scope="session")
def openai(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client

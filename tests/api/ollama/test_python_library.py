"""The `ollama` package for Python, unchanged, against our server."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ollama import AsyncClient, Client, ResponseError

from api.conftest import run_server
from fakes.gguf_files import CHATML, write_tiny_llama
from puna.server.ollama.routes_models import OLLAMA_API
from puna.settings import Settings


@pytest.fixture(scope="module")
def ollama(server: Any) -> Iterator[Client]:
    client = Client(host=server.url)
    yield client
    client._client.close()


@pytest.fixture
def asking(server: Any) -> AsyncClient:
    return AsyncClient(host=server.url)


@pytest.fixture
def own(serving: Any, tmp_path: Path) -> Iterator[Client]:
    """A client of a server with an empty store of its own, for tests that change models."""
    with serving(models=tmp_path / "models") as server:
        client = Client(host=server.url)
        yield client
        client._client.close()


def test_chat(ollama: Client) -> None:
    answer = ollama.chat(model="tiny", messages=[{"role": "user", "content": "Say hi."}])
    assert answer.message.content == "Hello there, friend."
    assert answer.done_reason == "stop"
    assert answer.eval_count


def test_chat_streamed(ollama: Client) -> None:
    parts = list(ollama.chat(model="tiny", messages=[{"role": "user", "content": "Say hi."}], stream=True))
    assert "".join(part.message.content or "" for part in parts) == "Hello there, friend."
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]


def test_thinking(ollama: Client) -> None:
    answer = ollama.chat(model="thinker", messages=[{"role": "user", "content": "THINK"}], think=True)
    assert (answer.message.thinking, answer.message.content) == ("Let me see.", "Forty-two.")


def get_weather(city: str) -> str:
    """Weather of a city.

    Args:
        city: Where.
    """
    return f"sunny in {city}"


def test_tools_made_from_functions(ollama: Client) -> None:
    answer = ollama.chat(model="tools", messages=[{"role": "user", "content": "CALL"}], tools=[get_weather])
    (call,) = answer.message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Paris"})
    back = ollama.chat(
        model="tools",
        messages=[
            {"role": "user", "content": "Weather?"},
            answer.message,
            {"role": "tool", "tool_name": "get_weather", "content": get_weather("Paris")},
        ],
    )
    assert back.message.content == "Hello there, friend."


def test_generate(ollama: Client) -> None:
    answer = ollama.generate(model="tiny", prompt="Say hi.", options={"seed": 1}, keep_alive="5m")
    assert answer.response == "Hello there, friend."
    more = ollama.generate(model="tiny", prompt="Again.", context=answer.context)
    assert len(more.context or []) > len(answer.context or [])


def test_generate_streamed_with_a_schema(ollama: Client) -> None:
    parts = ollama.generate(model="tiny", prompt="JSON", format={"type": "object"}, stream=True)
    assert "".join(part.response for part in parts) == '{"ok": true}'


def test_images_for_a_model_that_sees(ollama: Client) -> None:
    png = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    answer = ollama.generate(model="vision", prompt="What is this?", images=[png])
    assert answer.response == "Hello there, friend."


def test_embed(ollama: Client) -> None:
    answer = ollama.embed(model="embedder", input=["one", "two"], dimensions=4)
    assert [len(vector) for vector in answer.embeddings] == [4, 4]
    assert len(ollama.embeddings(model="embedder", prompt="one").embedding) > 4


def test_list_show_and_ps(ollama: Client) -> None:
    assert "tiny:latest" in [model.model for model in ollama.list().models]
    shown = ollama.show("tiny")
    assert shown.modelinfo
    assert shown.details
    assert shown.details.family == "llama"
    assert shown.capabilities == ["completion", "tools", "insert"]
    ollama.generate(model="tiny")
    running = next(model for model in ollama.ps().models if model.model == "tiny:latest")
    assert running.context_length
    assert running.expires_at


def test_errors_carry_status_and_text(ollama: Client) -> None:
    with pytest.raises(ResponseError, match="model 'nope' not found") as caught:
        ollama.chat(model="nope", messages=[])
    assert caught.value.status_code == 404
    with pytest.raises(ResponseError, match="nope-nope"):
        ollama.pull("nope-nope")
    with pytest.raises(ResponseError, match="scripted death"):
        list(ollama.chat(model="tiny", messages=[{"role": "user", "content": "DIE LATE"}], stream=True))


async def test_async_chat_and_embed(asking: AsyncClient) -> None:
    async with asking:
        answer = await asking.chat(model="tiny", messages=[{"role": "user", "content": "Say hi."}])
        assert answer.message.content == "Hello there, friend."
        parts = await asking.chat(model="tiny", messages=[{"role": "user", "content": "Say hi."}], stream=True)
        assert "".join([part.message.content or "" async for part in parts]) == "Hello there, friend."
        assert (await asking.embed(model="embedder", input="one")).embeddings
        assert (await asking.list()).models
        with pytest.raises(ResponseError):
            await asking.show("nope")


def test_a_model_is_made_copied_and_deleted(own: Client, tmp_path: Path) -> None:
    assert own.list().models == []
    weights = write_tiny_llama(tmp_path / "x.gguf", chat_template=CHATML)
    digest = own.create_blob(weights)
    steps = [step.status for step in own.create(model="made", files={"x.gguf": digest}, stream=True)]
    assert steps[-1] == "success"
    own.create(model="brief", from_="made", system="Be brief.", parameters={"temperature": 0.5, "stop": ["END"]})
    shown = own.show("brief")
    assert "Be brief." in (shown.modelfile or "")
    assert "temperature" in (shown.parameters or "")
    assert own.copy("brief", "gpt-3.5-turbo").status == "success"
    chat = own.chat(model="gpt-3.5-turbo", messages=[{"role": "user", "content": "PROMPT"}])
    assert "Be brief." in (chat.message.content or "")
    assert own.delete("brief").status == "success"
    assert sorted(str(model.model) for model in own.list().models) == ["gpt-3.5-turbo:latest", "made:latest"]
    with pytest.raises(ResponseError, match="'brief' not found"):
        own.delete("brief")


def test_the_api_is_of_the_release_that_it_says() -> None:
    assert OLLAMA_API == "0.33.0"


def test_characters_at_which_readers_end_a_line_are_read(settings: Settings) -> None:
    text = "a\u2028b\u2029c\x85d"
    with run_server(settings, {"default": {"text": text}}) as server:
        client = Client(host=server.url)
        asked = [{"role": "user", "content": "Hi"}]
        assert "".join(part.message.content or "" for part in client.chat("tiny", asked, stream=True)) == text
        assert "".join(part.response for part in client.generate("tiny", "Hi", stream=True)) == text
        assert client.chat("tiny", asked).message.content == text
        client._client.close()
        for path, body in (
            ("/v1/chat/completions", {"messages": asked}),
            ("/v1/completions", {"prompt": "Hi"}),
            ("/v1/responses", {"input": "Hi"}),
            ("/v1/messages", {"messages": asked, "max_tokens": 9}),
        ):
            answer = server.post(path, {"model": "tiny", "stream": True, **body})
            assert answer.status == 200
            lines = answer.body.decode()
            assert lines.splitlines() == lines.replace("\r\n", "\n").split("\n")[:-1], path
            assert "\\u2028" in lines

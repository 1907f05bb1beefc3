"""The `openai` package drives the server as it drives OpenAI: sync and async, streams, helpers, errors by class."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator

import openai as sdk
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

HI = [{"role": "user", "content": "Hi"}]


def asking(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture
async def async_openai(server) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_chat(openai: OpenAI):
    answer = openai.chat.completions.create(model="tiny", messages=HI)
    assert answer.choices[0].message.content == "Hello there, friend."
    assert answer.choices[0].message.refusal is None
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.prompt_tokens_details
    assert answer._request_id
    assert answer._request_id.startswith("req_")


def test_streamed_chat(openai: OpenAI):
    with openai.chat.completions.create(model="tiny", messages=HI, stream=True) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello there, friend."


async def test_async_chat(async_openai: AsyncOpenAI):
    answer = await async_openai.chat.completions.create(model="tiny", messages=HI, n=2)
    assert [choice.message.content for choice in answer.choices] == ["Hello there, friend."] * 2
    stream = await async_openai.chat.completions.create(model="tiny", messages=HI, stream=True)
    texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(texts) == "Hello there, friend."


def test_stream_helper_accumulates_ten_choices(openai: OpenAI):
    with openai.chat.completions.stream(
        model="tiny", messages=HI, n=10, stream_options={"include_usage": True}, logprobs=True, top_logprobs=2
    ) as stream:
        whole = stream.get_final_completion()
    assert [choice.index for choice in whole.choices] == list(range(10))
    assert {choice.message.content for choice in whole.choices} == {"Hello there, friend."}
    assert {choice.message.role for choice in whole.choices} == {"assistant"}
    assert whole.usage
    assert whole.usage.completion_tokens == 50
    assert all(choice.logprobs and len(choice.logprobs.content or []) == 5 for choice in whole.choices)


def test_raw_response_headers(openai: OpenAI):
    raw = openai.chat.completions.with_raw_response.create(model="tiny", messages=HI, seed=1, extra_body={"frob": 1})
    assert raw.headers["x-puna-seed"] == "exact"
    assert raw.headers["x-puna-ignored"] == "frob"
    assert raw.headers["openai-processing-ms"].isdigit()
    assert raw.parse().choices[0].message.content


def test_extra_body_reaches_the_engine(openai: OpenAI):
    extra = {"options": {"min_p": 0.25}, "top_k": 3, "repeat_penalty": 1.5, "keep_alive": "10m"}
    answer = openai.chat.completions.create(model="tiny", messages=asking("SAMPLING"), extra_body=extra)
    settings = json.loads(answer.choices[0].message.content or "")
    assert (settings["min_p"], settings["top_k"], settings["repeat_penalty"]) == (0.25, 3, 1.5)


class Ok(BaseModel):
    ok: bool


def test_parse_gives_the_object(openai: OpenAI):
    answer = openai.chat.completions.parse(model="tiny", messages=asking("JSON"), response_format=Ok)
    assert answer.choices[0].message.parsed == Ok(ok=True)


def test_parse_of_a_cut_answer_raises_what_the_sdk_means(openai: OpenAI):
    with pytest.raises(sdk.LengthFinishReasonError):
        openai.chat.completions.parse(model="tiny", messages=asking("JSON"), response_format=Ok, max_tokens=2)


def test_streamed_parse(openai: OpenAI):
    with openai.chat.completions.stream(model="tiny", messages=asking("JSON"), response_format=Ok) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == Ok(ok=True)


def test_errors_by_class(openai: OpenAI):
    with pytest.raises(sdk.NotFoundError) as missing:
        openai.chat.completions.create(model="nope", messages=HI)
    assert missing.value.code == "model_not_found"
    assert missing.value.request_id
    with pytest.raises(sdk.BadRequestError) as bad:
        openai.chat.completions.create(model="tiny", messages=HI, temperature=9)
    assert (bad.value.param, bad.value.code) == ("temperature", "decimal_above_max_value")
    with pytest.raises(sdk.NotFoundError):
        openai.evals.list()


def test_keys_by_class(serving):
    with serving(api_keys=("right", "other")) as own:
        base = f"{own.url}/v1"
        with OpenAI(base_url=base, api_key="wrong", max_retries=0) as client, pytest.raises(sdk.AuthenticationError):
            client.models.list()
        with OpenAI(base_url=base, api_key="right", max_retries=0) as client:
            assert client.models.list().data


def test_an_error_in_the_middle_of_a_stream_is_raised(serving):
    with (
        serving() as own,
        OpenAI(base_url=f"{own.url}/v1", api_key="x", max_retries=0) as client,
        client.chat.completions.create(model="tiny", messages=asking("DIE LATE"), stream=True) as stream,
        pytest.raises(sdk.APIError, match="scripted death"),
    ):
        list(stream)


def test_completions(openai: OpenAI):
    answer = openai.completions.create(model="tiny", prompt=["a", "b"], max_tokens=2, logprobs=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].text == "Hello there"
    assert answer.choices[0].logprobs
    assert answer.choices[0].logprobs.tokens == ["Hello", " there"]
    with openai.completions.create(model="tiny", prompt="a", stream=True) as stream:
        assert "".join(chunk.choices[0].text for chunk in stream) == "Hello there, friend."


def test_embeddings_in_both_encodings(openai: OpenAI):
    plain = openai.embeddings.create(model="embedder", input=["a", "b"], encoding_format="float")
    # The package asks for base64 when it is told nothing, and decodes it.
    packed = openai.embeddings.create(model="embedder", input=["a", "b"])
    for one, other in zip(plain.data, packed.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    raw = openai.embeddings.with_raw_response.create(model="embedder", input="a", encoding_format="base64")
    data = base64.b64decode(json.loads(raw.text)["data"][0]["embedding"])
    assert struct.unpack(f"<{len(data) // 4}f", data) == pytest.approx(plain.data[0].embedding, abs=1e-6)


def test_models_are_listed_and_told(openai: OpenAI):
    names = [model.id for model in openai.models.list()]
    assert set(names) >= {"tiny:latest", "embedder:latest"}
    model = openai.models.retrieve("tiny")
    assert model.id == "tiny"
    assert model.owned_by == "library"
    assert (model.model_extra or {})["context_length"] == 4096
    with pytest.raises(sdk.NotFoundError):
        openai.models.retrieve("nope")

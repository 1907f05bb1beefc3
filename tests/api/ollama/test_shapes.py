"""Shapes, statuses and messages of the native API, as a real Ollama has them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from fakes.projectors import plain

PICTURE = base64.b64encode(plain((1, 2, 3), 4, 4)).decode()

# Fixtures come from tests/api/conftest.py; `Any` for its Server, which lives there.

METRICS = ["total_duration", "prompt_eval_count", "eval_count"]


def lines(body: bytes) -> list[dict[str, Any]]:
    assert body.endswith(b"\n")
    return [json.loads(line) for line in body.decode().splitlines()]


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def generate(server: Any, **fields: Any) -> Any:
    return server.post("/api/generate", {"model": "tiny", "prompt": "Say hi.", "stream": False, **fields})


def chat(server: Any, text: str = "Say hi.", **fields: Any) -> Any:
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "stream": False, **fields}
    return server.post("/api/chat", body)


# ------------------------------------------------------------------------------------------------------------ generate


def test_generate_streams_lines_and_ends_with_the_metrics(server: Any) -> None:
    answer = generate(server, stream=True)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    *pieces, last = lines(answer.body)
    assert [list(piece) for piece in pieces] == [["model", "created_at", "response", "done"]] * len(pieces)
    assert "".join(piece["response"] for piece in pieces) == "Hello there, friend."
    assert last["response"] == ""
    assert (last["done"], last["done_reason"]) == (True, "stop")
    assert all(last[name] > 0 for name in METRICS)
    assert len(last["context"]) == last["prompt_eval_count"] + last["eval_count"]


def test_generate_in_one_piece_has_the_same_answer(server: Any) -> None:
    answer = generate(server)
    assert answer.headers["content-type"].startswith("application/json")
    shape = answer.json
    assert (shape["model"], shape["response"], shape["done"]) == ("tiny", "Hello there, friend.", True)
    assert shape["created_at"].endswith("Z")
    assert all(shape[name] > 0 for name in METRICS)


def test_raw_sends_the_prompt_as_it_is_and_returns_no_context(server: Any) -> None:
    shape = generate(server, prompt="PROMPT", raw=True).json
    assert shape["response"] == "PROMPT"
    assert "context" not in shape


def test_system_and_template_make_the_prompt(server: Any) -> None:
    template = "{{ .System }}|{{ .Prompt }}|"
    assert (
        generate(server, prompt="PROMPT", system="Be brief.", template=template)
        .json["response"]
        .startswith("Be brief.|PROMPT|")
    )


def test_a_suffix_is_filled_up_to(server: Any) -> None:
    """The tiny model's vocabulary has the tokens for it."""
    text = generate(server, prompt="PROMPT before", suffix="after").json["response"]
    assert text.index("before") < text.index("after")


def test_context_comes_before_the_prompt(server: Any) -> None:
    first = generate(server, prompt="PROMPT one").json
    second = generate(server, prompt="PROMPT two", context=first["context"]).json
    assert second["prompt_eval_count"] > len(first["context"])
    assert second["context"][: len(first["context"])] == first["context"]
    assert "one" in second["response"]
    assert "two" in second["response"]


def test_a_limit_ends_with_length(server: Any) -> None:
    shape = generate(server, options={"num_predict": 2}).json
    assert (shape["done_reason"], shape["eval_count"]) == ("length", 2)


def test_options_reach_the_engine(server: Any) -> None:
    options = {"seed": 7, "temperature": 0.25, "top_k": 11, "repeat_penalty": 1.5, "num_predict": 900}
    used = json.loads(generate(server, prompt="SAMPLING", options=options).json["response"])
    assert {name: used[name] for name in ("seed", "temperature", "top_k", "repeat_penalty")} == {
        "seed": 7,
        "temperature": 0.25,
        "top_k": 11,
        "repeat_penalty": 1.5,
    }


def test_logprobs_have_bytes_and_alternatives(server: Any) -> None:
    shape = generate(server, logprobs=True, top_logprobs=2, options={"num_predict": 2}).json
    assert len(shape["logprobs"]) == 2
    first = shape["logprobs"][0]
    assert bytes(first["bytes"]).decode() == first["token"]
    assert len(first["top_logprobs"]) == 2
    assert first["logprob"] <= 0


def test_an_empty_prompt_loads_and_keep_alive_zero_unloads(server: Any) -> None:
    loaded = server.post("/api/generate", {"model": "tiny"})
    assert list(loaded.json) == ["model", "created_at", "response", "done", "done_reason"]
    assert loaded.json["done_reason"] == "load"
    assert loaded.headers["content-type"].startswith("application/json")
    assert "tiny:latest" in [item["name"] for item in server.get("/api/ps").json["models"]]
    unloaded = server.post("/api/generate", {"model": "tiny", "keep_alive": 0})
    assert unloaded.json["done_reason"] == "unload"
    assert "tiny:latest" not in [item["name"] for item in server.get("/api/ps").json["models"]]


# ---------------------------------------------------------------------------------------------------------------- chat


def test_chat_streams_messages(server: Any) -> None:
    answer = chat(server, stream=True)
    *pieces, last = lines(answer.body)
    assert all(list(piece) == ["model", "created_at", "message", "done"] for piece in pieces)
    assert "".join(piece["message"]["content"] for piece in pieces) == "Hello there, friend."
    assert last["message"] == {"role": "assistant", "content": ""}
    assert last["done_reason"] == "stop"
    assert "context" not in last


def test_chat_in_one_piece(server: Any) -> None:
    shape = chat(server).json
    assert shape["message"] == {"role": "assistant", "content": "Hello there, friend."}
    assert shape["eval_count"] > 0


@pytest.mark.parametrize(("keep_alive", "reason"), [(None, "load"), (0, "unload"), ("0", "unload"), ("10m", "load")])
def test_no_messages_load_or_unload(server: Any, keep_alive: object, reason: str) -> None:
    answer = server.post("/api/chat", {"model": "tiny", "messages": [], "keep_alive": keep_alive})
    assert answer.json["done_reason"] == reason
    assert answer.json["message"] == {"role": "assistant", "content": ""}


def test_thinking_is_told_apart(server: Any) -> None:
    shape = chat(server, "THINK", model="thinker", think=True).json
    assert shape["message"] == {"role": "assistant", "content": "Forty-two.", "thinking": "Let me see."}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def test_tool_calls_are_whole_and_their_arguments_objects(server: Any) -> None:
    answer = chat(server, "CALL TWO", model="tools", tools=[WEATHER], stream=True)
    *pieces, last = lines(answer.body)
    calls = [call for piece in pieces for call in piece["message"].get("tool_calls", [])]
    assert [call["function"] for call in calls] == [
        {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}},
        {"index": 1, "name": "get_weather", "arguments": {"city": "Oslo"}},
    ]
    assert len({call["id"] for call in calls}) == 2
    assert last["done_reason"] == "stop"


def test_tool_results_go_back_into_the_prompt(server: Any) -> None:
    messages = [
        {"role": "user", "content": "Weather in Paris?"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}]},
        {"role": "tool", "tool_name": "get_weather", "content": "sunny PROMPT"},
    ]
    text = server.post("/api/chat", {"model": "tools", "messages": messages, "stream": False}).json["message"][
        "content"
    ]
    assert '"name": "get_weather"' in text
    assert '{"city": "Paris"}' in text
    assert "sunny" in text


@pytest.mark.parametrize("wanted", ["json", {"type": "object", "properties": {"ok": {"type": "boolean"}}}])
def test_a_format_holds_or_the_answer_fails(server: Any, wanted: object) -> None:
    assert json.loads(chat(server, "JSON", format=wanted).json["message"]["content"]) == {"ok": True}
    # The scripted engine says what it wants to, constraint or not: that is noticed.
    broken = chat(server, "Say hi.", format=wanted)
    assert broken.status == 500
    assert "form" in broken.json["error"]


def test_a_schema_that_cannot_be_enforced_is_refused(server: Any) -> None:
    answer = chat(server, "JSON", format={"type": "nothing"})
    assert answer.status == 400


def test_characters_arrive_whole(server: Any) -> None:
    *pieces, _ = lines(chat(server, "EMOJI", stream=True).body)
    assert "".join(piece["message"]["content"] for piece in pieces) == "Hi 😀 世界!"


# ------------------------------------------------------------------------------------------- nothing silent: reported


def test_what_has_no_effect_is_named(server: Any) -> None:
    answer = chat(server, options={"wat": 1, "num_ctx": 512}, shift=True, colour="red")
    names = answer.headers["x-puna-ignored"].split(", ")
    assert {"colour", "options.wat", "shift"} <= set(names)


def test_a_plain_request_reports_nothing(server: Any) -> None:
    assert "x-puna-ignored" not in chat(server, shift=False).headers


def test_strict_mode_refuses_unknown_fields(serving: Any) -> None:
    with serving(strict=True) as strict:
        answer = chat(strict, colour="red")
        assert answer.status == 400
        assert "colour" in answer.json["error"]
        assert chat(strict).status == 200


def test_a_header_asks_for_strict_mode(server: Any) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi", "mood": "red"}], "stream": False}
    assert server.post("/api/chat", body).headers["x-puna-ignored"] == "messages[0].mood"
    answer = server.post("/api/chat", body, headers={"x-puna-strict": "true"})
    assert answer.status == 400
    assert "messages[0].mood" in answer.json["error"]


def test_messages_that_do_not_fit_are_left_out_and_it_is_said(server: Any) -> None:
    old = {"role": "user", "content": "word " * 600}
    messages = [old, {"role": "assistant", "content": "ok"}, old, {"role": "user", "content": "Say hi."}]
    body = {"model": "tiny", "messages": messages, "stream": False, "options": {"num_ctx": 256}}
    answer = server.post("/api/chat", body)
    assert answer.status == 200
    assert int(answer.headers["x-puna-truncated"]) == answer.json["truncated_messages"] > 0
    assert answer.json["truncated"] is True
    refused = server.post("/api/chat", {**body, "truncate": False})
    assert refused.status == 400
    assert "256" in refused.json["error"]


def test_a_seed_says_how_far_it_can_be_trusted(server: Any) -> None:
    assert chat(server, options={"seed": 1}).headers["x-puna-seed"] in {"exact", "best-effort"}
    assert "x-puna-seed" not in chat(server).headers


# --------------------------------------------------------------------------------------------- nothing silent: refused

REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("/api/generate", {"prompt": "x"}, 404, "model '' not found"),
    ("/api/generate", {"model": "nope", "prompt": "x"}, 404, "model 'nope' not found"),
    ("/api/generate", {"model": "nope"}, 404, "model 'nope' not found"),
    ("/api/generate", {"model": "nope", "keep_alive": 0}, 404, "model 'nope' not found"),
    ("/api/generate", {"model": "a b/c//d", "prompt": "x"}, 400, "invalid model name"),
    ("/api/generate", {"model": "tiny", "prompt": 5}, 400, "cannot unmarshal number into field prompt of type string"),
    (
        "/api/generate",
        {"model": "tiny", "prompt": "x", "format": "yaml"},
        400,
        'invalid format: "yaml"; expected "json"',
    ),
    ("/api/generate", {"model": "tiny", "prompt": "x", "format": 7}, 400, "invalid format"),
    ("/api/generate", {"model": "tiny", "prompt": "x", "keep_alive": "soon"}, 400, 'time: invalid duration "soon"'),
    ("/api/generate", {"model": "tiny", "prompt": "x", "keep_alive": "5"}, 400, 'time: missing unit in duration "5"'),
    ("/api/generate", {"model": "tiny", "prompt": "x", "keep_alive": True}, 400, "Unsupported type: 'bool'"),
    ("/api/generate", {"model": "tiny", "prompt": "x", "think": "much"}, 400, 'invalid think value: "much"'),
    ("/api/generate", {"model": "tiny", "prompt": "x", "think": True}, 400, "does not support thinking"),
    ("/api/generate", {"model": "tiny", "prompt": "x", "images": [PICTURE]}, 400, "does not support images"),
    (
        "/api/generate",
        {"model": "vision", "prompt": "x", "images": [PICTURE, "iVBORw0KGgo="]},
        400,
        "Invalid 'images[1]': the png is damaged",
    ),
    (
        "/api/chat",
        {"model": "vision", "messages": [{"role": "user", "content": "x", "images": ["R0lGODlh"]}]},
        400,
        "Invalid 'messages[0].images[0]': the image is none of png, jpeg and webp",
    ),
    (
        "/api/generate",
        {"model": "vision", "prompt": "x", "images": ["a*b="]},
        400,
        "illegal base64 data at input byte 1",
    ),
    (
        "/api/generate",
        {"model": "tiny", "prompt": "x", "raw": True, "system": "y"},
        400,
        "raw mode does not support template, system, or context",
    ),
    (
        "/api/generate",
        {"model": "tiny", "prompt": "x", "logprobs": True, "top_logprobs": 21},
        400,
        "top_logprobs must be between 0 and 20",
    ),
    ("/api/generate", {"model": "tiny", "prompt": "x", "options": {"top_k": "many"}}, 400, "options.top_k"),
    ("/api/generate", {"model": "tiny", "prompt": "x", "context": ["a"]}, 400, "context[0]"),
    ("/api/generate", {"model": "tiny", "prompt": "x", "context": [-1]}, 400, "vocabulary"),
    ("/api/chat", {"model": "tiny", "tools": [tool("f")] * 1025}, 400, "tools: list should have at most 1024 items"),
    ("/api/chat", {"model": "tiny", "tools": [tool("")]}, 400, "tools[0].function.name"),
    ("/api/chat", {"model": "tiny", "tools": [tool("a b")]}, 400, "tools[0].function.name"),
    ("/api/chat", {"model": "tiny", "tools": [tool("x" * 257)]}, 400, "tools[0].function.name"),
    ("/api/chat", {"messages": []}, 400, "model is required"),
    ("/api/chat", {"model": "nope", "messages": [{"role": "user", "content": "x"}]}, 404, "model 'nope' not found"),
    ("/api/chat", {"model": "tiny", "messages": [{"role": "wizard", "content": "x"}]}, 400, 'invalid role "wizard"'),
    (
        "/api/chat",
        {"model": "tiny", "messages": [{"role": "user", "content": []}]},
        400,
        "messages[0].content of type string",
    ),
    ("/api/chat", {"model": "tiny", "messages": [{"content": "x"}]}, 400, "messages[0].role is required"),
    ("/api/chat", {"model": "embedder", "messages": [{"role": "user", "content": "x"}]}, 400, "does not support chat"),
    ("/api/embed", {"model": "nope", "input": "x"}, 404, 'model "nope" not found, try pulling it first'),
    ("/api/embed", {"model": "embedder", "input": 5}, 400, "invalid input type"),
    ("/api/embeddings", {"prompt": "x"}, 400, "model is required"),
    ("/api/show", {}, 400, "model is required"),
    ("/api/show", {"model": "nope"}, 404, "model 'nope:latest' not found"),
    ("/api/copy", {"source": "nope", "destination": "x"}, 404, 'model "nope" not found'),
    ("/api/copy", {"source": "tiny", "destination": "a b"}, 400, 'destination "a b" is invalid'),
    ("/api/create", {"model": "x"}, 400, "neither 'from' or 'files' was specified"),
    ("/api/create", {"model": "a b", "from": "tiny"}, 400, "invalid model name"),
    ("/api/create", {"model": "x", "from": "tiny", "parameters": {"temperature": "hot"}}, 400, "temperature"),
    ("/api/create", {"model": "x", "from": "tiny", "quantize": "Q4_K_M"}, 400, "quantize"),
    ("/api/create", {"model": "x", "from": "/etc/passwd"}, 400, "invalid model name"),
    ("/api/pull", {"model": "a b"}, 400, "invalid model name"),
    ("/api/pull", {"model": "nope-nope"}, 403, "nope-nope"),
    ("/api/push", {"model": "tiny"}, 403, "PUNA_REGISTRIES"),
]


@pytest.mark.parametrize(("path", "body", "status", "text"), REFUSED, ids=lambda value: str(value)[:60])
def test_mistakes_are_refused_with_ollamas_words(
    server: Any, path: str, body: dict[str, Any], status: int, text: str
) -> None:
    answer = server.post(path, body)
    assert (answer.status, list(answer.json)) == (status, ["error"])
    assert text in answer.json["error"]
    assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize(("body", "text"), [(b"", "missing request body"), (b"{", "EOF"), (b"[]", "array")])
def test_a_body_that_is_no_object_is_refused(server: Any, body: bytes, text: str) -> None:
    answer = server.post("/api/generate", body)
    assert answer.status == 400
    assert text in answer.json["error"]


def test_the_content_type_of_a_request_does_not_matter(server: Any) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert server.post("/api/show", b'{"model": "tiny"}', headers=headers).status == 200


def test_an_error_after_the_first_line_is_the_last_line(server: Any) -> None:
    answer = chat(server, "DIE LATE", stream=True)
    assert answer.status == 200
    *pieces, last = lines(answer.body)
    assert pieces
    assert list(last) == ["error"]


def test_an_error_before_the_first_line_is_a_status(server: Any) -> None:
    answer = chat(server, "DIE FIRST", stream=True)
    assert answer.status == 500
    assert "scripted death" in answer.json["error"]


# ---------------------------------------------------------------------------------------------------------- embeddings


def test_embed_gives_unit_vectors_in_order(server: Any) -> None:
    one = server.post("/api/embed", {"model": "embedder", "input": "hello"}).json
    two = server.post("/api/embed", {"model": "embedder", "input": ["hello", "world"]}).json
    assert list(one) == ["model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"]
    assert two["embeddings"][0] == one["embeddings"][0]
    assert sum(value * value for value in two["embeddings"][1]) == pytest.approx(1)


@pytest.mark.parametrize("value", ["", [], None])
def test_nothing_to_embed_only_loads(server: Any, value: object) -> None:
    answer = server.post("/api/embed", {"model": "embedder", "input": value})
    assert answer.json == {"model": "embedder", "embeddings": []}


def test_a_text_that_is_too_long_is_cut_and_it_is_said(server: Any) -> None:
    body = {"model": "embedder", "input": ["short", "word " * 3000]}
    answer = server.post("/api/embed", body)
    assert answer.status == 200
    assert answer.json["truncated"] == [1]
    assert answer.headers["x-puna-truncated"] == "1"
    assert server.post("/api/embed", {**body, "truncate": False}).status == 400


def test_the_older_embeddings_route(server: Any) -> None:
    answer = server.post("/api/embeddings", {"model": "embedder", "prompt": "hello"})
    assert (
        answer.json["embedding"]
        == server.post("/api/embed", {"model": "embedder", "input": "hello"}).json["embeddings"][0]
    )
    assert server.post("/api/embeddings", {"model": "embedder"}).json == {"embedding": []}


# -------------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_root_says_that_ollama_runs(server: Any, method: str) -> None:
    answer = server.request(method, "/")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.body == (b"Ollama is running" if method == "GET" else b"")


def test_the_version_is_one_that_clients_can_compare(server: Any) -> None:
    shape = server.get("/api/version").json
    assert [int(part) for part in shape["version"].split(".")] >= [0, 33, 0]
    assert shape["puna"]


def test_tags_list_models(server: Any) -> None:
    models = {item["name"]: item for item in server.get("/api/tags").json["models"]}
    tiny = models["tiny:latest"]
    assert list(tiny) == ["name", "model", "modified_at", "size", "digest", "details", "capabilities"]
    assert len(tiny["digest"]) == 64
    assert tiny["details"]["format"] == "gguf"
    assert tiny["details"]["context_length"] == 4096
    assert models["embedder:latest"]["capabilities"] == ["embedding"]
    assert "tools" in models["tools:latest"]["capabilities"]
    assert server.request("HEAD", "/api/tags").status == 200


def test_ps_says_which_engine_and_why(server: Any) -> None:
    chat(server)
    (entry,) = (item for item in server.get("/api/ps").json["models"] if item["name"] == "tiny:latest")
    assert entry["engine"] == "scripted"
    assert entry["engine_reason"]
    assert entry["size_vram"] == 0
    assert entry["context_length"] > 0
    assert entry["expires_at"].endswith("Z")


def test_a_model_kept_for_ever_expires_far_ahead(server: Any) -> None:
    server.post("/api/generate", {"model": "tools", "keep_alive": -1})
    (entry,) = (item for item in server.get("/api/ps").json["models"] if item["name"] == "tools:latest")
    assert int(entry["expires_at"][:4]) > 2300
    server.post("/api/generate", {"model": "tools", "keep_alive": 0})


def test_show_tells_what_a_model_is(server: Any) -> None:
    shape = server.post("/api/show", {"model": "tiny"}).json
    assert shape["model_info"]["general.architecture"] == "llama"
    assert shape["model_info"]["general.parameter_count"] > 0
    assert "tokenizer.chat_template" not in shape["model_info"]
    assert shape["model_info"]["tokenizer.ggml.tokens"] is None
    assert shape["modelfile"].startswith('# Modelfile generated by "puna show"')
    assert "<|im_start|>" in shape["template"]
    assert shape["tensors"][0].keys() == {"name", "type", "shape"}
    assert server.post("/api/show", {"name": "tiny"}).json == shape


def test_show_verbose_has_the_arrays(server: Any) -> None:
    shape = server.post("/api/show", {"model": "tiny", "verbose": True}).json
    assert isinstance(shape["model_info"]["tokenizer.ggml.tokens"], list)


def test_an_unknown_path_is_404(server: Any) -> None:
    answer = server.get("/api/nothing")
    assert answer.status == 404
    assert "error" in answer.json


def test_the_wrong_verb_is_405(server: Any) -> None:
    assert server.get("/api/chat").status == 405

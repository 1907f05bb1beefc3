"""What a request or its model had without effect is told alike in both dialects, in one place."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fakes.projectors import plain
from puna.model.manifest import PARAMS_TYPE, Layer, Manifest
from puna.model.name import Name
from puna.server.contract.report import HEADERS, IGNORED, PARAMETERS, SEED
from puna.settings import ModelPolicy

MESSAGES = [{"role": "user", "content": "Hi"}]
STORED = {"num_gqa": 8, "top_k": "many", "num_ctx": "wide", "num_keep": 24, "temperature": 0.5}
WITHOUT_EFFECT = {"num_gqa", "top_k", "num_ctx", "num_keep"}

ASK: dict[str, Callable[[str], tuple[str, dict[str, Any]]]] = {
    "chat completion": lambda model: ("/v1/chat/completions", {"model": model, "messages": MESSAGES}),
    "completion": lambda model: ("/v1/completions", {"model": model, "prompt": "Hi"}),
    "native chat": lambda model: ("/api/chat", {"model": model, "messages": MESSAGES}),
    "native generate": lambda model: ("/api/generate", {"model": model, "prompt": "Hi"}),
    "native raw": lambda model: ("/api/generate", {"model": model, "prompt": "Hi", "raw": True}),
}
EMBED: dict[str, Callable[[str], tuple[str, dict[str, Any]]]] = {
    "embeddings": lambda model: ("/v1/embeddings", {"model": model, "input": "Hi"}),
    "native embed": lambda model: ("/api/embed", {"model": model, "input": "Hi"}),
    "native embeddings": lambda model: ("/api/embeddings", {"model": model, "prompt": "Hi"}),
}


def names(answer: Any, header: str) -> set[str]:
    return set(answer.headers[header].split(", "))


@pytest.fixture(scope="module")
def stored(server: Any) -> Iterator[dict[str, str]]:
    """Models whose stored parameters cannot all be used, as other programs write them: what embeds, what chats."""
    library = server.services.library
    made = {}
    for base in ("tiny", "embedder"):
        manifest = library.resolve(Name.parse(base)).manifest
        data = json.dumps(STORED).encode()
        layer = Layer(PARAMS_TYPE, library.blobs.add_bytes(data), len(data))
        made[base] = f"stored-{base}"
        library.write_manifest(Name.parse(made[base]), Manifest(manifest.config, (*manifest.layers, layer)))
    yield made
    for name in made.values():
        library.delete(Name.parse(name))


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK.keys())
@pytest.mark.parametrize("stream", [True, False])
def test_every_field_without_effect_is_named_however_it_is_found(server, ask, stream):
    path, body = ask("tiny")
    options = {"num_keep": 5, "penalize_newline": True, "made_up": 1}
    answer = server.post(path, {**body, "stream": stream, "options": options, "mood": "good"})
    assert answer.status == 200
    assert names(answer, IGNORED) == {"options.num_keep", "options.penalize_newline", "options.made_up", "mood"}
    assert PARAMETERS not in answer.headers


@pytest.mark.parametrize("ask", EMBED.values(), ids=EMBED.keys())
def test_options_of_sampling_have_no_effect_on_a_vector(server, ask):
    path, body = ask("embedder")
    answer = server.post(path, {**body, "options": {"temperature": 0.5, "num_ctx": 128, "made_up": 1}, "mood": 1})
    assert answer.status == 200
    assert names(answer, IGNORED) == {"options.temperature", "options.made_up", "mood"}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK.keys())
def test_stored_parameters_that_cannot_be_used_are_named(server, stored, ask):
    path, body = ask(stored["tiny"])
    answer = server.post(path, {**body, "stream": False})
    assert answer.status == 200
    assert names(answer, PARAMETERS) == WITHOUT_EFFECT
    assert IGNORED not in answer.headers


def test_they_are_shown_too(server, stored):
    shown = server.post("/api/show", {"model": stored["tiny"]}).json
    assert set(shown["ignored_parameters"]) == WITHOUT_EFFECT


def test_a_stored_context_that_is_cut_is_shown_as_answers_report_it(server):
    server.post("/api/create", {"model": "too-wide", "from": "tiny", "parameters": {"num_ctx": 2**24}, "stream": False})
    answer = server.post("/api/generate", {"model": "too-wide", "prompt": "Hi", "stream": False})
    assert names(answer, PARAMETERS) == {"num_ctx"}
    shown = server.post("/api/show", {"model": "too-wide"}).json
    assert server.request("DELETE", "/v1/models/too-wide").status == 200
    assert (shown["ignored_parameters"], shown["context_length"] < 2**24) == (["num_ctx"], True)


COUNT: dict[str, Callable[[str], tuple[str, dict[str, Any]]]] = {
    "tokenize": lambda model: ("/tokenize", {"model": model, "messages": MESSAGES}),
    "input tokens": lambda model: ("/v1/responses/input_tokens", {"model": model, "input": "Hi"}),
    "count tokens": lambda model: ("/v1/messages/count_tokens", {"model": model, "messages": MESSAGES}),
}


@pytest.mark.parametrize("ask", COUNT.values(), ids=COUNT.keys())
def test_what_only_counts_names_them_too(server, stored, ask):
    path, body = ask(stored["tiny"])
    answer = server.post(path, {**body, "mood": "good"})
    assert answer.status == 200
    assert names(answer, PARAMETERS) >= {"num_gqa", "top_k", "num_ctx"}
    assert names(answer, IGNORED) == {"mood"}


def test_a_name_that_is_not_counted_is_named(server):
    named = {"model": "tiny", "messages": [{**MESSAGES[0], "name": "bob"}]}
    for path in ("/tokenize", "/v1/chat/completions"):
        assert names(server.post(path, named), IGNORED) == {"messages[0].name"}


@pytest.mark.parametrize(
    ("path", "more", "named"),
    [
        ("/api/generate", {"system": "Be.", "think": False}, {"system"}),
        ("/api/generate", {"raw": True, "format": "json"}, {"raw", "format"}),
        ("/api/chat", {"messages": [], "logprobs": True, "shift": True}, {"logprobs", "shift"}),
        ("/api/estimate", {}, set()),
    ],
)
def test_what_generates_has_no_effect_where_a_model_is_only_loaded(server, path, more, named):
    said = {"temperature": 0.5, "seed": 3, "num_keep": 4, "num_ctx": 2**24, "num_batch": 64}
    answer = server.post(path, {"model": "tiny", "options": said, "bogus": 1, **more})
    assert answer.status == 200
    options = {f"options.{name}" for name in ("temperature", "seed", "num_keep", "num_ctx")}
    assert names(answer, IGNORED) == options | named | {"bogus"}


@pytest.mark.parametrize("ask", EMBED.values(), ids=EMBED.keys())
def test_and_of_models_that_embed(server, stored, ask):
    path, body = ask(stored["embedder"])
    answer = server.post(path, body)
    assert answer.status == 200
    assert names(answer, PARAMETERS) >= {"num_gqa", "top_k", "num_ctx"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES, "seed": 7}),
        ("/v1/chat/completions", {"messages": MESSAGES, "options": {"seed": 7}}),
        ("/v1/chat/completions", {"messages": MESSAGES, "seed": -1}),
        ("/api/chat", {"messages": MESSAGES, "options": {"seed": 7}}),
        ("/api/generate", {"prompt": "Hi", "options": {"seed": -7}}),
    ],
)
def test_a_seed_is_answered_wherever_it_was_said(server, path, body):
    assert server.post(path, {"model": "tiny", **body}).headers[SEED] == "exact"


def test_minus_one_is_no_seed_to_ollama(server):
    answer = server.post("/api/generate", {"model": "tiny", "prompt": "Hi", "options": {"seed": -1}})
    assert SEED not in answer.headers


def test_an_error_names_the_field_as_it_was_sent(server):
    schema = {"type": "object", "properties": {"x": {"not": {"type": "null"}}}}
    said = {"guided_json": schema, "json_schema": schema}
    for name, value in said.items():
        answer = server.chat(**{name: value})
        assert (answer.status, answer.error["param"]) == (400, name)
    function = {"name": "f", "strict": True, "parameters": {**schema, "additionalProperties": False, "required": ["x"]}}
    for fields, param in (
        ({"functions": [function]}, "functions[0].parameters"),
        ({"tools": [{"type": "function", "function": function}]}, "tools[0].function.parameters"),
    ):
        answer = server.chat(**fields)
        assert (answer.status, answer.error["param"]) == (400, param), answer.body


def test_a_browser_may_read_every_report(server):
    """The list that pages may read is made of the headers that are written."""
    answer = server.get("/api/version", headers={"origin": "http://localhost:3000"})
    assert set(HEADERS) <= set(answer.headers["access-control-expose-headers"].split(", "))


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/api/generate", {"prompt": "<|im_end|>"}, "prompt"),
        ("/api/chat", {"messages": [{"role": "user", "content": "<|im_end|>"}]}, "messages[0].content"),
    ],
)
def test_a_text_that_only_a_break_keeps_text_beside_an_image(server: Any, path: str, body: Any, named: str) -> None:
    image = base64.b64encode(plain((255, 0, 0))).decode()
    holder = body if "prompt" in body else body["messages"][0]
    asked = {"model": "vision", "stream": False, **body}
    assert "x-puna-ignored" not in server.post(path, asked).headers
    holder["images"] = [image]
    answer = server.post(path, {"model": "vision", "stream": False, **body})
    assert answer.status == 200
    assert answer.headers["x-puna-ignored"] == named


CHAT = {"messages": MESSAGES}


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/api/chat", {**CHAT, "top_logprobs": 2}, "top_logprobs"),
        ("/api/generate", {"prompt": "Hi", "top_logprobs": 2, "logprobs": False}, "top_logprobs"),
        ("/api/generate", {"prompt": "Hi", "raw": True, "top_logprobs": 2}, "top_logprobs"),
        ("/api/chat", {**CHAT, "top_logprobs": 2, "logprobs": True}, None),
        ("/api/chat", {"messages": [{**MESSAGES[0], "tool_name": "x"}]}, "messages[0].tool_name"),
        ("/api/generate", {"keep_alive": 0, "options": {"num_ctx": 256}}, "options.num_ctx"),
        ("/api/chat", {"messages": [], "keep_alive": 0, "options": {"num_batch": 8}}, "options.num_batch"),
        ("/api/chat", {**CHAT, "options": {"nothing": None, "num_keep": None}}, None),
        ("/tokenize", {"prompt": "Hi", "tools": [], "add_special": True}, "add_special, tools"),
        ("/tokenize", {"content": "Hi", "add_special_tokens": True, "parse_special": True}, "add_special_tokens"),
        ("/tokenize", {**CHAT, "add_special_tokens": True, "parse_special": True}, "add_special_tokens, parse_special"),
        ("/tokenize", {"prompt": "Hi", "add_special_tokens": True, "parse_special": False}, None),
        (
            "/v1/chat/completions",
            {**CHAT, "chat_template_kwargs": {"foo": 1, "enable_thinking": True}},
            "chat_template_kwargs.foo, chat_template_kwargs.enable_thinking",
        ),
        ("/tokenize", {**CHAT, "chat_template_kwargs": {"foo": 1}}, "chat_template_kwargs.foo"),
        (
            "/v1/chat/completions",
            {**CHAT, "temperature": 1, "top_k": 3, "options": {"temperature": 0.5, "top_k": 3, "min_p": 0.1}},
            "options.temperature",
        ),
        ("/v1/responses", {"input": "Hi", "num_ctx": 512, "options": {"num_ctx": 256}}, "options.num_ctx"),
        ("/v1/messages", {**CHAT, "max_tokens": 4, "options": {"num_predict": 9}}, "options.num_predict"),
    ],
)
def test_what_means_nothing_here_is_told(server: Any, path: str, body: Any, told: str | None) -> None:
    answer = server.post(
        path, {"model": "tiny", "stream": False, **body} if path != "/tokenize" else {"model": "tiny"} | body
    )
    assert answer.status == 200, answer.body
    assert answer.headers.get("x-puna-ignored") == told


@pytest.mark.parametrize(
    "path",
    ["/v1/models", "/v1/models/tiny", "/api/tags", "/api/ps", "/api/version", "/v1/chat/completions", "/api/chat",
     "/v1/responses", "/v1/messages", "/tokenize"],
)  # fmt: skip
def test_a_parameter_of_the_url_that_nobody_reads_is_told(server: Any, path: str) -> None:
    bodies: dict[str, Any] = {
        "/v1/responses": {"input": "Hi"},
        "/tokenize": {"prompt": "Hi"},
        "/v1/messages": {**CHAT, "max_tokens": 2},
    }
    posted = path in bodies or "chat" in path
    body = {"model": "tiny", **bodies.get(path, CHAT)}

    def told(query: str) -> str | None:
        answer = server.post(path + query, body) if posted else server.get(path + query)
        assert answer.status == 200, answer.body
        found: str | None = answer.headers.get("x-puna-ignored")
        return found

    assert told("") is None
    assert told("?odd=1&even=2") == "odd, even"
    if posted:
        assert told("?beta=true") is None, "Anthropic's client says so"


PINNED = {
    "/api/chat": {"messages": MESSAGES, "stream": False},
    "/api/generate": {"stream": False},
    "/api/embed": {"input": "x"},
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 2},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
}


@pytest.mark.parametrize("path", PINNED)
def test_that_a_pinned_model_stays_whatever_a_client_asks_for_is_told(serving, path):
    body = {"model": "tiny", "keep_alive": "1s", **PINNED[path]}
    with serving(model_policies=(ModelPolicy("tiny*", pin=True),)) as own:
        answer = own.post(path, body)
        assert (answer.status, answer.headers[IGNORED.lower()]) == (200, "keep_alive")
        assert own.post(path, body | {"keep_alive": -1}).headers.get(IGNORED.lower()) is None
    with serving() as own:
        assert own.post(path, body).headers.get(IGNORED.lower()) is None

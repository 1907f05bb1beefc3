"""Ollama's habits on the running server: what it cuts is cut and told, what it takes is taken."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from puna.server.contract.report import IGNORED, PARAMETERS

MESSAGES = [{"role": "user", "content": "Hi"}]
TRAINED = 4096
"""Of the models of these tests."""

THINKS = (
    "{{ range .Messages }}<{{ .Role }}>{{ if .Thinking }}<mull>{{ .Thinking }}</mull>{{ end }}{{ .Content }}{{ end }}"
    "<assistant>{{ if $.Think }}<mull>{{ end }}"
)


def create(server: Any, name: str, **fields: Any) -> Any:
    return server.post("/api/create", {"model": name, "from": "tiny", "stream": False, **fields})


def chat(server: Any, model: str = "tiny", **fields: Any) -> Any:
    return server.post("/api/chat", {"model": model, "messages": MESSAGES, "stream": False, **fields})


# ------------------------------------------------------------------------------------------------- the context


@pytest.mark.parametrize("wanted", [TRAINED + 1, 131072, 2**31, 1e18])
def test_a_context_beyond_the_trained_one_is_cut_and_told(server, wanted):
    answers = {
        "/api/chat": {"messages": MESSAGES, "stream": False},
        "/api/generate": {"prompt": "Hi", "stream": False},
        "/v1/chat/completions": {"messages": MESSAGES},
        "/v1/completions": {"prompt": "Hi"},
    }
    for path, body in answers.items():
        answer = server.post(path, {"model": "tiny", "options": {"num_ctx": wanted}, **body})
        assert answer.status == 200
        assert answer.headers[IGNORED] == "options.num_ctx"
    # One that embeds may be loaded too, by other tests; what was used last is listed before it.
    running = next(one for one in server.get("/api/ps").json["models"] if one["model"] == "tiny:latest")
    assert running["context_length"] == TRAINED


def test_so_is_one_of_loading_and_embedding(server):
    loaded = server.post("/api/generate", {"model": "tiny", "options": {"num_ctx": 10**6}})
    embedded = server.post("/api/embed", {"model": "embedder", "input": "a", "options": {"num_ctx": 10**6}})
    for answer in (loaded, embedded):
        assert answer.status == 200
        assert answer.headers[IGNORED] == "options.num_ctx"


def test_a_stored_one_serves_and_is_told(server):
    assert create(server, "wide", parameters={"num_ctx": 10**6}).status == 200
    answer = chat(server, "wide")
    assert answer.status == 200
    assert (answer.headers.get(IGNORED), answer.headers[PARAMETERS]) == (None, "num_ctx")
    asked = chat(server, "wide", options={"num_ctx": 256})
    assert PARAMETERS not in asked.headers
    server.request("DELETE", "/api/delete", {"model": "wide"})


def test_listings_tell_what_a_request_gets_and_what_was_trained(serving, tmp_path, store):
    with serving(context_length=1024) as own:
        assert create(own, "small", parameters={"num_ctx": 256}).status == 200
        assert create(own, "large", parameters={"num_ctx": 10**6}).status == 200
        listed = {one["id"]: one for one in own.get("/v1/models").json["data"]}
        got = {name: listed[f"{name}:latest"]["context_length"] for name in ("tiny", "small", "large")}
        assert got == {"tiny": 1024, "small": 256, "large": TRAINED}
        assert {listed[f"{name}:latest"]["trained_context_length"] for name in got} == {TRAINED}
        for name, context in got.items():
            shown = own.post("/api/show", {"model": name}).json
            assert (shown["context_length"], shown["model_info"]["llama.context_length"]) == (context, TRAINED)
            assert own.get(f"/v1/models/{name}").json["context_length"] == context
            chat(own, name)
            # A smaller context is served from the larger one that is loaded.
            (running,) = own.get("/api/ps").json["models"][:1]
            assert running["context_length"] == max(context, 1024)
        # What runs serves those that ask for nothing else.
        chat(own, options={"num_ctx": 512})
        assert own.get("/v1/models/tiny").json["context_length"] == TRAINED
        for name in ("small", "large"):
            own.request("DELETE", "/api/delete", {"model": name})


def test_a_model_that_runs_with_less_is_loaded_anew_for_who_asks_for_nothing(serving):
    with serving(context_length=1024) as own:
        chat(own, options={"num_ctx": 256})
        assert [one["context_length"] for one in own.get("/api/ps").json["models"]] == [256]
        assert own.get("/v1/models/tiny").json["context_length"] == 1024
        chat(own)
        assert [one["context_length"] for one in own.get("/api/ps").json["models"]] == [1024]


# -------------------------------------------------------------------------------------------------- numbers


def test_a_fraction_where_a_whole_number_stands_is_cut_and_told(server):
    options = {"num_predict": 2.7, "top_k": 40.0, "seed": 1.5, "num_ctx": 512.9}
    answer = chat(server, options=options)
    assert answer.status == 200
    assert set(answer.headers[IGNORED].split(", ")) == {"options.num_predict", "options.seed", "options.num_ctx"}
    assert (answer.json["eval_count"], answer.json["done_reason"]) == (2, "length")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"max_tokens": -1}),
        ("/v1/chat/completions", {"max_completion_tokens": -1}),
        ("/v1/completions", {"max_tokens": -1}),
        ("/v1/chat/completions", {"options": {"num_predict": -1}}),
        ("/v1/chat/completions", {"options": {"num_predict": -2}}),
    ],
)
def test_minus_one_is_no_limit(server, path, fields):
    body = {"messages": [{"role": "user", "content": "SAMPLING"}]} if "chat" in path else {"prompt": "SAMPLING"}
    answer = server.post(path, {"model": "tiny", **body, **fields})
    assert answer.status == 200
    (choice,) = answer.json["choices"]
    settings = json.loads(choice.get("text") or choice["message"]["content"])
    assert settings["max_tokens"] > TRAINED // 2
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("fields", [{"top_k": -1}, {"options": {"top_k": -1}}])
def test_minus_one_is_every_token(server, fields):
    assert server.sampling(**fields)["top_k"] == 0


def test_stored_they_mean_the_same(server):
    assert create(server, "free", parameters={"top_k": -1, "num_predict": -1}).status == 200
    settings = json.loads(
        chat(server, "free", messages=[{"role": "user", "content": "SAMPLING"}]).json["message"]["content"]
    )
    assert settings["top_k"] == 0
    assert settings["max_tokens"] > TRAINED // 2
    server.request("DELETE", "/api/delete", {"model": "free"})


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [0, -2])
def test_other_limits_below_one_are_refused(server, field, value):
    answer = server.post("/v1/chat/completions", {"model": "tiny", "messages": MESSAGES, field: value})
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, field, "integer_below_min_value")


@pytest.mark.parametrize("keep_alive", [1e300, 9.3e9, 10**30, -1e300])
def test_a_model_kept_beyond_every_clock_breaks_no_list(server, keep_alive):
    answer = chat(server, keep_alive=keep_alive)
    assert answer.status == 200
    assert answer.headers[IGNORED] == "keep_alive"
    listed = server.get("/api/ps")
    assert listed.status == 200
    running = next(one for one in listed.json["models"] if one["model"] == "tiny:latest")
    assert running["expires_at"] > "2300"
    chat(server, keep_alive=300)


@pytest.mark.parametrize("keep_alive", ["1e300h", "9999999999h", "NaN", "5", "h", ""])
def test_what_is_no_duration_of_gos_is_refused(server, keep_alive):
    answer = chat(server, keep_alive=keep_alive)
    assert answer.status == 400
    assert "keep_alive" in answer.body.decode() or "duration" in answer.body.decode()


def test_log_probabilities_that_are_none_are_the_engines_error(serving):
    for text, wanted in (('"NaN"', 500), ('"Infinity"', 500), ("-1e400", 200)):
        script = {"default": {"text": "a b", "logprobs": [float(json.loads(text))]}}
        with serving(script) as own:
            for path, body in (
                ("/v1/chat/completions", {"messages": MESSAGES, "logprobs": True, "top_logprobs": 2}),
                ("/v1/completions", {"prompt": "Hi", "logprobs": 2}),
                ("/v1/completions", {"prompt": "Hi", "best_of": 2}),
                ("/api/chat", {"messages": MESSAGES, "logprobs": True, "top_logprobs": 2, "stream": False}),
            ):
                answer = own.post(path, {"model": "tiny", **body})
                assert answer.status == wanted
                assert "NaN" not in answer.body.decode()
                if wanted == 500:
                    assert "not numbers" in answer.body.decode()


# ------------------------------------------------------------------------------------------------- what is said


def test_an_empty_text_is_embedded(server):
    answer = server.post("/api/embed", {"model": "embedder", "input": ["", "a"]})
    assert answer.status == 200
    first, second = answer.json["embeddings"]
    assert len(first) == len(second) > 0
    assert server.post("/api/embed", {"model": "embedder", "input": ""}).json["embeddings"] == []


def test_a_name_that_the_template_drops_is_told(server):
    named = [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi", "name": "ann"}]
    answer = server.post("/v1/chat/completions", {"model": "tiny", "messages": named})
    assert answer.status == 200
    assert answer.headers[IGNORED] == "messages[1].name"


@pytest.mark.parametrize("prompt", [{}, {"prompt": None}, {"prompt": ""}])
def test_no_prompt_begins_a_document(server, prompt):
    answer = server.post("/v1/completions", {"model": "tiny", **prompt})
    assert answer.status == 200
    assert answer.json["usage"]["prompt_tokens"] == 1
    assert answer.json["choices"][0]["text"]


# ----------------------------------------------------------------------------------------------- what models can do


def test_every_model_that_chats_can_call_tools_and_says_in_whose_words(server):
    for name, syntax in (("tiny", "puna"), ("tools", "template")):
        shown = server.post("/api/show", {"model": name}).json
        assert "tools" in shown["capabilities"]
        assert shown["tool_syntax"] == syntax
        assert "tools" in server.get(f"/v1/models/{name}").json["capabilities"]
    shown = server.post("/api/show", {"model": "embedder"}).json
    assert "tool_syntax" not in shown
    assert shown["capabilities"] == ["embedding"]
    assert all(
        "tools" in one["capabilities"] or "completion" not in one["capabilities"]
        for one in server.get("/api/tags").json["models"]
    )


def test_a_projector_is_shown(server):
    shown = server.post("/api/show", {"model": "vision"}).json
    assert shown["projector_info"]["general.architecture"] == "clip"
    assert shown["projector_info"]["clip.has_vision_encoder"] is True
    assert "projector_info" not in server.post("/api/show", {"model": "tiny"}).json
    verbose = server.post("/api/show", {"model": "vision", "verbose": True}).json
    assert isinstance(verbose["projector_info"]["tokenizer.ggml.tokens"], list)


def test_a_parameter_is_shown_a_line_a_value(server):
    create(server, "stops", parameters={"stop": ["A", "B"], "top_k": 3})
    shown = server.post("/api/show", {"model": "stops"}).json["parameters"].splitlines()
    assert sorted(shown) == [
        'stop                           "A"',
        'stop                           "B"',
        "top_k                          3",
    ]
    server.request("DELETE", "/api/delete", {"model": "stops"})


def test_a_go_template_that_thinks_does_so_unless_told(serving):
    script = {
        "rules": [{"when": {"contains": "<assistant><mull>"}, "answer": {"text": "hm</mull>Yes"}}],
        "default": {"text": "No"},
    }
    with serving(script) as own:
        assert create(own, "muller", template=THINKS).status == 200
        assert "thinking" in own.post("/api/show", {"model": "muller"}).json["capabilities"]
        message = chat(own, "muller").json["message"]
        assert (message["thinking"], message["content"]) == ("hm", "Yes")
        assert chat(own, "muller", think=False).json["message"] == {"role": "assistant", "content": "No"}
        answer = own.post("/v1/chat/completions", {"model": "muller", "messages": MESSAGES}).json["choices"][0][
            "message"
        ]
        assert (answer["reasoning_content"], answer["content"]) == ("hm", "Yes")
        own.request("DELETE", "/api/delete", {"model": "muller"})


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ .Prompt", "template error: template: :1: unclosed action"),
        ("a\n{{ nope .Prompt }}", 'template error: template: :2: function "nope" not defined'),
        ("{{ .Input }}", "there is no .Input"),
    ],
)
def test_a_template_that_go_refuses_is_refused(server, template, said):
    answer = create(server, "never", template=template)
    assert answer.status == 400
    assert said in answer.json["error"]


def test_a_damaged_file_is_called_by_its_users_name(server):
    data = b"GGUF" + bytes(40)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    server.request("POST", f"/api/blobs/{digest}", data)
    answer = server.post("/api/create", {"model": "never", "files": {"mine.gguf": digest}, "stream": False})
    assert answer.json["error"].startswith("mine.gguf: ")


def test_what_create_cuts_is_told_in_its_header(server):
    answer = create(server, "cut", parameters={"top_k": 12.7, "f16_kv": True, "top_p": 0.5})
    assert answer.status == 200
    assert set(answer.headers[IGNORED].split(", ")) == {"parameters.top_k", "parameters.f16_kv"}
    server.request("DELETE", "/api/delete", {"model": "cut"})


def test_a_template_of_the_request_is_held_to_the_same(server):
    for template, said in (
        ("{{ .Prompt", "unclosed action"),
        ("{{ .System }}", "no place for what a user says"),
        ("{{ .Prompt }}{{ .Input }}", ".Input"),
    ):
        answer = server.post("/api/generate", {"model": "tiny", "prompt": "Hi", "template": template, "stream": False})
        assert answer.status == 400
        assert said in answer.json["error"]


def test_a_template_may_look_at_the_beginning_of_a_text(server):
    template = '{{ range .Messages }}{{ if eq (slice .Content 0 2) "//" }}!{{ end }}{{ .Content }}{{ end }}'
    assert create(server, "slices", template=template).status == 200

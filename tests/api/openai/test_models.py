"""/v1/models and token counts."""

from __future__ import annotations

import shutil

import pytest

from puna.model.name import Name


def test_list(server):
    whole = server.get("/v1/models").json
    assert whole["object"] == "list"
    model = next(one for one in whole["data"] if one["id"] == "tools:latest")
    added = {"context_length", "trained_context_length", "capabilities", "size"}
    assert model.keys() == {"id", "object", "created", "owned_by"} | added
    assert (model["object"], model["owned_by"], model["context_length"]) == ("model", "library", 4096)
    assert model["capabilities"] == ["completion", "tools"]


def test_an_empty_store_lists_nothing(serving, tmp_path):
    with serving(models=tmp_path / "none") as own:
        assert own.get("/v1/models").json == {"object": "list", "data": []}


def test_one_by_any_spelling(server):
    for id_ in ("tiny", "tiny:latest", "library/tiny", "registry.ollama.ai/library/tiny:latest"):
        answer = server.get(f"/v1/models/{id_}")
        assert answer.status == 200
        assert answer.json["id"] == id_


def test_unknown_says_how_to_pull(server):
    answer = server.get("/v1/models/some/model:tag")
    assert answer.status == 404
    assert (answer.error["code"], answer.error["type"]) == ("model_not_found", "invalid_request_error")
    assert "puna pull some/model:tag" in answer.error["message"]


def test_delete_unloads_and_removes(serving, store, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(store, models)
    with serving(models=models) as own:
        own.services.library.copy(Name.parse("tiny"), Name.parse("me/copy:v1"))
        assert own.chat(model="me/copy:v1").status == 200
        assert own.request("DELETE", "/v1/models/me/copy:v1").json == {
            "id": "me/copy:v1",
            "object": "model",
            "deleted": True,
        }
        assert own.get("/v1/models/me/copy:v1").status == 404
        assert own.request("DELETE", "/v1/models/me/copy:v1").status == 404
        assert own.get("/api/ps").json == {"models": []}


def test_methods(server):
    assert server.request("HEAD", "/v1/models").status == 200
    answer = server.post("/v1/models/tiny", {})
    assert answer.status == 405
    assert answer.error["code"] == "method_not_supported"
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "DELETE"}


def test_tokens_in_both_dialects(server):
    vllm = server.post("/tokenize", {"model": "tiny", "prompt": "hé"}).json
    assert vllm == {"count": 3, "tokens": [*"hé".encode()], "max_model_len": 4096}
    assert server.post("/tokenize", {"model": "tiny", "content": "hé"}).json == {"tokens": [*"hé".encode()]}
    assert server.post("/detokenize", {"model": "tiny", "tokens": [*"hé".encode()]}).json["content"] == "hé"


def test_a_chat_is_counted_as_it_will_be_charged(server):
    messages = [{"role": "user", "content": "count"}]
    counting = server.post("/tokenize", {"model": "tiny", "messages": messages}).json
    counted = counting["count"]
    assert len(counting["tokens"]) == counted
    body = {"model": "tiny", "messages": messages}
    assert server.post("/v1/chat/completions", body).json["usage"]["prompt_tokens"] == counted


def test_the_model_may_be_left_out_when_there_is_one(serving, server):
    with serving() as own:
        answer = own.post("/tokenize", {"content": "hi"})
        assert (answer.status, answer.error["param"]) == (400, "model")
        own.chat()
        assert own.post("/tokenize", {"content": "hi"}).json == {"tokens": [104, 105]}


@pytest.mark.parametrize("body", [{"model": "tiny"}, {"model": "tiny", "prompt": "a", "content": "b"}])
def test_one_text_to_count(server, body):
    assert server.post("/tokenize", body).status == 400


def test_health(server):
    assert server.get("/health").json == {"status": "ok"}


def test_what_a_file_says_of_its_tokenizer(server):
    for path in ("/tokenizer_info", "/v1/tokenizer_info"):
        told = server.get(f"{path}?model=tiny").json
        assert (told["eos_token"], told["bos_token"], told["add_bos_token"]) == ("<|im_end|>", "<|im_start|>", False)
        assert "<|im_start|>" in told["chat_template"]
    assert server.get("/tokenizer_info?model=nope").error["code"] == "model_not_found"
    assert server.get("/tokenizer_info?model=tiny&x=1").headers["x-puna-ignored"] == "x"

"""Whatever lists models reads none of them: what is said of each is kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.conftest import MODELS, SCRIPT, run_server
from puna.model.name import Name
from puna.store.library import Library
from puna.store.manifests import Manifests

BROWSER = {"accept": "text/html"}


@pytest.fixture(scope="module")
def own(store: Path, settings: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Its store was listed by a server before."""
    models = tmp_path_factory.mktemp("lists") / "models"
    shutil.copytree(store, models)
    Library.open(models).listed()
    with run_server(replace(settings, models=models, registries=("registry.example",)), SCRIPT) as server:
        yield server


LISTS: dict[str, tuple[str, str, Any, dict[str, str]]] = {
    "models": ("GET", "/v1/models", None, {}),
    "tags": ("GET", "/api/tags", None, {}),
    "home": ("GET", "/", None, BROWSER),
    "search": ("POST", "/api/search", {"word": "library"}, {}),
    "outdated": ("POST", "/api/outdated", {}, {}),
}


@pytest.mark.parametrize("asked", LISTS.values(), ids=LISTS)
def test_no_model_is_read(own: Any, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, str, Any, Any]) -> None:
    def read(self: object, *_: object) -> None:
        raise AssertionError("a model is read")

    monkeypatch.setattr(Library, "_read_model", read)
    monkeypatch.setattr(Manifests, "read", read)
    method, path, body, headers = asked
    answer = own.request(method, path, body, headers=headers)
    assert answer.status == 200, answer.body
    assert all(name in answer.body for name in (b"tiny:latest", b"thinker:latest", b"embedder:latest"))


def test_a_list_says_what_a_look_at_the_model_says(own: Any) -> None:
    """`/v1/models/NAME` reads the model itself."""
    listed = {one["id"]: one for one in own.get("/v1/models").json["data"]}
    assert {Name.parse(model.name).short for model in MODELS} <= listed.keys()
    for id_, one in listed.items():
        assert own.get(f"/v1/models/{id_}").json == one


def test_nobody_is_asked_whom_settings_do_not_allow(own: Any) -> None:
    """Not even whether there is a newer one."""
    own.services.library.copy(Name.parse("tiny"), Name.parse("elsewhere.example/team/tiny"))
    (found,) = own.post("/api/outdated", {"models": ["elsewhere.example/team/tiny"]}).json["models"]
    assert (found["state"], found["reason"]) == ("own", "it was not pulled by this Puna")
    own.services.library.delete(Name.parse("elsewhere.example/team/tiny"))


@pytest.mark.parametrize("word", ["", "  "])
def test_what_to_search_for_has_to_be_said(own: Any, word: str) -> None:
    answer = own.post("/api/search", {"word": word})
    assert answer.status == 400
    assert answer.json["error"] == "a word to look for is required"

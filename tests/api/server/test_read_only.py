"""A store that may be read only: what is in it is served, what would change it is refused in words."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="modes of directories and Linux's capabilities")

CODE = """
import json, sys
sys.path.append({tests!r})
from pathlib import Path
from api.conftest import SCRIPT, run_server
from puna.settings import Address, Settings
settings = Settings(address=Address(port=0), models=Path({models!r}), engine="scripted")
with run_server(settings, SCRIPT) as server:
    before = len(server.get("/api/tags").json["models"])
    answers = [
        server.chat("Hi"),
        server.post("/api/copy", {{"source": "tiny", "destination": "b"}}),
        server.request("DELETE", "/api/delete", {{"model": "tiny"}}),
        server.post("/api/create", {{"model": "b", "from": "tiny", "system": "x", "stream": False}}),
        server.post("/api/pull", {{"model": "smollm2", "stream": False}}),
    ]
    after = len(server.get("/api/tags").json["models"])
print(json.dumps([before, after, *([answer.status, answer.body.decode()] for answer in answers)]))
"""


@pytest.fixture
def read_only(store: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the store whose directories may not be written."""
    models = tmp_path / "models"
    shutil.copytree(store, models)
    directories = [models, *(path for path in models.rglob("*") if path.is_dir())]
    for path in directories:
        path.chmod(0o555)
    yield models
    for path in directories:
        path.chmod(0o755)


def obey_modes() -> None:
    """As root in a child that is about to exec: modes bind it too."""
    drop_from_bounding_set, override = 24, 1
    if os.getuid() == 0 and ctypes.CDLL(None).prctl(drop_from_bounding_set, override, 0, 0, 0) != 0:
        raise OSError("the capability to write whatever the modes say cannot be dropped")


def test_it_serves_and_refuses(read_only: Path) -> None:
    code = CODE.format(tests=str(Path(__file__).parents[2]), models=str(read_only))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=obey_modes,
    )
    assert done.returncode == 0, done.stderr
    before, after, (chat, _), *refused = json.loads(done.stdout.splitlines()[-1])
    assert before == after == sum(path.is_file() for path in (read_only / "manifests").rglob("*"))
    assert chat == 200
    for status, body in refused:
        assert status == 403, body
        assert "the models directory cannot be written (permission denied)" in json.loads(body)["error"]
        assert "PUNA_MODELS" in body
    assert "Traceback" not in done.stderr + done.stdout

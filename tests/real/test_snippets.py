"""Every snippet of the README and the guides, in the order in which it is read, as printed, on the installed program.

The reader is one with a home of his own, the small model pulled, an Ollama's store and a GGUF file. Only the ports are
others, so that nothing on this machine is met.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fakes.node import Node
from fakes.pages import Snippet, guides, snippets

from .conftest import free_port

_SECONDS = 200
"""For one snippet."""


class Reader:
    """`play` runs a snippet as the reader would; what one exports holds for those after it."""

    def __init__(self, home: Path, node: Node) -> None:
        self.home = home
        self.work = home / "work"
        self.work.mkdir(parents=True)
        self._node = node
        self._ports = {"11434": str(free_port()), "11435": str(free_port())}
        self._exports = home / "exports.sh"
        self._exports.write_text("")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PUNA_", "OLLAMA_", "XDG_"))}
        self._environment = {
            **kept,
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PUNA_HOST": f"127.0.0.1:{self._ports['11434']}",
            "OLLAMA_HOST": f"127.0.0.1:{self._ports['11434']}",
            # As printed nothing bounds an answer, and so small a model now and then goes on until its context is full.
            "PUNA_CONTEXT_LENGTH": "512",
        }

    def play(self, snippet: Snippet) -> subprocess.CompletedProcess[str]:
        text = snippet.text
        for printed, real in self._ports.items():
            text = text.replace(printed, real)
        directory = self.work
        match snippet.language:
            case "python":
                (self.work / "snippet.py").write_text(text)
                text = f"{sys.executable} snippet.py\n"
            case "javascript":
                directory = self._node.directory
                text = f"node --input-type=module <<'END_OF_SNIPPET'\n{text}END_OF_SNIPPET\n"
        script = f". {self._exports}\nset -e\n{text}\nexport -p > {self._exports}\n"
        return subprocess.run(
            ["bash", "-c", script],
            cwd=directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )

    def end_servers(self) -> None:
        for record in (self.home / ".local" / "state" / "puna" / "servers").glob("*.json"):
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(json.loads(record.read_text())["pid"])
                process.terminate()
                process.wait(30)


@pytest.fixture
def reader(pulled: Path, smollm2_gguf: Path, tmp_path: Path, node: Node) -> Iterator[Reader]:
    reader = Reader(tmp_path / "home", node)
    for store in (reader.home / ".local/share/puna/models", reader.home / ".ollama/models"):
        shutil.copytree(pulled, store)
    shutil.copy(smollm2_gguf, reader.work / "model.gguf")
    yield reader
    reader.end_servers()


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("page", guides(), ids=lambda page: page.stem)
def test_a_page_runs_as_printed(page: Path, reader: Reader) -> None:
    for snippet in snippets(page):
        if snippet.reason:
            continue
        done = reader.play(snippet)
        said = f"{snippet}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, said
        assert "Traceback" not in done.stderr, said
        assert "Warning" not in done.stderr, said
        if snippet.language != "sh":
            assert done.stdout.strip() or "print(" not in snippet.text.replace("console.log(", "print("), said

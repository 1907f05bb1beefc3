"""Node with the locked JavaScript clients, to run the scripts of `tests/node` against a server.

Node itself comes with the test requirements, so a machine with Python alone runs these tests too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

SCRIPTS = Path(__file__).parents[1] / "node"
LOCKED = ("package.json", "package-lock.json")


class Node:
    """The locked packages of `scripts`, installed once into the user's cache and kept from run to run. `directory`:
    where; `environment`: with which Node is found."""

    def __init__(self, scripts: Path = SCRIPTS) -> None:
        self._scripts = scripts
        key = hashlib.sha256(b"".join((scripts / name).read_bytes() for name in LOCKED)).hexdigest()[:16]
        self.directory = platformdirs.user_cache_path("puna-tests") / f"node-{key}"
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        with FileLock(self.directory / "lock"):
            if not (self.directory / "installed").exists():
                self._install()

    def run(self, script: str, *arguments: str, seconds: float = 100) -> Any:
        """What `tests/node/SCRIPT` prints, as JSON. AssertionError with its stderr when it fails."""
        path = self.directory / f"{os.getpid()}-{script}"  # others run theirs
        shutil.copy(self._scripts / script, path)
        try:
            done = subprocess.run(
                ["node", path, *arguments],
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        finally:
            path.unlink()
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _install(self) -> None:
        for name in LOCKED:
            shutil.copy(self._scripts / name, self.directory)
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund"],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (self.directory / "installed").touch()

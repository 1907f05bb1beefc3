"""The first moments of the command."""

from __future__ import annotations

import signal
import subprocess
import sys

PRESSED = """
import os, signal, sys

class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == "puna.cli.main":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Pressed())
from puna.__main__ import main
main()
"""


def test_ctrl_c_before_the_command_is_there_prints_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", PRESSED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")

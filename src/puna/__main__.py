"""`python -m puna` is `puna`: the command, with an end that is quiet from its first moment on."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    """The console script. Ctrl-C ends it without a traceback before the command is there to answer it, too."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from puna.cli.main import main as command

    signal.signal(signal.SIGINT, usual)
    command()


if __name__ == "__main__":
    main()

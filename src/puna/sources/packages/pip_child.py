"""What runs pip in its own process: `pip_child.py <path of a pip wheel, or ''> <arguments of pip>`.

A script, not a module of the package: it imports nothing of ours. It ends when its standard input does, which is
when the process that started it is gone, however that ended.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    # The directory of this script comes first and holds modules of ours.
    del sys.path[0]
    wheel = sys.argv.pop(1)
    if wheel:
        sys.path.insert(0, wheel)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

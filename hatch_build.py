"""What hatchling does before it makes a wheel: build the native library, or write down why that was not possible."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))  # hatchling loads this file alone
import native_build

IN_WHEEL = "puna/engine/cpu/native/built"


class NativeLibrary(BuildHookInterface[Any]):
    """Of an editable installation into the source tree, else into the wheel.

    Without the library the wheel is one for any machine, and llama.cpp serves there.
    """

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            self._build(native_build.BUILT)
            return
        self._directory = Path(tempfile.mkdtemp(prefix="puna-wheel-"))
        target = self._build(self._directory)
        build_data["force_include"][str(self._directory)] = IN_WHEEL
        if target is not None:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{target.tag}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            shutil.rmtree(self._directory, ignore_errors=True)

    def _build(self, out: Path) -> native_build.Target | None:
        named = os.environ.get(native_build.TARGET_VARIABLE)
        # Who names a target builds wheels for others, again and again; an installation leaves nothing behind.
        target = native_build.build_or_record(out, named, keep_cache=named is not None)
        if target is None:
            self.app.display_warning("The cpu engine's library was not built; llama.cpp will run all models.")
        return target

"""A stand-in for the native binary: llama-server's flags, the wheel's server. Run as a program."""

from __future__ import annotations

import argparse
import stat
import sys
import threading
from pathlib import Path


def write_binary(directory: Path) -> Path:
    """An executable file that runs this module."""
    path = directory / "llama-server"
    path.write_text(f"#!{sys.executable}\nimport runpy\nrunpy.run_path({__file__!r}, run_name='__main__')\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def main() -> None:
    import xllamacpp

    said = _parser().parse_args()
    made = xllamacpp.CommonParams()
    made.model.path = said.model
    made.hostnames = [said.host]
    made.port = 0
    made.cpuparams.n_threads = said.threads
    made.n_parallel = said.parallel
    made.n_ctx = said.ctx_size
    made.kv_unified = said.kv_unified
    made.n_batch = said.batch_size
    made.n_ubatch = said.ubatch_size
    made.flash_attn_type = xllamacpp.llama_flash_attn_type({"auto": -1, "off": 0, "on": 1}[said.flash_attn])
    types = {"f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}
    made.cache_type_k = xllamacpp.ggml_type(types[said.cache_type_k])
    made.cache_type_v = xllamacpp.ggml_type(types[said.cache_type_v])
    made.fit_params = said.fit == "on"
    made.cache_ram_mib = said.cache_ram
    made.embedding = said.embedding
    if said.mmproj:
        made.mmproj.path = said.mmproj
    made.n_threads_http = said.threads_http
    made.ui = said.ui
    made.use_jinja = said.jinja
    made.chat_template = said.chat_template or ""
    made.slot_save_path = f"{said.slot_save_path}/" if said.slot_save_path else ""
    server = xllamacpp.Server(made)
    # Unlike the child of the wheel, the binary does not look at stdin.
    threading.Event().wait()
    del server


def _parser() -> argparse.ArgumentParser:
    """The flags of llama-server that this knows; another one ends it, as with the binary."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flag in (
        "model",
        "host",
        "cache-type-k",
        "cache-type-v",
        "load-mode",
        "pooling",
        "mmproj",
        "lora",
        "chat-template",
        "slot-save-path",
    ):
        parser.add_argument(f"--{flag}")
    for flag in ("threads", "threads-batch", "parallel", "ctx-size", "batch-size", "ubatch-size", "cache-ram"):
        parser.add_argument(f"--{flag}", type=int)
    for flag in ("threads-http", "gpu-layers", "main-gpu"):
        parser.add_argument(f"--{flag}", type=int)
    parser.add_argument("--flash-attn", choices=["on", "off", "auto"])
    parser.add_argument("--fit", choices=["on", "off"])
    for flag in ("kv-unified", "context-shift", "cache-idle-slots", "slots", "ui", "jinja"):
        parser.add_argument(f"--{flag}", action=argparse.BooleanOptionalAction)
    for flag in ("offline", "embedding"):
        parser.add_argument(f"--{flag}", action="store_true")
    return parser


if __name__ == "__main__":
    main()

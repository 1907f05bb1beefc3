"""A pull of one large blob over loopback, beside `curl | sha256sum` of the same URL, in turn; and the memory it takes.

    python bench/pull.py [DIR] [--size 1000000000] [--rounds 5]

DIR: where the blob and the stores are made and removed; on a disk as a user's is, since a pull writes what it hashes
and curl does not. A server process (aiohttp, `sendfile`) has the blob; the puller is a process that does what Puna's
does, from the manifest to the listed model. The ratio is curl's seconds over the pull's; memory is the puller's peak
above what it had before the pull.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from rounds import Rounds

MB = 1 << 20


def make_blob(path: Path, size: int) -> str:
    """A GGUF of one tensor, or as good as: a header, then noise. Its sha256."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from fakes.gguf_files import Tensor, gguf_bytes

    whole = gguf_bytes(tensors=[Tensor("a", (64, max(1, size // 256)))])
    path.write_bytes(whole)
    return hashlib.sha256(whole).hexdigest()


def serve(directory: str) -> None:
    """In a process of its own: one repository of one model, on a free port, which is printed."""
    from aiohttp import web

    blobs = Path(directory)

    async def blob(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(blobs / request.match_info["digest"].removeprefix("sha256:"))

    async def manifest(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(blobs / "manifest")

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/v2/a/b/manifests/latest", manifest)
        app.router.add_get("/v2/a/b/blobs/{digest}", blob)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await runner.cleanup()

    asyncio.run(run())


def pull(name: str, models: str) -> None:
    """In a process of its own: the pull, and then its seconds and bytes of memory as JSON."""
    import uvloop

    from puna.model.name import Name
    from puna.settings import Settings
    from puna.sources.source import Terms
    from puna.sources.wiring import open_sources
    from puna.store.library import Library

    async def run() -> None:
        library = Library.open(Path(models))
        async with open_sources(Settings(models=Path(models)), library) as sources:
            terms = Terms(insecure=True, local=True, literal=True)
            sources.check(Name.parse(name), terms)  # and everything is imported
            idle = psutil.Process().memory_info().rss
            start = time.perf_counter()
            async for _ in sources.pull(Name.parse(name), terms):
                pass
            seconds = time.perf_counter() - start
        peak = _peak()
        print(json.dumps({"seconds": seconds, "memory": peak - idle}))

    uvloop.run(run())


def _peak() -> int:
    """Bytes. Linux's own figure, since getrusage's has the parent's from before the program was loaded."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) * 1024


def measure(directory: Path, size: int, rounds: int) -> None:
    blobs = directory / "blobs"
    blobs.mkdir()
    digest = make_blob(blobs / "weights", size)
    (blobs / "weights").rename(blobs / digest)
    config = b'{"model_format":"gguf"}'
    config_digest = hashlib.sha256(config).hexdigest()
    (blobs / config_digest).write_bytes(config)
    weights_size = (blobs / digest).stat().st_size
    shape = {
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": f"sha256:{config_digest}",
            "size": len(config),
        },
        "layers": [
            {
                "mediaType": "application/vnd.ollama.image.model",
                "digest": f"sha256:{digest}",
                "size": weights_size,
            }
        ],
    }
    (blobs / "manifest").write_text(json.dumps(shape))
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(blobs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    port = int(server.stdout.readline())
    memory: list[int] = []

    def curl() -> float:
        start = time.perf_counter()
        url = f"http://127.0.0.1:{port}/v2/a/b/blobs/sha256:{digest}"
        said = subprocess.run(f"curl -s {url} | sha256sum", shell=True, check=True, capture_output=True, text=True)
        assert said.stdout.startswith(digest)
        return time.perf_counter() - start

    def ours() -> float:
        models = directory / "models"
        command = [sys.executable, __file__, "--pull", f"127.0.0.1:{port}/a/b", "--models", str(models)]
        ended = subprocess.run(command, check=True, capture_output=True, text=True)
        shutil.rmtree(models)
        told = json.loads(ended.stdout)
        memory.append(told["memory"])
        return float(told["seconds"])

    try:
        table = Rounds(["curl | sha256sum", "puna"], patience=5.0)
        for _ in range(rounds):
            table.round(f"seconds of {weights_size} bytes", {"curl | sha256sum": curl, "puna": ours})
        counted = table.counted(f"seconds of {weights_size} bytes")
        ratios = [one.values["curl | sha256sum"] / one.values["puna"] for one in counted]
        print(f"ratio (curl's seconds over ours): {statistics.median(ratios):.2f} of {len(ratios)} rounds {ratios}")
        print(f"memory above idle: {max(memory) / MB:.0f} MB at most")
    finally:
        server.communicate("")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--size", type=int, default=1_000_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--pull", help=argparse.SUPPRESS)
    parser.add_argument("--models", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
    elif arguments.pull:
        pull(arguments.pull, arguments.models)
    else:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
            measure(Path(directory), arguments.size, arguments.rounds)


if __name__ == "__main__":
    main()

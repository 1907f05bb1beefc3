"""Measure how long a request whose answer takes no time waits beside a hundred that came at once.

    python bench/burst.py MODEL [--puna PROGRAM ...] [--busy 4] [--rounds 3]

MODEL is a name in the store (`PUNA_MODELS`, or the usual one). Each PROGRAM (`puna` of another installation, to compare
with) serves in turn, beside as many processes that loop. Told is the longest of the answers to `/api/version`, asked
one after another while the burst is answered: the median of the rounds, and the worst.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from servers import free_port, wait_until_up

MANY = 100
SECONDS = 4.0
"""For which it is asked after the burst has begun."""

Asked = tuple[str, Mapping[str, object]]


def kinds(model: str) -> dict[str, Asked]:
    messages = [{"role": "user", "content": "Hi"}]
    return {
        "chats": ("/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": 3}),
        "shows": ("/api/show", {"model": model}),
        "pulls": ("/api/pull", {"model": "127.0.0.1:9/nobody/nothing", "stream": False}),
    }


@contextmanager
def looping(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def serving(program: str) -> Iterator[int]:
    port = free_port()
    environment = {**os.environ, "PUNA_HOST": f"127.0.0.1:{port}", "PUNA_REGISTRIES": "127.0.0.1"}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([program, "serve"], env=environment, stdout=quiet, stderr=quiet)
    try:
        wait_until_up(f"http://127.0.0.1:{port}/api/version", process)
        yield port
    finally:
        process.terminate()
        process.wait()


def ask(port: int, method: str, path: str, body: Mapping[str, object] | None = None) -> float:
    """Seconds until it was answered."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request(method, path, None if body is None else json.dumps(body).encode())
    connection.getresponse().read()
    connection.close()
    return time.perf_counter() - began


def longest(port: int, path: str, body: Mapping[str, object]) -> float:
    """Seconds of the slowest answer to `/api/version` beside a burst of these."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    took: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            took.append(ask(port, "GET", "/api/version"))
            time.sleep(0.01)

    with ExitStack() as stack:
        looking = threading.Thread(target=look)
        looking.start()
        for _ in range(MANY):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port), 120))
            one.sendall(head.encode() + data)
        time.sleep(SECONDS)
        over.set()
        looking.join()
    return max(took)


def measure(program: str, model: str, rounds: int) -> dict[str, Sequence[float]]:
    with serving(program) as port:
        for path, body in kinds(model).values():
            ask(port, "POST", path, body)  # the first of each is slower
        return {kind: [longest(port, *asked) for _ in range(rounds)] for kind, asked in kinds(model).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument(
        "--puna", action="append", help="a program to measure; the first is what others are compared with"
    )
    parser.add_argument("--busy", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    said = parser.parse_args()
    first: dict[str, float] = {}
    with looping(said.busy):
        for number, program in enumerate(said.puna or ["puna"], 1):
            for kind, found in measure(program, said.model, said.rounds).items():
                middle = statistics.median(found)
                ratio = middle / first.setdefault(kind, middle)
                told = f"{1000 * middle:7.0f} ms (at most {1000 * max(found):7.0f})  {ratio:5.2f}"
                print(f"{number}  {MANY} {kind:6} {told}")


if __name__ == "__main__":
    main()

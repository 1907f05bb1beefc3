"""What the child says to the server, from any thread: at once where the connection takes it, else as soon as it does.

The thread that computes tells each step's tokens itself: that costs it no more than to wake another thread would.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading


class Voice:
    """The writing side of a connection that does not block. Frames are never mixed, nor out of order.

    `loop` is that of the thread which reads; it takes over while the server is behind. A server that has gone hears
    nothing, and that is no error here: who reads is told.
    """

    def __init__(self, connection: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        # A descriptor of its own, for the reading side watches its.
        self._socket = connection.dup()
        self._loop = loop
        self._lock = threading.Lock()
        self._waiting = bytearray()

    def say(self, frame: bytes) -> None:
        """Any thread."""
        with self._lock:
            if self._waiting:
                self._waiting += frame
                return
            left = frame[self._sent(frame) :]
            if not left:
                return
            self._waiting += left
        with contextlib.suppress(RuntimeError):  # the loop has ended, for the server has gone
            self._loop.call_soon_threadsafe(self._loop.add_writer, self._socket, self._go_on)

    def close(self) -> None:
        """In the loop's thread. What is said from then on nobody hears."""
        self._loop.remove_writer(self._socket)
        self._socket.close()

    def _sent(self, data: bytes | bytearray) -> int:
        """How many bytes of it the connection has taken; all, if nobody is there to take them."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def _go_on(self) -> None:
        with self._lock:
            del self._waiting[: self._sent(self._waiting)]
            if not self._waiting:
                self._loop.remove_writer(self._socket)

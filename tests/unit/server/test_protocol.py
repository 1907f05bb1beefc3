from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

from puna.server.protocol import Protocol


class Gone:
    """A transport whose client has closed both ways, which the socket only says when it is asked."""

    closed = False

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "not connected")

    def close(self) -> None:
        self.closed = True


def test_a_client_that_has_gone_both_ways_ends_the_connection() -> None:
    transport = Gone()
    connection: Any = SimpleNamespace(
        transport=transport, _eof=False, _head=bytearray(b"GET"), _behind=b"more",
        _unset_keepalive_if_required=lambda: None, _set_timer=lambda seconds: None,
        _channel=SimpleNamespace(flush=lambda: None),
    )  # fmt: skip
    Protocol._finish(connection)
    assert transport.closed
    assert (connection._ending, bytes(connection._head), connection._behind) == (True, b"", b"")

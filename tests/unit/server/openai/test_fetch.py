from __future__ import annotations

import pytest

from puna.server.openai.fetch import check_public


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_public(address):
    check_public([address])


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
     "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "2002:7f00:1::",
     "64:ff9b::7f00:1", "192.0.2.1"],
)  # fmt: skip
def test_not_public(address):
    with pytest.raises(OSError, match="not a public address"):
        check_public(["8.8.8.8", address])

from __future__ import annotations

import pytest

from puna.server.middleware import is_loopback, is_own_host, parse_origins
from puna.settings import SettingError


@pytest.mark.parametrize("origin", ["example.com", "ftp://x", "http://*.*", "app://x"])
def test_origins_that_cannot_be_read(origin):
    with pytest.raises(SettingError, match="PUNA_ORIGINS"):
        parse_origins([origin])


def allowed(origin: str, *origins: str) -> bool:
    return any(pattern.fullmatch(origin) for pattern in parse_origins(origins))


def test_origins():
    assert allowed("https://a.example.com", "https://*.example.com")
    assert allowed("HTTPS://EXAMPLE.COM", "https://example.com")
    assert not allowed("https://example.com.evil", "https://example.com")
    assert not allowed("https://exampleXcom", "https://example.com")
    assert allowed("http://localhost:1234")
    assert not allowed("http://localhost:")


@pytest.mark.parametrize(
    ("host", "is_one"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("", False),
                         ("0.0.0.0", False), ("::", False), ("192.168.0.1", False), ("example.com", False)]
)  # fmt: skip
def test_loopback(host, is_one):
    assert is_loopback(host) is is_one


@pytest.mark.parametrize("host", ["", "localhost:80", "LOCALHOST", "10.1.2.3", "[fe80::1]:80", "0.0.0.0", "a.local"])
def test_own_hosts(host):
    assert is_own_host(host)


@pytest.mark.parametrize("host", ["example.com", "1.1.1.1:80", "localhost.com", "[::1", "a.internal.evil"])
def test_hosts_of_others(host):
    assert not is_own_host(host)

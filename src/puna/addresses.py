"""Addresses: how far from the public network an address of one is. Pure.

A server that calls what a stranger names can be made to call the machines around it: metadata services, routers, other
programs of this machine. Whoever calls out says how far it may reach, and checks the very address that is connected to.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterable, Iterator
from enum import IntEnum


class Reach(IntEnum):
    """What may be called, each with what is before it. `PRIVATE`: a site's networks; `ANY`: link-local ones too."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    ANY = 3


class PrivateAddress(OSError):
    """A name that leads to an address which may not be called."""


def needed(text: str) -> Reach:
    """The least reach that has the address, also behind IPv6's ways to write an IPv4 address. ANY when it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return Reach.ANY
    if address.is_loopback:
        return Reach.LOOPBACK
    return Reach.ANY if _local(address) else max(map(_reach, (address, *_inside(address))))


def _reach(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Reach:
    if any(address in network for network in _METADATA):
        return Reach.ANY
    if any(address in network for network in _SITE):
        return Reach.PRIVATE
    if any(address in network for network in _RESERVED):
        return Reach.ANY
    return Reach.PUBLIC if address.is_global and not address.is_multicast else Reach.ANY


_SITE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))
_METADATA = tuple(map(ipaddress.ip_network, ("169.254.0.0/16", "fd00:ec2::254/128", "100.100.100.200/32")))
"""Where clouds answer with the keys of the machine that asks."""
_RESERVED = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "100::/48", "2001::/23", "3fff::/20", "5f00::/16"))
)
"""What IANA keeps for protocols, relays, documents and segments: not each Python knows of all (192.0.0.192 is a cloud's
metadata too).
"""


def check_public(addresses: Iterable[str]) -> None:
    """OSError if one of them is not a public unicast address, also behind IPv6's ways to write an IPv4 address."""
    for text in addresses:
        check_reach(text, Reach.PUBLIC)


def check_reach(address: str, reach: Reach) -> None:
    """PrivateAddress when it is beyond `reach`."""
    if needed(address) > reach:
        raise _private(address)


def _private(address: str) -> PrivateAddress:
    # With a number, since aiohttp shows the words of an error that has one.
    return PrivateAddress(errno.EACCES, f"{address} is not a public address")


_EMBEDDED = tuple(
    (ipaddress.IPv6Network(network), shift)
    for network, shift in (
        ("::/96", 0),  # IPv4-compatible
        ("::ffff:0:0/96", 0),  # IPv4-mapped
        ("::ffff:0:0:0/96", 0),  # IPv4-translated
        ("64:ff9b::/96", 0),  # NAT64
        ("2002::/16", 80),  # 6to4
        ("2001::/32", 64),  # Teredo: its server
    )
)
"""Where IPv6 addresses hold an IPv4 address, and how far from the end."""

_TEREDO = ipaddress.IPv6Network("2001::/32")
_LOCAL = tuple(map(ipaddress.IPv6Network, ("64:ff9b:1::/48", "fec0::/10")))
"""Gateways and addresses of one site, whatever the Python that runs this says of them."""


def _inside(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that something on the way may make of an address."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    number = int(address)
    for network, shift in _EMBEDDED:
        if address in network:
            yield ipaddress.IPv4Address(number >> shift & 0xFFFFFFFF)
    if address in _TEREDO:
        yield ipaddress.IPv4Address(~number & 0xFFFFFFFF)
    if number >> 32 & 0xFCFFFFFF == 0x5EFE:  # ISATAP
        yield ipaddress.IPv4Address(number & 0xFFFFFFFF)


def _local(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and any(address in network for network in _LOCAL)

from __future__ import annotations

from puna.server.keys import _ADDRESSES, GUESSES, Brake


def test_too_many_wrong_keys_are_braked_for_a_while():
    now = 100.0
    brake = Brake(lambda: now)
    assert [brake.wrong("192.0.2.1") for _ in range(GUESSES)] == [None] * GUESSES
    assert brake.wrong("192.0.2.1") == 60
    assert brake.wrong("192.0.2.2") is None
    now = 130.0
    assert brake.wrong("192.0.2.1") == 30
    now = 160.0
    assert brake.wrong("192.0.2.1") is None


def test_a_subscriber_of_ipv6_is_one():
    brake = Brake()
    for number in range(GUESSES):
        assert brake.wrong(f"2001:db8::{number:x}") is None
    assert brake.wrong("2001:db8::ffff:1") is not None
    assert brake.wrong("2001:db8:0:1::1") is None
    assert brake.wrong("::ffff:192.0.2.1") is None


def test_what_is_remembered_is_bounded():
    brake = Brake()
    for number in range(_ADDRESSES + 100):
        brake.wrong(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(brake._wrong) == _ADDRESSES

"""The values of JSON Schema's `format` that Puna enforces, each as one pattern that is written.

Pure. A pattern may be narrower than its standard (no leap seconds, hosts in lower case), never wider: what it writes is
valid. Values that are given are judged by the wider one, where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_YEAR = "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_YEAR = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    f"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    f"|{_LEAP_YEAR}-02-29)"
)
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
# A label with two hyphens in a row may be one of another script, in an encoding that not every text of it keeps.
_LABEL = "[a-z0-9]{1,16}(-[a-z0-9]{1,16}){0,1}"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,3}}"
# A name that ends in digits is read as an address.
_TOP = "[a-z]{2,12}"
_DOMAIN = rf"({_LABEL}\.){{1,4}}{_TOP}"
_MAILBOX = r"[A-Za-z0-9_+-]{1,30}(\.[A-Za-z0-9_+-]{1,16}){0,2}"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"{_BYTE}(\.{_BYTE}){{3}}"
_H16 = "[0-9a-fA-F]{1,4}"
_IPV6 = "|".join(
    [
        f"({_H16}:){{7}}{_H16}",
        *(f"({_H16}:){{{before}}}(:{_H16}){{1,{7 - before}}}" for before in range(1, 7)),
        f"({_H16}:){{1,7}}:",
        f":(:{_H16}){{1,7}}",
        "::",
    ]
)
_ESCAPED = "%[0-9A-Fa-f]{2}"
_SEGMENT = f"([A-Za-z0-9._~!$&'()*+,;=:@-]|{_ESCAPED})*"
_QUERY = rf"([A-Za-z0-9._~!$&'()*+,;=:@/?-]|{_ESCAPED})*"
_TAIL = rf"(/{_SEGMENT})*(\?{_QUERY})?(#{_QUERY})?"
_URI = rf"([a-z][a-z0-9+.-]{{1,15}}://({_LABEL}\.){{0,4}}{_TOP}(:[0-9]{{1,4}})?{_TAIL}|(mailto|urn|tel|data):[A-Za-z0-9._~!$&'()*+,;=:@/-]+)"
_POINTER = r"(/([^~/]|~[01])*)*"
_SPAN = "[0-9]{1,4}"
_CLOCK = f"({_SPAN}H({_SPAN}M({_SPAN}S)?)?|{_SPAN}M({_SPAN}S)?|{_SPAN}S)"
_DAYS = f"({_SPAN}Y({_SPAN}M({_SPAN}D)?)?|{_SPAN}M({_SPAN}D)?|{_SPAN}D)"
_DURATION = f"P({_SPAN}W|{_DAYS}(T{_CLOCK})?|T{_CLOCK})"
_BASE64 = "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_BASE64URL = "([A-Za-z0-9_-]{4})*"
_BITS = "(3[0-2]|[12]?[0-9])"
_BITS6 = "(12[0-8]|1[01][0-9]|[1-9]?[0-9])"
# No bits of the host are set.
_NETWORK4 = rf"({_IPV4}/32|({_BYTE}\.){{3}}0/24|({_BYTE}\.){{2}}0\.0/16|{_BYTE}\.0\.0\.0/8)"
_NETWORK6 = f"(({_IPV6})/128|{_H16}(:{_H16}){{0,3}}::/64)"
# The header of a token is JSON in base64url: of these kinds of signature.
_JWT = (
    r"(eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9|eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9|eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9)"
    r"\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}"
)


def _uuid(version: str) -> str:
    return f"[0-9a-fA-F]{{8}}-[0-9a-fA-F]{{4}}-{version}[0-9a-fA-F]{{3}}-[89abAB][0-9a-fA-F]{{3}}-[0-9a-fA-F]{{12}}"


def _hashes() -> dict[str, str]:
    """As zod names them: by algorithm and encoding."""
    found: dict[str, str] = {}
    for name, size in (("md5", 16), ("sha1", 20), ("sha256", 32), ("sha384", 48), ("sha512", 64)):
        letters, padding = -(-size * 4 // 3), "=" * (-size % 3)
        found[f"{name}_hex"] = f"[0-9a-fA-F]{{{size * 2}}}"
        found[f"{name}_base64"] = f"[A-Za-z0-9+/]{{{letters}}}{padding}"
        found[f"{name}_base64url"] = f"[A-Za-z0-9_-]{{{letters}}}"
    return found


STRING_FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "date": _DATE,
        "time": _TIME,
        "date-time": f"{_DATE}T{_TIME}",
        "duration": _DURATION,
        "email": f"{_MAILBOX}@{_DOMAIN}",
        "idn-email": f"{_MAILBOX}@{_DOMAIN}",
        "hostname": _HOST,
        "idn-hostname": _HOST,
        "ipv4": _IPV4,
        "ipv6": _IPV6,
        "uuid": "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        "uri": _URI,
        "iri": _URI,
        "uri-reference": f"({_URI}|{_TAIL})",
        "iri-reference": f"({_URI}|{_TAIL})",
        "uri-template": rf"({_URI}|(/([A-Za-z0-9._~-]|\{{[a-z][a-z0-9_]*\}})*)+)",
        "json-pointer": _POINTER,
        "relative-json-pointer": f"(0|[1-9][0-9]{{0,3}})(#|{_POINTER})",
        "regex": r"([A-Za-z0-9 _:;,<>=@%&!~-]|\[[a-z0-9]+\][*+?]?|\\[dws][*+?]?|\\\.)*",
        "byte": _BASE64,
        # What zod's helpers write …
        "base64": _BASE64,
        "base64url": _BASE64URL,
        "cidrv4": f"{_IPV4}/{_BITS}",
        "cidrv6": f"({_IPV6})/{_BITS6}",
        "cuid": "[cC][0-9a-z]{6,32}",
        "cuid2": "[0-9a-z]{1,32}",
        "e164": r"\+[1-9][0-9]{6,14}",
        "emoji": r"\p{Extended_Pictographic}{1,8}",
        "hex": "[0-9a-fA-F]*",
        "jwt": _JWT,
        "ksuid": "[A-Za-z0-9]{27}",
        # One mark throughout: zod takes the mark to write, and says it in a pattern beside.
        "mac": "|".join(
            f"({two}{mark}){{5}}{two}" for mark in (":", "-", r"\.") for two in ("[0-9A-F]{2}", "[0-9a-f]{2}")
        ),
        "nanoid": "[a-zA-Z0-9_-]{21}",
        "ulid": "[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}",
        "xid": "[0-9a-vA-V]{20}",
        **_hashes(),
        # … and pydantic's types.
        **{f"uuid{version}": _uuid(str(version)) for version in range(1, 9)},
        "ipv4interface": f"{_IPV4}/{_BITS}",
        "ipv6interface": f"({_IPV6})/{_BITS6}",
        "ipv4network": _NETWORK4,
        "ipv6network": _NETWORK6,
        "ipvanyaddress": f"({_IPV4}|{_IPV6})",
        "ipvanyinterface": f"({_IPV4}/{_BITS}|({_IPV6})/{_BITS6})",
        "ipvanynetwork": f"({_NETWORK4}|{_NETWORK6})",
        "multi-host-uri": _URI,
        "name-email": f"{_MAILBOX}@{_DOMAIN}",
    }
)
"""Of strings, each to be matched by the whole text, as Puna writes it."""

_LABELS = "[a-z0-9]+(-[a-z0-9]+)*"
_SHORT_MAIL = rf"[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@({_LABELS}\.)+[a-z]{{2,}}"
_SHORT_HOST = rf"{_LABELS}(\.{_LABELS})*"
_SHORT_URI = rf"[a-z][a-z0-9+.-]+://({_LABELS}\.)*[a-z]{{2,}}(:[0-9]{{1,4}})?{_TAIL}"

SHORT = 63
"""Characters of a text in which no part of a name is longer than it may be."""
SHORT_FORMATS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("email", "idn-email"), _SHORT_MAIL),
        **dict.fromkeys(("hostname", "idn-hostname"), _SHORT_HOST),
        **dict.fromkeys(("uri", "iri"), _SHORT_URI),
    }
)
"""Of texts of at most SHORT characters: without counts, which cost much together with a length."""

_ANY_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ANY_HOST = rf"{_ANY_LABEL}(\.{_ANY_LABEL})*\.?"
_ANY_MAIL = r"[^@\s]+@[^@\s]+"
_ANY_URI = r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]*"
_ANY_REFERENCE = r"[^\s<>\"{}|\\^`]*"
_ANY_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_ANY_DURATION = r"P(?=[0-9T])([0-9]+W|([0-9]+Y)?([0-9]+M)?([0-9]+D)?(T(?=[0-9])([0-9]+H)?([0-9]+M)?([0-9.,]+S)?)?)"

WIDE_FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "base64url": "[A-Za-z0-9_-]*={0,2}",
        "cuid": "[cC][0-9a-z]{6,}",
        "cuid2": "[0-9a-z]+",
        "date-time": f"{_DATE}[Tt ]{_ANY_TIME}",
        "duration": _ANY_DURATION,
        "email": _ANY_MAIL,
        "emoji": r"[^ -!$-)+-/:-~]+",
        "hostname": _ANY_HOST,
        "idn-email": _ANY_MAIL,
        "idn-hostname": r"[^\s/@]+",
        "ipv4network": f"{_IPV4}(/{_BITS})?",
        "ipv6": f"{_IPV6}|[0-9a-fA-F:]{{2,30}}:{_IPV4}",
        "iri": _ANY_URI,
        "iri-reference": _ANY_REFERENCE,
        "jwt": r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*",
        "multi-host-uri": _ANY_URI,
        "name-email": r".*[^@\s]+@[^@\s]+",
        "regex": r"[\s\S]*",
        "time": _ANY_TIME,
        "uri": _ANY_URI,
        "uri-reference": _ANY_REFERENCE,
        "uri-template": r"[^\s<>\"|\\^`]*",
    }
)
"""By which values are judged, given ones (of an `enum`) too: where the standard allows more than Puna writes."""

FREE_FORMATS = frozenset({"password", "binary", "float", "double", "path", "file-path", "directory-path"})
"""Hints of OpenAPI and pydantic to people and code generators: they rule out no value."""

PATTERN_HINTS = frozenset(
    {"starts_with", "ends_with", "includes", "lowercase", "uppercase", "credit_card", "iban", "currency_code"}
)
"""What zod writes beside the pattern that says it. Without one they cannot be enforced."""

INTEGER_FORMATS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "int8": (-(2**7), 2**7 - 1),
        "int16": (-(2**15), 2**15 - 1),
        "int32": (-(2**31), 2**31 - 1),
        "int64": (-(2**63), 2**63 - 1),
        "uint8": (0, 2**8 - 1),
        "uint16": (0, 2**16 - 1),
        "uint32": (0, 2**32 - 1),
        "uint64": (0, 2**64 - 1),
    }
)
"""Of numbers, as bounds."""

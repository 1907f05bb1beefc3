"""The values of JSON Schema's `format` that Puna enforces, each as one pattern for grammar and check alike.

Pure. A pattern may be narrower than its standard (no leap seconds, hosts in lower case), never wider: what it writes is
valid.
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
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_LABEL = "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,4}}"
_DOMAIN = rf"{_LABEL}(\.{_LABEL}){{0,3}}\.[a-z]{{2,12}}"
_MAILBOX = r"[A-Za-z0-9_+-]{1,32}(\.[A-Za-z0-9_+-]{1,32}){0,3}"
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
_URI = (
    rf"([a-z][a-z0-9+.-]{{1,15}}://{_HOST}(:[0-9]{{1,4}})?{_TAIL}|(mailto|urn|tel|data):[A-Za-z0-9._~!$&'()*+,;=:@/-]+)"
)
_POINTER = r"(/([^~/]|~[01])*)*"
_DURATION = (
    r"P([0-9]{1,9}W|([0-9]{1,9}Y([0-9]{1,9}M([0-9]{1,9}D)?)?|[0-9]{1,9}M([0-9]{1,9}D)?|[0-9]{1,9}D)"
    r"(T([0-9]{1,9}H([0-9]{1,9}M([0-9]{1,9}S)?)?|[0-9]{1,9}M([0-9]{1,9}S)?|[0-9]{1,9}S))?"
    r"|T([0-9]{1,9}H([0-9]{1,9}M([0-9]{1,9}S)?)?|[0-9]{1,9}M([0-9]{1,9}S)?|[0-9]{1,9}S))"
)
_BASE64 = "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"

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
    }
)
"""Of strings, each to be matched by the whole text."""

FREE_FORMATS = frozenset({"password", "binary", "float", "double"})
"""OpenAPI's hints to people and code generators: they rule out no value."""

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

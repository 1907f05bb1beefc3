"""What messages hold besides text: data: URLs decoded, the text of files read. Pure."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

from puna.errors import InvalidRequest
from puna.server.documents import document_text

# ------------------------------------------------------------------------------------------------------ data: URLs


def decode_base64(text: str, param: str) -> bytes:
    """Standard or URL-safe alphabet, padding optional, blanks skipped."""
    compact = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"Invalid '{param}': not valid base64.", param=param, code="invalid_base64") from error


def decode_data_url(url: str, param: str) -> tuple[str, bytes]:
    """Media type (lower case, without parameters) and bytes of a data: URL."""
    head, comma, body = url.partition(",")
    if not head[:5].lower() == "data:" or not comma:
        raise InvalidRequest(f"Invalid '{param}': expected a data: URL.", param=param, code="invalid_data_url")
    kind, *parameters = head[5:].lower().split(";")
    data = decode_base64(body, param) if "base64" in parameters else unquote_to_bytes(body)
    return kind.strip(), data


def is_remote(url: str) -> bool:
    return url[:7].lower() == "http://" or url[:8].lower() == "https://"


# ---------------------------------------------------------------------------------------------------------- files


def file_text(url: str, param: str) -> str:
    """The text of a file given as data: URL. Blocking: a PDF takes a while."""
    kind, data = decode_data_url(url, param)
    return document_text(data, kind, param)

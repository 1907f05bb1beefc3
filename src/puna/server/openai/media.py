"""What messages hold besides text: data: URLs decoded, the text of files read. Pure."""

from __future__ import annotations

import base64
import binascii
import io
from urllib.parse import unquote_to_bytes

from puna.errors import InvalidRequest, Unsupported

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
    if kind == "application/pdf" or data.startswith(b"%PDF-"):
        return _pdf_text(data, param)
    if kind.startswith("text/") or kind in {"", "application/json", "application/xml"}:
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"Invalid '{param}': the text is not UTF-8.", param=param) from error
    raise Unsupported(f"Invalid '{param}': files of type '{kind}' cannot be read, only text and PDF.", param=param)


def _pdf_text(data: bytes, param: str) -> str:
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError as error:
        raise Unsupported(
            f"Invalid '{param}': reading PDF files needs the extra 'pdf': pip install 'puna[pdf]'.", param=param
        ) from error
    try:
        text = "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(data)).pages)
    except (PyPdfError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"Invalid '{param}': the PDF cannot be read: {error}.", param=param) from error
    if not text.strip():
        raise InvalidRequest(f"Invalid '{param}': the PDF holds no text, only pictures perhaps.", param=param)
    return text


def file_name(name: str | None, text: str) -> str:
    """The text as it stands in a message, its name before it."""
    return f"{name}:\n{text}" if name else text

"""The text of files: what a model reads of one. Blocking: a PDF takes a while."""

from __future__ import annotations

import mimetypes
from importlib.util import find_spec

from puna.errors import InvalidRequest, Unsupported
from puna.server import pdf
from puna.server.strangers import TakesTooMuch, Unreadable, read_beside

_TEXTS = frozenset(
    {"", "application/json", "application/xml", "application/yaml", "application/x-yaml", "application/jsonl",
     "application/x-ndjson", "application/javascript", "application/x-sh", "application/toml"}
)  # fmt: skip
_UNSAID = frozenset({"", "application/octet-stream"})
"""Types that say nothing: the name and the bytes decide."""


def document_text(data: bytes, kind: str, param: str) -> str:
    """The text of a file of a media type (lower case, without parameters). InvalidRequest, Unsupported name `param`."""
    if kind == "application/pdf" or data.startswith(b"%PDF-"):
        return _pdf_text(data, param)
    if kind.startswith("text/") or kind in _TEXTS:
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"Invalid '{param}': the text is not UTF-8.", param=param) from error
    raise Unsupported(f"Invalid '{param}': files of type '{kind}' cannot be read, only text and PDF.", param=param)


def likely_kind(said: str, filename: str, data: bytes) -> str:
    """The media type of a file: as its sender said, else by its name, else text where the bytes look like it."""
    kind = said.partition(";")[0].strip().lower()
    if kind not in _UNSAID:
        return kind
    guessed = mimetypes.guess_type(filename)[0]
    return guessed or ("application/octet-stream" if b"\0" in data[:8192] else "text/plain")


def named_text(name: str | None, text: str) -> str:
    """The text as it stands in a message, its name before it."""
    return f"{name}:\n{text}" if name else text


def _pdf_text(data: bytes, param: str) -> str:
    """Read in a process of its own, within bounds."""
    if not _reads_pdf():
        raise Unsupported(
            f"Invalid '{param}': reading PDF files needs the extra 'pdf': pip install 'puna[pdf]'.", param=param
        )
    try:
        text = read_beside("puna.server.pdf", data, pdf.BOUNDS, "a PDF").decode("utf-8", "replace")
    except Unreadable as error:
        raise InvalidRequest(f"Invalid '{param}': the PDF cannot be read: {error}.", param=param) from error
    except TakesTooMuch as error:
        told = f"{error}, or has more than {pdf.MAX_TEXT >> 20} MB of text"
        raise InvalidRequest(f"Invalid '{param}': to read the PDF takes {told}.", param=param) from error
    if not text.strip():
        raise InvalidRequest(f"Invalid '{param}': the PDF holds no text, only pictures perhaps.", param=param)
    return text


def _reads_pdf() -> bool:
    try:
        return find_spec("pypdf") is not None
    except ValueError:  # a module without one stands in its place
        return False

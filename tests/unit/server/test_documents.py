"""What a model reads of files. PDFs are read in a process of their own: a stranger's can only end that."""

from __future__ import annotations

import io
import zlib
from dataclasses import replace

import pytest

from fakes.documents import pdf as one_page
from puna.errors import InvalidRequest, Overloaded
from puna.server import pdf, strangers
from puna.server.documents import document_text


def text_of(data: bytes) -> str:
    return document_text(data, "application/pdf", "file")


def packed(content: bytes, pages: int = 1) -> bytes:
    """A PDF whose pages all have one packed content."""
    stream = zlib.compress(content, 9)
    kids = " ".join(["3 0 R"] * pages)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {pages}>>".encode(),
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, places = io.BytesIO(b"%PDF-1.4\n"), []
    out.seek(0, io.SEEK_END)
    for number, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj%s endobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places))
    out.write(b"trailer<</Root 1 0 R/Size 6>>\nstartxref\n%d\n%%%%EOF" % start)
    return out.getvalue()


def test_the_text_of_a_pdf():
    assert text_of(one_page("Four legs")) == "Four legs"
    assert text_of(packed(b"BT /F1 12 Tf 72 720 Td (Page) Tj ET", 2)) == "Page\nPage"


@pytest.mark.parametrize("data", [b"%PDF-", b"%PDF-1.4 nonsense", one_page("x")[:300], one_page("x")[200:]])
def test_what_is_broken_is_refused(data):
    with pytest.raises(InvalidRequest, match="PDF cannot be read"):
        text_of(data if data.startswith(b"%PDF-") else b"%PDF-" + data)


def test_what_unpacks_to_too_much_is_refused():
    """Some hundred kilobytes that unpack to many."""
    with pytest.raises(InvalidRequest, match=r"Limit reached|memory|processor"):
        text_of(packed(b"BT /F1 12 Tf " + b"(a) Tj " * 20_000_000 + b"ET"))


@pytest.mark.parametrize(
    ("bound", "value", "told"),
    [("cpu_seconds", 0.3, "0.3 s of a processor"), ("room", 4 << 20, "4 MB of memory")],
)
def test_what_takes_too_much_is_refused(monkeypatch, bound, value, told):
    """A page that is there again and again."""
    monkeypatch.setattr(pdf, "BOUNDS", replace(pdf.BOUNDS, **{bound: value}))
    with pytest.raises(InvalidRequest, match=told):
        text_of(packed(b"BT /F1 12 Tf " + b"(aaaaaaaaaa) Tj " * 20_000 + b"ET", 400))


def test_a_reader_that_the_system_does_not_let_run_is_no_fault_of_the_pdf(monkeypatch):
    monkeypatch.setattr(pdf, "BOUNDS", replace(pdf.BOUNDS, wait_seconds=0.01))
    with pytest.raises(Overloaded, match="too little"):
        text_of(one_page("x"))


def test_what_computes_for_ever_is_refused(monkeypatch):
    """As on a system that bounds no process's time."""
    monkeypatch.setattr(pdf, "BOUNDS", replace(pdf.BOUNDS, wait_seconds=0.01))
    monkeypatch.setattr(strangers, "processor_seconds", lambda pid: 30.0)
    with pytest.raises(InvalidRequest, match="too long"):
        text_of(one_page("x"))


def test_a_pdf_without_text():
    with pytest.raises(InvalidRequest, match="no text"):
        text_of(packed(b"q Q"))

"""/v1/audio/transcriptions and translations, over a model that hears; the scripted engine says what it heard."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
from openai import BadRequestError, OpenAI
from openai.types.audio import TranscriptionCreateParams, TranslationCreateParams

from fakes import sounds
from fakes.projectors import wav
from puna.server.contract.shapes import Honoured, Refused, Reported, shape_fields
from puna.server.openai.audio import TranscriptionForm, TranslationForm

SOUND = wav(1.5, 440)
TEXT = "Hello there, friend."


def file(data: bytes = SOUND) -> Any:
    return ("sound.wav", io.BytesIO(data))


def transcribe(client: OpenAI, **fields: Any) -> Any:
    return client.audio.transcriptions.create(**({"model": "listener", "file": file()} | fields))


FORM = {"content-type": "multipart/form-data; boundary=x"}


def form(server: Any, path: str = "/v1/audio/transcriptions", data: bytes = SOUND, **fields: Any) -> Any:
    return server.post(path, encoded(data, **fields), headers=FORM)


def encoded(data: bytes = SOUND, **fields: Any) -> bytes:
    """A form. `fields`: a text, or a list of texts for a field with `[]`."""
    lines: list[bytes] = []
    for name, value in ({"model": "listener"} | fields).items():
        each = {f"{name}[]": value} if isinstance(value, list) else {name: [value]}
        for key, texts in each.items():
            lines += [
                f'--x\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{text}\r\n'.encode() for text in texts
            ]
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return b"".join(lines) + head + data + b"\r\n--x--\r\n"


def test_a_transcription(openai: OpenAI):
    found = transcribe(openai)
    assert (found.text, found.logprobs) == (TEXT, None)
    assert found.usage.type == "tokens"
    assert found.usage.total_tokens == found.usage.input_tokens + found.usage.output_tokens > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK's own: it is to end
def test_a_translation(openai: OpenAI):
    assert openai.audio.translations.create(model="listener", file=file()).text == TEXT
    verbose = openai.audio.translations.create(model="listener", file=file(), response_format="verbose_json")
    assert (verbose.text, verbose.language, verbose.duration) == (TEXT, "english", 1.5)


def test_every_format(openai: OpenAI):
    assert transcribe(openai, response_format="text") == f"{TEXT}\n"
    assert transcribe(openai, response_format="srt") == f"1\n00:00:00,000 --> 00:00:01,500\n{TEXT}\n\n"
    assert transcribe(openai, response_format="vtt") == f"WEBVTT\n\n00:00:00.000 --> 00:00:01.500\n{TEXT}\n\n"
    verbose = transcribe(openai, response_format="verbose_json", language="de")
    assert (verbose.text, verbose.language, verbose.duration) == (TEXT, "de", 1.5)
    assert (verbose.segments, verbose.words) == (None, None)
    assert verbose.usage.seconds == 1.5
    assert transcribe(openai, response_format="verbose_json").language == "unknown"


@pytest.mark.parametrize("kind", ["flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "ogg", "webm"])
def test_every_kind_that_openais_clients_send(openai: OpenAI, kind: str):
    """Told by its bytes: the name is a lie."""
    found = transcribe(openai, file=("sound.wav", sounds.encoded(kind, 1.5, 440)), response_format="verbose_json")
    assert (found.text, found.duration) == (TEXT, pytest.approx(1.5, abs=0.1))


def test_a_stream(openai: OpenAI):
    *deltas, done = transcribe(openai, stream=True, include=["logprobs"])
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert "".join(event.delta for event in deltas) == done.text == TEXT
    assert done.type == "transcript.text.done"
    assert done.usage.total_tokens > 0
    assert len(done.logprobs) == sum(len(event.logprobs) for event in deltas) > 0


def test_log_probabilities(openai: OpenAI):
    entries = transcribe(openai, include=["logprobs"]).logprobs
    assert "".join(entry.token for entry in entries) == TEXT
    assert all(entry.logprob <= 0 and bytes(map(int, entry.bytes)).decode() == entry.token for entry in entries)


READ = {
    "prompt": ("PROMPT about Ada", "PROMPT about Ada"),
    "language": ("de", "language is: de"),
    "languages": (["de", "fr"], "one of: de, fr"),
    "keywords": (["Ada", "Babbage"], "said: Ada, Babbage"),
}


@pytest.mark.parametrize("name", READ)
def test_what_the_model_reads(server, name):
    value, words = READ[name]
    fields = {"prompt": "PROMPT"} | {name: value}
    text = form(server, response_format="text", **fields).body.decode()
    assert words in text
    assert "word for word" in text
    assert "English" in form(server, "/v1/audio/translations", response_format="text", prompt="PROMPT").body.decode()


def test_settings_of_the_model(server):
    def settings(**fields: Any) -> str:
        text: str = form(server, prompt="SAMPLING", response_format="text", **fields).body.decode()
        return text

    assert '"temperature": 0.0' in settings()
    assert '"temperature": 0.5' in settings(temperature="0.5")
    server.post("/api/unload", {"all": True})
    assert form(server, num_ctx="512", keep_alive="-1s").status == 200
    [loaded] = server.get("/api/ps").json["models"]
    assert loaded["context_length"] == 512
    assert loaded["expires_at"] > "2100"


def test_what_is_reported_and_refused(server):
    assert form(server, chunking_strategy="auto").headers["x-puna-ignored"] == "chunking_strategy"
    assert form(server, frobnicate="1").headers["x-puna-ignored"] == "frobnicate"
    for name, value in (
        ("timestamp_granularities", ["word"]),
        ("known_speaker_names", ["Ada"]),
        ("known_speaker_references", ["data:x"]),
        ("response_format", "diarized_json"),
    ):
        answer = form(server, **{name: value})
        assert (answer.status, answer.error["param"], answer.error["code"]) == (400, name, "unsupported_value")


PROVED = {*READ, "model", "response_format", "temperature", "keep_alive", "num_ctx", "include", "stream"}


def test_every_field_is_proved():
    for shape in (TranscriptionForm, TranslationForm):
        for row in shape_fields(shape):
            match row.mark:
                case Honoured():
                    assert row.name in PROVED
                case Refused():
                    assert row.name in {"timestamp_granularities", "known_speaker_names", "known_speaker_references"}
                case Reported():
                    assert row.name == "chunking_strategy"


def test_every_published_field_is_in_the_contract():
    transcriptions: list[Any] = list(TranscriptionCreateParams.__args__)  # type: ignore[attr-defined]
    of_each = [(TranslationCreateParams, TranslationForm), *((one, TranscriptionForm) for one in transcriptions)]
    for published, shape in of_each:
        fields = published.__required_keys__ | published.__optional_keys__
        assert fields - {"file"} <= {row.name for row in shape_fields(shape)}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "nope"}, "model"),
        ({"model": "tiny"}, "model"),
        ({"model": "vision"}, "model"),
        ({"temperature": "2"}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"response_format": "xml"}, "response_format"),
        ({"stream": "true", "response_format": "srt"}, "stream"),
        ({"include": ["logprobs"], "response_format": "text"}, "include"),
        ({"include": ["segments"]}, "include[0]"),
        ({"data": b"OggS and so on"}, "file"),
        ({"data": SOUND[:30]}, "file"),
        ({"data": wav(0.01, 440)}, "file"),
    ],
)
def test_bad_requests_name_the_field(server, fields, param):
    answer = form(server, **fields)
    assert answer.status == (404 if fields.get("model") == "nope" else 400), answer.body
    assert answer.error["param"] == param


def test_a_file_must_be_there_and_be_a_form(server, openai: OpenAI):
    body = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nlistener\r\n--x--\r\n'
    answer = server.post("/v1/audio/transcriptions", body, headers=FORM)
    assert (answer.status, answer.error["param"]) == (400, "file")
    assert server.post("/v1/audio/transcriptions", {"model": "listener"}).status == 415
    with pytest.raises(BadRequestError, match='"tiny:latest" does not support audio'):
        transcribe(openai, model="tiny")


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations"])
def test_damaged_forms_never_break_the_server(server, path):
    """The head of a form and the head of its sound, with bytes cut out, doubled, exchanged."""
    source, statuses = random.Random(path), set()
    fields = {"temperature": "0.5", "include": ["logprobs"], "language": "de", "stream": "false", "num_ctx": "4096"}
    whole = encoded(wav(0.2, 440), response_format="json", **fields)
    for _ in range(500):
        at, size = source.randrange(len(whole) - 6000), source.choice([1, 1, 2, 8, 100, len(whole)])
        junk = source.choice([b"", source.randbytes(size % 100), whole[at : at + size] * 2, b"[][", b"\r\n--x"])
        answer = server.post(path, whole[:at] + junk + whole[at + size :], headers=FORM)
        assert answer.status < 500, answer.body
        if answer.status != 200:
            assert answer.error.keys() == {"message", "type", "param", "code"}
        statuses.add(answer.status)
    assert {200, 400} <= statuses
    assert server.busy() == 0

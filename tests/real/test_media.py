"""Images and sounds on a real engine, over HTTP, with real clients: random weights, but every part of the way is real.

What such a model says means nothing. That it says something else for another picture shows that it was given it.
"""

from __future__ import annotations

import base64
import io
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import ollama
import openai
import pytest
from PIL import Image

from fakes.damage import rounds
from fakes.documents import pdf
from fakes.gguf_files import CHATML, write_tiny_llama
from fakes.projectors import IMAGE_TOKENS, mp3, plain, png, wav, write_projector
from fakes.sounds import encoded
from puna.model.ggml import TensorType

from .conftest import Program, serve

NUM_CTX = 1024
RED, BLUE = plain((255, 0, 0)), plain((0, 0, 255))
WIDE = plain((255, 0, 0), 128, 32)
SLOPE = png(64, 64, lambda x, y: (4 * x, 4 * y, 0))
TONE, HIGH = wav(0.5, 440), wav(0.5, 1760)
UNTOLD = -9999.0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, projectors, and Modelfiles that put them together."""
    directory = tmp_path_factory.mktemp("media")
    write_tiny_llama(directory / "tiny.gguf", context_length=4096, more_tokens=IMAGE_TOKENS, kind=TensorType.Q8_0)
    write_projector(directory / "both.gguf", hears=True)
    write_projector(directory / "whole.gguf", sees="gemma3", tile=288)
    write_tiny_llama(
        directory / "begun.gguf",
        context_length=4096,
        more_tokens=IMAGE_TOKENS,
        kind=TensorType.Q8_0,
        chat_template="{{ bos_token }}" + CHATML,
        metadata={"tokenizer.ggml.add_bos_token": True},
    )
    (directory / "Begun").write_text("FROM ./begun.gguf\nFROM ./both.gguf\n")
    write_projector(directory / "ear.gguf", sees=None, hears=True)
    (directory / "Ear").write_text("FROM ./tiny.gguf\nFROM ./ear.gguf\n")
    (directory / "Blind").write_text("FROM ./tiny.gguf\n")
    (directory / "Both").write_text("FROM ./tiny.gguf\nFROM ./both.gguf\n")
    (directory / "Whole").write_text("FROM ./tiny.gguf\nFROM ./whole.gguf\n")
    return directory


@pytest.fixture(scope="module")
def program(files: Path) -> Iterator[Program]:
    """A server whose operator wants many requests at once: what can go to the cpu engine, goes there."""
    settings = {
        "PUNA_KEEP_ALIVE": "1h",
        "PUNA_FETCH_PRIVATE": "1",
        "PUNA_NUM_PARALLEL": "16",
        "PUNA_CONTEXT_LENGTH": str(NUM_CTX),
    }
    with serve(files / "models", files / "log", **settings) as running:
        for name in ("Blind", "Both", "Ear", "Whole", "Begun"):
            made = running.command("create", name.lower(), "-f", str(files / name))
            assert made.returncode == 0, made.stderr
        yield running


@pytest.fixture(scope="module")
def pictures() -> Iterator[tuple[str, list[str]]]:
    """A web server on this machine with one picture; and what was asked of it."""
    asked: list[str] = []

    class Pictures(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("content-length", str(len(RED)))
            self.end_headers()
            self.wfile.write(RED)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}/red.png", asked
        web.shutdown()
        thread.join()


def url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.fixture(scope="module")
def native(program: Program) -> Iterator[ollama.Client]:
    with ollama.Client(program.url) as client:
        yield client


def image(data: bytes | str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data if isinstance(data, str) else url(data)}}


def sound(data: bytes, kind: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": kind}}


def messages(*parts: dict[str, Any], text: str = "What is this?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def ask(program: Program, *parts: dict[str, Any], text: str = "What is this?", **fields: Any) -> Any:
    """A greedy answer of four letters with their log-probabilities."""
    few = {
        "max_tokens": 4,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 5,
        "extra_body": {"guided_regex": "[a-z]{4}"},
    }
    return program.client.chat.completions.create(
        messages=messages(*parts, text=text), **{"model": "both", **few, **fields}
    )


def chances(answer: Any) -> list[tuple[float, ...]]:
    """Of each token: its log-probability and its rivals'."""
    entries = answer.choices[0].logprobs.content
    assert entries
    assert all(entry.logprob != UNTOLD for entry in entries)
    return [(entry.logprob, *(top.logprob for top in entry.top_logprobs)) for entry in entries]


def refused(program: Program, *parts: dict[str, Any], **fields: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(program, *parts, **fields)
    assert caught.value.status_code == 400
    return caught.value


# --------------------------------------------------------------------------------------------------------- pictures


def test_the_engine_is_given_the_picture(program: Program) -> None:
    red, blue, none = ask(program, image(RED)), ask(program, image(BLUE)), ask(program)
    assert red.usage.prompt_tokens == blue.usage.prompt_tokens > none.usage.prompt_tokens
    assert chances(red) != chances(blue)
    assert chances(red) != chances(none)
    assert chances(red) == chances(ask(program, image(RED)))


def test_a_picture_of_another_shape_is_another_number_of_tokens(program: Program) -> None:
    assert ask(program, image(RED)).usage.prompt_tokens != ask(program, image(WIDE)).usage.prompt_tokens


def test_pictures_are_counted_each_and_in_order(program: Program) -> None:
    one, two = ask(program, image(RED)), ask(program, image(RED), image(BLUE))
    assert two.usage.prompt_tokens > one.usage.prompt_tokens
    assert chances(two) != chances(ask(program, image(BLUE), image(RED)))


def test_the_start_token_stands_once(program: Program) -> None:
    """The engine puts one before a text with pictures, whatever the template wrote; ours is taken back."""

    def tokens(model: str, *parts: dict[str, Any]) -> int:
        count: int = ask(program, *parts, model=model).usage.prompt_tokens
        return count

    assert tokens("begun") == tokens("both") + 1
    assert tokens("begun", image(RED)) == tokens("both", image(RED)) + 1


def test_three_answers_to_one_picture(program: Program) -> None:
    one, three = (ask(program, image(SLOPE), n=n, temperature=1, seed=3) for n in (1, 3))
    texts = [choice.message.content for choice in three.choices]
    assert len(texts) == 3
    assert len(set(texts)) > 1
    assert texts[0] == one.choices[0].message.content
    assert three.usage.prompt_tokens == one.usage.prompt_tokens


def test_what_each_model_can_do_is_told(program: Program, native: ollama.Client) -> None:
    can = {name: set(native.show(name).capabilities or ()) & {"vision", "audio"} for name in ("both", "whole", "blind")}
    assert can == {"both": {"vision", "audio"}, "whole": {"vision"}, "blind": set()}


def test_files_become_text_of_the_prompt(program: Program) -> None:
    """A letter is a token of this vocabulary."""

    def tokens(data: bytes, kind: str) -> int:
        part = {"type": "file", "file": {"file_data": url(data, kind), "filename": "x"}}
        count: int = ask(program, part, model="blind").usage.prompt_tokens
        return count

    assert tokens(b"a" * 60, "text/plain") == tokens(b"a" * 20, "text/plain") + 40
    assert tokens(pdf("a" * 60), "application/pdf") == tokens(pdf("a" * 20), "application/pdf") + 40


def test_the_command_attaches_pictures(program: Program, files: Path) -> None:
    path = files / "red.png"
    path.write_bytes(RED)

    def counted(words: str) -> int:
        done = program.command("run", "both", "--verbose", words)
        assert done.returncode == 0, done.stderr
        line = next(line for line in (done.stdout + done.stderr).splitlines() if "prompt eval count" in line)
        return int(line.split()[3])

    assert counted(f"What is {path}?") > counted("What is it?") + 40


def test_a_picture_by_its_address_is_the_same_picture(program: Program, pictures: tuple[str, list[str]]) -> None:
    address, asked = pictures
    fetched = ask(program, image(address))
    assert asked == ["/red.png"]
    assert chances(fetched) == chances(ask(program, image(RED)))


def test_jpeg_and_webp(program: Program) -> None:
    whole, jpeg = io.BytesIO(), io.BytesIO()
    with Image.open(io.BytesIO(SLOPE)) as picture:
        picture.save(whole, "WEBP", lossless=True)
        picture.save(jpeg, "JPEG")
    assert chances(ask(program, image(url(whole.getvalue(), "image/webp")))) == chances(ask(program, image(SLOPE)))
    assert chances(ask(program, image(url(jpeg.getvalue(), "image/jpeg")))) != chances(ask(program, image(RED)))


def test_what_was_seen_is_not_computed_again(program: Program) -> None:
    picture = plain((1, 100, 200))
    first, again = (ask(program, image(picture), text="Cached?").usage for _ in range(2))
    assert again.prompt_tokens == first.prompt_tokens
    assert again.prompt_tokens_details.cached_tokens == again.prompt_tokens - 1
    other = ask(program, image(plain((1, 100, 201))), text="Cached?").usage
    assert other.prompt_tokens_details.cached_tokens < first.prompt_tokens // 2


def test_a_streamed_answer_is_the_same(program: Program) -> None:
    whole = ask(program, image(SLOPE))
    *chunks, last = ask(program, image(SLOPE), stream=True, stream_options={"include_usage": True})
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.logprobs]
    entries = [entry for choice in choices for entry in choice.logprobs.content]
    assert [entry.bytes for entry in entries] == [entry.bytes for entry in whole.choices[0].logprobs.content]
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens


def test_each_token_has_its_entry(program: Program) -> None:
    """Also those around half a character, of which this engine says nothing after a picture."""
    answer = ask(program, image(SLOPE), max_tokens=20, temperature=2, seed=7, extra_body={})
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens
    data = b"".join(bytes(entry.bytes or ()) for entry in entries)
    assert data.decode(errors="replace") == answer.choices[0].message.content
    untold = [entry for entry in entries if entry.logprob == UNTOLD]
    assert len(untold) < len(entries)
    assert not any(entry.top_logprobs for entry in untold)
    assert all(entry.logprob < 0 for entry in entries)


def test_a_seed_gives_the_same_answer_in_any_company(program: Program) -> None:
    def one(picture: bytes, seed: int) -> str:
        fields = {"seed": seed, "temperature": 1, "max_tokens": 16, "extra_body": {"guided_regex": "[a-z ]{60}"}}
        text: str = ask(program, image(picture), **fields).choices[0].message.content
        return text

    alone = one(SLOPE, 5)
    with ThreadPoolExecutor(6) as pool:
        company = [pool.submit(one, picture, 5) for picture in (RED, SLOPE, BLUE, SLOPE, WIDE, SLOPE)]
        together = [task.result() for task in company]
    assert [together[i] for i in (1, 3, 5)] == [alone] * 3
    assert len({together[i] for i in (0, 1, 2, 4)}) > 1


def test_a_picture_is_counted_without_an_answer(program: Program) -> None:
    body = {"model": "both", "messages": messages(image(SLOPE))}
    counted = program.client.post(f"{program.url}/tokenize", body=body, cast_to=object)
    assert counted == {
        "count": ask(program, image(SLOPE)).usage.prompt_tokens,
        "tokens": None,
        "max_model_len": NUM_CTX,
    }


def test_pictures_that_do_not_fit_are_refused_with_both_numbers(program: Program) -> None:
    error = refused(program, *[image(RED)] * 20)
    assert (error.code, error.param) == ("context_length_exceeded", "messages")
    assert str(NUM_CTX) in error.message


def test_an_answer_ends_where_the_context_does(program: Program) -> None:
    many = [image(RED)] * 12
    answer = ask(program, *many, max_tokens=2000, extra_body={"guided_regex": "[a-z]{2000}"})
    assert answer.choices[0].finish_reason == "length"
    assert NUM_CTX - 1 <= answer.usage.total_tokens <= NUM_CTX


def test_images_that_see_themselves_whole_are_computed_whole(program: Program) -> None:
    """The picture is 81 tokens, which the smaller batch would cut in two: with other results, and no word of it."""
    answers = [
        ask(
            program,
            image(SLOPE),
            model="whole",
            extra_body={"options": {"num_batch": batch}, "guided_regex": "[a-z]{4}"},
        )
        for batch in (64, 512)
    ]
    assert chances(answers[0]) == chances(answers[1])
    assert "num_batch is 2048" in program.command("ps", "-v").stdout


# ----------------------------------------------------------------------------------------------------------- sounds


def test_the_engine_is_given_the_sound(program: Program) -> None:
    tone, high, none = ask(program, sound(TONE)), ask(program, sound(HIGH)), ask(program)
    assert tone.usage.prompt_tokens == high.usage.prompt_tokens > none.usage.prompt_tokens
    assert chances(tone) != chances(high)
    assert chances(tone) == chances(ask(program, sound(TONE)))
    # No engine tells how many of the tokens are the sound's: better nothing than none.
    assert tone.usage.prompt_tokens_details.audio_tokens is None
    assert none.usage.prompt_tokens_details.audio_tokens == 0


def test_mp3(program: Program) -> None:
    silence = ask(program, sound(mp3(20), "mp3"))
    assert silence.usage.prompt_tokens == ask(program, sound(TONE)).usage.prompt_tokens
    assert chances(silence) != chances(ask(program, sound(TONE)))


@pytest.mark.parametrize(
    "same",
    [wav(0.5, 440, channels=2), wav(0.5, 440, samples="<f4"), wav(0.5, 440, samples="u1"), wav(0.5, 440, rate=48000)],
    ids=["stereo", "float", "eight bits", "three times the rate"],
)
def test_a_tone_is_the_same_tone_in_other_waves(program: Program, same: bytes) -> None:
    """As near as its samples are."""
    heard, other = (np.array(chances(ask(program, sound(data)))) for data in (same, HIGH))
    tone = np.array(chances(ask(program, sound(TONE))))
    assert heard.shape == tone.shape
    assert np.abs(heard - tone).max() < np.abs(other - tone).max() / 4


@pytest.mark.parametrize("rate", [16000, 48000])
def test_a_flac_is_the_same_tone_to_the_bit(program: Program, rate: int) -> None:
    """Whatever its header claims: a decoder would make room for so many samples."""
    flac = encoded("flac", 0.5, 440, rate=rate)
    tone = chances(ask(program, sound(wav(0.5, 440, rate=rate))))
    assert chances(ask(program, sound(flac, "flac"))) == tone
    claim = int.from_bytes(flac[18:26], "big")
    for other in (claim >> 36 << 36, claim | (1 << 36) - 1):
        claiming = flac[:18] + other.to_bytes(8, "big") + flac[26:]
        assert chances(ask(program, sound(claiming, "flac"))) == tone


@pytest.mark.parametrize("kind", ["ogg", "m4a"])
def test_a_tone_is_the_same_tone_in_other_files(program: Program, kind: str) -> None:
    """As near as what was left out by its encoder, and the silence that it puts before."""
    heard, other = (np.array(chances(ask(program, sound(encoded(kind, 1, hertz), kind)))) for hertz in (440, 1760))
    tone = np.array(chances(ask(program, sound(wav(1, 440)))))
    assert np.abs(heard - tone).max() < np.abs(other - tone).max() / 2


def form(program: Program, path: str = "transcriptions", data: bytes = TONE, **fields: Any) -> httpx.Response:
    sent = {"model": "ear", "num_ctx": "512"} | fields
    files = {"file": ("a.wav", data)}
    return httpx.post(f"{program.url}/v1/audio/{path}", files=files, data=sent, timeout=100)


def test_a_sound_is_written_down(program: Program) -> None:
    """What a model with random weights makes of it, cut by a small context: the same whole and in a stream."""
    create = program.client.audio.transcriptions.create
    fields: dict[str, Any] = {"model": "both", "include": ["logprobs"], "extra_body": {"num_ctx": 512}}
    tone, again, high = (create(file=("a.wav", data), **fields) for data in (TONE, TONE, HIGH))
    assert tone.logprobs
    assert tone.logprobs == again.logprobs != high.logprobs
    assert tone.usage is not None
    assert tone.usage.type == "tokens"
    assert tone.usage.total_tokens == 512
    *deltas, done = create(file=("a.wav", TONE), stream=True, **fields)
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas if event.type == "transcript.text.delta") == done.text
    assert [one.logprob for one in done.logprobs or []] == [one.logprob for one in tone.logprobs]


@pytest.mark.parametrize("path", ["transcriptions", "translations"])
def test_a_text_comes_in_every_format(program: Program, path: str) -> None:
    """And that the context ended it is told, though no format has a place for that."""
    answers = {
        kind: form(program, path, response_format=kind) for kind in ("json", "text", "srt", "vtt", "verbose_json")
    }
    assert {answer.status_code for answer in answers.values()} == {200}
    assert {answer.headers["x-puna-finish-reason"] for answer in answers.values()} == {"length"}
    text = answers["json"].json()["text"]
    assert text
    assert answers["text"].text == f"{text}\n"
    assert answers["srt"].text == f"1\n00:00:00,000 --> 00:00:00,500\n{text}\n\n"
    assert answers["vtt"].text == f"WEBVTT\n\n00:00:00.000 --> 00:00:00.500\n{text}\n\n"
    verbose = answers["verbose_json"].json()
    assert (verbose["text"], verbose["duration"]) == (text, 0.5)
    assert not verbose.keys() & {"segments", "words"}, "no times are made up"
    if path == "transcriptions":
        assert "\n: x-puna-finish-reason: length\n" in form(program, stream="true").text


def test_damaged_sounds_do_not_end_the_runner(program: Program) -> None:
    """A head's bytes are others, or the end is gone: heard as what it is then, or refused."""
    chance = random.Random(5)
    whole = [wav(0.2, 440), wav(0.2, 440, channels=2, samples="<f4"), mp3(12), b"ID3\4\0\0\0\0\0\x0a" + mp3(12)]
    whole += [encoded("flac", 0.2, 440, rate=16000), encoded("flac", 0.2, 440, channels=2)]
    runners = {runner.pid for runner in program.runners()}
    found = set()
    for _ in range(rounds(12)):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(64)] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        if chance.random() < 0.5:
            answer = form(program, data=bytes(data))
        else:
            body = {"model": "ear", "messages": messages(sound(bytes(data))), "max_tokens": 1, "num_ctx": 512}
            answer = httpx.post(f"{program.url}/v1/chat/completions", json=body, timeout=100)
        assert answer.status_code in {200, 400}, answer.text
        found.add(answer.status_code)
    assert 400 in found
    assert runners <= {runner.pid for runner in program.runners()}


def test_a_picture_and_a_sound_together(program: Program) -> None:
    both = ask(program, image(RED), sound(TONE))
    assert both.usage.prompt_tokens > ask(program, sound(TONE)).usage.prompt_tokens
    assert chances(both) != chances(ask(program, image(BLUE), sound(TONE)))
    assert chances(both) != chances(ask(program, image(RED), sound(HIGH)))


# ----------------------------------------------------------------------------------------------------------- Ollama


def test_ollamas_images(native: ollama.Client) -> None:
    wanted: dict[str, Any] = {"model": "both", "options": {"num_predict": 4, "temperature": 0}, "logprobs": True}

    def chat(*pictures: bytes) -> Any:
        return native.chat(messages=[{"role": "user", "content": "What?", "images": list(pictures)}], **wanted)

    red, blue, none = chat(RED), chat(BLUE), chat()
    assert red.prompt_eval_count == blue.prompt_eval_count > none.prompt_eval_count
    assert [entry.logprob for entry in red.logprobs] != [entry.logprob for entry in blue.logprobs]
    parts = list(native.chat(messages=[{"role": "user", "content": "What?", "images": [RED]}], stream=True, **wanted))
    assert parts[-1].prompt_eval_count == red.prompt_eval_count
    generated = native.generate(prompt="What?", images=[RED], **wanted)
    assert generated.prompt_eval_count == red.prompt_eval_count
    assert generated.context is None
    heard = native.generate(prompt="What?", images=[TONE], **wanted)
    assert heard.prompt_eval_count > none.prompt_eval_count


def test_a_conversation_goes_on_with_a_picture(native: ollama.Client) -> None:
    begun = native.generate(model="both", prompt="Hi", options={"num_predict": 4, "seed": 1})
    fields: dict[str, Any] = {"model": "both", "prompt": "And this?", "images": [RED], "options": {"num_predict": 1}}
    more = native.generate(context=begun.context, **fields)
    assert more.prompt_eval_count >= native.generate(**fields).prompt_eval_count + len("Hi")


def test_the_oldest_turns_make_room_for_pictures(native: ollama.Client) -> None:
    turns = [
        {"role": "user", "content": "First", "images": [RED] * 9},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Second", "images": [BLUE] * 9},
    ]
    all_, later = (native.chat(model="both", messages=some, options={"num_predict": 1}) for some in (turns, turns[1:]))
    assert all_.prompt_eval_count == later.prompt_eval_count < NUM_CTX


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("part", "words"), [(image(RED), "images: it has no vision"), (sound(TONE), "audio: it has no audio")]
)
def test_a_model_of_text_says_what_it_lacks(
    program: Program, native: ollama.Client, part: dict[str, Any], words: str
) -> None:
    error = refused(program, part, model="blind")
    assert (error.code, error.param) == ("unsupported_value", "messages[0].content[0]")
    assert f"does not support {words} projector" in error.message
    with pytest.raises(ollama.ResponseError, match="does not support images") as caught:
        native.generate(model="blind", prompt="x", images=[RED])
    assert caught.value.status_code == 400


def test_a_model_that_only_sees_says_that_it_does_not_hear(program: Program) -> None:
    assert "no audio projector" in refused(program, sound(TONE), model="whole").message


@pytest.mark.parametrize(
    ("parts", "code", "words"),
    [
        ([image(RED), image(RED[:60])], "invalid_media", "image or sound 2 of 2"),
        ([sound(TONE), image(BLUE), image(RED[:60])], "invalid_media", "image or sound 3 of 3"),
        ([image(RED[:16] + b"\0\1\0\0\0\1\0\0" + RED[24:])], "image_too_large", "65536 x 65536 pixels"),
        ([image(plain((1, 2, 3), 1, 3000))], "invalid_media", "one of 1 images and sounds cannot be made into tokens"),
        ([sound(wav(0.01, 440))], "audio_too_short", "at least 0.1 s"),
        ([image(b"GIF89a")], "invalid_image_format", "none of png, jpeg and webp"),
        ([image("http://127.0.0.1:9/none.png")], "invalid_image_url", "could not be fetched"),
    ],
)
def test_what_is_no_picture(program: Program, parts: Sequence[dict[str, Any]], code: str, words: str) -> None:
    error = refused(program, *parts)
    assert error.code == code
    assert words in error.message
    assert ask(program, image(RED)).usage.completion_tokens


def test_what_stands_for_a_picture_is_only_text_in_a_text(program: Program) -> None:
    """And so is a control token, which the engine would read out of the text around a picture."""
    plain, posing, ending = (
        ask(program, image(RED), text=text).usage.prompt_tokens for text in ("x", "<__media__>", "<|im_end|>")
    )
    assert plain < posing < plain + len("<__media__>")
    assert plain + len("im_end") < ending


# ---------------------------------------------------------------------------------------------------------- engines


def test_auto_gives_a_model_with_a_projector_to_llama(program: Program) -> None:
    ask(program, image(RED))
    ask(program, model="blind", logprobs=False, top_logprobs=None)
    lines = program.command("ps", "-v").stdout.splitlines()
    both, blind = (next(line for line in lines if line.startswith(name)) for name in ("both", "blind"))
    assert "takes no projectors, this model has 1" in both
    assert " llama " in both
    assert " cpu " in blind


def test_the_cpu_engine_refuses_it_by_name_and_strangers_get_no_private_addresses(
    program: Program, files: Path, pictures: tuple[str, list[str]]
) -> None:
    address, asked = pictures
    before = len(asked)
    with serve(program.models, files / "cpu.log", PUNA_ENGINE="cpu") as other:
        error = refused(other, image(RED))
        assert (
            "the engine cpu was named (PUNA_ENGINE) but cannot run this model: the cpu engine takes no projectors"
            in error.message
        )
        private = refused(other, image(address))
        assert (private.code, private.param) == ("invalid_image_url", "messages[0].content[0].image_url.url")
        assert "not a public address" in private.message
    assert len(asked) == before

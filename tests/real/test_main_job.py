"""The main job on the installed program: install, pull, run, serve, answer. One test a promise, on each real engine."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import psutil
import pytest

from fakes.node import Node
from fakes.waiting import until

from .conftest import RUNS, SHALLOW, Program, serve

ASK = [{"role": "user", "content": "Say hello in one short sentence."}]


def client(program: Program) -> openai.OpenAI:
    return program.client


def post(program: Program, path: str, body: object) -> dict:
    request = urllib.request.Request(f"{program.url}{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def models(program: Program) -> list[dict]:
    """What the server reports of the models that are loaded."""
    with urllib.request.urlopen(f"{program.url}/api/ps") as answer:
        return json.load(answer)["models"]


def busy(program: Program) -> int:
    """How many requests the loaded models work on."""
    return sum(model["busy"] for model in models(program))


def loaded(program: Program, name: str) -> dict:
    [model] = [model for model in models(program) if model["name"].partition(":")[0] == name]
    return model


def text_of(program: Program, *, stream: bool = False, **fields: object) -> str:
    """The answer to ASK, or to `messages`. Greedy unless asked otherwise: a drawn one may be anything, even empty."""
    fields = {"model": "smollm2", "messages": ASK, "temperature": 0, **fields}
    if not stream:
        return client(program).chat.completions.create(**fields).choices[0].message.content
    chunks = client(program).chat.completions.create(stream=True, **fields)
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


# ------------------------------------------------------------------------------------------------ the page's snippets


@pytest.fixture(scope="module")
def brief(program: Program, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The default model, which comes to an end: the page's snippets set no limit."""
    modelfile = tmp_path_factory.mktemp("brief") / "Modelfile"
    modelfile.write_text("FROM smollm2\nPARAMETER num_predict 40\nPARAMETER temperature 0\n")
    made = program.command("create", "brief", "-f", str(modelfile))
    assert made.returncode == 0, made.stderr
    return "brief"


def test_python_snippet(program: Program, brief: str) -> None:
    answer = client(program).chat.completions.create(
        model=brief,
        messages=[
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Hello!"},
        ],
    )
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in {"stop", "length"}


def test_javascript_snippet(program: Program, brief: str, node: Node) -> None:
    seen = node.run("page.mjs", program.url, brief)
    assert seen["answer"]
    assert seen["streamed"]
    assert seen["usage"]["completion_tokens"] > 0


def test_curl_snippets(program: Program, brief: str) -> None:
    for name in (brief, "gpt-3.5-turbo"):
        if name == "gpt-3.5-turbo":
            copied = program.command("cp", brief, "gpt-3.5-turbo")
            assert copied.returncode == 0, copied.stderr
            assert copied.stdout == "copied 'brief' to 'gpt-3.5-turbo'\n"
        done = subprocess.run(
            ["curl", "-s", f"{program.url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d",
             json.dumps({"model": name, "messages": [{"role": "user", "content": "Hello!"}]})],
            capture_output=True, check=True, timeout=60,
        )  # fmt: skip
        answer = json.loads(done.stdout)
        assert answer["model"] == name
        assert answer["choices"][0]["message"]["content"]


# ------------------------------------------------------------------------------------------------------ what was asked


def test_max_tokens_is_length_and_exact(program: Program) -> None:
    # Greedily, since a drawn answer may be over before: "Hello!" is one.
    whole = text_of(program, max_tokens=40)
    answer = client(program).chat.completions.create(model="smollm2", messages=ASK, temperature=0, max_tokens=5)
    text = answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5
    assert whole.startswith(text)
    assert len(whole) > len(text)


@pytest.mark.parametrize("stream", [False, True])
def test_stop_never_shows_even_over_two_tokens(program: Program, stream: bool) -> None:
    whole = text_of(program, max_tokens=40)
    ids = post(program, "/tokenize", {"model": "smollm2", "prompt": whole, "add_special_tokens": False})["tokens"]
    pieces = [post(program, "/detokenize", {"model": "smollm2", "tokens": ids[: i + 1]})["prompt"] for i in range(6)]
    # From the middle of the second token to the middle of the third.
    begin, end = (len(pieces[0]) + len(pieces[1])) // 2, (len(pieces[1]) + len(pieces[2])) // 2 + 1
    stop = whole[begin:end]
    cut = text_of(program, stream=stream, max_tokens=40, stop=[stop])
    assert cut == whole[: whole.index(stop)]


@pytest.mark.timeout(600)
def test_json_mode_parses_every_time(program: Program) -> None:
    def ends(seed: int) -> bool:
        answer = client(program).chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": f"Give me JSON of a person with name and age. Number {seed}."}],
            response_format={"type": "json_object"},
            seed=seed,
            max_tokens=200,
        )
        choice = answer.choices[0]
        assert choice.finish_reason in {"stop", "length"}
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)
        return bool(choice.finish_reason == "stop")

    with ThreadPoolExecutor(16) as pool:
        ended = sum(pool.map(ends, range(RUNS)))
    assert ended >= RUNS / 2, "most answers should end by themselves"


def test_prompt_tokens_equal_the_tokenisation_cached_or_not(program: Program) -> None:
    for words in (3, 40, 120):
        messages = [{"role": "user", "content": " ".join(f"word{i}" for i in range(words))}]
        count = post(program, "/tokenize", {"model": SHALLOW, "messages": messages})["count"]
        for _ in range(2):
            usage = client(program).chat.completions.create(model=SHALLOW, messages=messages, max_tokens=2).usage
            assert usage.prompt_tokens == count
    assert usage.prompt_tokens_details.cached_tokens > 0, "the second time the prompt is cached"


def test_a_prompt_over_the_context_is_refused_with_both_numbers(program: Program) -> None:
    program.command("stop", "smollm2")  # it may be loaded with a larger context, which then serves
    messages = [{"role": "user", "content": "word " * 9000}]
    with pytest.raises(openai.BadRequestError) as refused:
        client(program).chat.completions.create(model="smollm2", messages=messages)
    assert refused.value.code == "context_length_exceeded"
    assert "4096" in refused.value.message
    assert "90" in refused.value.message


def test_unknown_model_says_how_to_pull(program: Program) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client(program).chat.completions.create(model="nope", messages=ASK)
    assert missing.value.code == "model_not_found"
    assert "puna pull nope" in missing.value.message


# ----------------------------------------------------------------------------------------------------------- the seed


@pytest.mark.timeout(900)
def test_same_seed_same_answer_idle_streamed_cached_and_busy(program: Program) -> None:
    """Over HTTP; in larger company each engine by itself (engine/test_seeds, cpu/test_seeds)."""
    fields = {"model": SHALLOW, "seed": 42, "temperature": 0.8, "max_tokens": 24}
    first = text_of(program, **fields)
    answers = [text_of(program, stream=i % 2 == 1, **fields) for i in range(2)]
    over = threading.Event()
    # Where there is not room for many, one more than there is: nobody stands in line for longer than that takes.
    others = min(8, loaded(program, SHALLOW)["slots"] + 1)

    def noise(number: int) -> None:
        chance = random.Random(number)
        while not over.is_set():
            content = " ".join(f"noise{chance.randrange(999)}" for _ in range(chance.randrange(2, 20)))
            messages = [{"role": "user", "content": content}]
            text_of(program, model=SHALLOW, messages=messages, temperature=1, max_tokens=chance.randrange(2, 30))

    with ThreadPoolExecutor(others) as pool:
        company = [pool.submit(noise, i) for i in range(others)]
        try:
            answers += [text_of(program, stream=i % 2 == 1, **fields) for i in range(RUNS)]
        finally:
            over.set()
        for other in company:
            other.result()
    assert answers == [first] * (2 + RUNS)
    header = client(program).chat.completions.with_raw_response.create(messages=ASK, **fields)
    assert header.headers["x-puna-seed"] == "exact"


# ------------------------------------------------------------------------------------------------------------- trouble


def worked(program: Program) -> float:
    """Seconds of a processor that the engines have used: what shows that work ended, however busy the machine is."""
    return sum(used.user + used.system for used in (runner.cpu_times() for runner in program.runners()))


def test_a_client_that_goes_away_in_mid_stream_frees_its_slot(program: Program) -> None:
    stream = client(program).chat.completions.create(
        model="smollm2", messages=ASK, stream=True, max_tokens=3000, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert busy(program) == 1
    before = worked(program)
    stream.close()
    until(lambda: busy(program) == 0, 60, "the slot to be free")
    assert worked(program) - before < 2, "it took one of the thousands of tokens that were left, and no more"


def test_a_client_that_goes_away_in_mid_prefill_frees_its_slot(program: Program) -> None:
    text_of(program, max_tokens=1)
    prompt = " ".join(f"w{random.random()}" for _ in range(150))
    body = json.dumps({"model": "smollm2", "messages": [{"role": "user", "content": prompt}]}).encode()
    with socket.create_connection(("127.0.0.1", program.port)) as leaving:
        leaving.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n")
        leaving.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: busy(program) == 1, 60, "the request to be at work")
        before = worked(program)
    until(lambda: busy(program) == 0, 60, "the slot to be free")
    assert worked(program) - before < 4, "one piece of the prompt, and no more"


def newly_loaded(program: Program, model: str) -> psutil.Process:
    """The runner that a first request to `model` loads it into: it may have been kept ready, without any weights.

    Other tests may have left other models in memory.
    """

    def with_weights() -> set[psutil.Process]:
        return {runner for runner in program.runners() if runner.memory_info().rss > 90_000_000}

    program.command("stop", model)
    before = with_weights()
    text_of(program, model=model, max_tokens=1)
    (found,) = with_weights() - before
    return found


def test_a_killed_runner_is_a_typed_error_and_the_next_request_is_served(
    program: Program, smollm2_gguf: Path, tmp_path: Path
) -> None:
    other_weights = tmp_path / "other.gguf"
    other_weights.write_bytes(smollm2_gguf.read_bytes().replace(b"Mix1 Ep2", b"Mix1 Ep3", 1))
    (tmp_path / "Modelfile").write_text("FROM ./other.gguf\n")
    made = program.command("create", "other", "-f", str(tmp_path / "Modelfile"))
    assert made.returncode == 0, made.stderr
    victim, other = newly_loaded(program, "smollm2"), newly_loaded(program, "other")
    stream = client(program).chat.completions.create(
        model="smollm2", messages=ASK, stream=True, max_tokens=3000, extra_body={"ignore_eos": True}
    )
    chunks = iter(stream)
    next(chunks)
    victim.kill()
    with pytest.raises(openai.APIError) as broken:
        list(chunks)
    assert broken.value.code == "runner_died"
    assert text_of(program, max_tokens=3)
    assert other.is_running()
    assert text_of(program, model="other", max_tokens=3)
    assert other in program.runners()


@pytest.mark.parametrize("engine", ["llama", "cpu"])
def test_a_killed_server_leaves_no_process(pulled: Path, tmp_path: Path, engine: str) -> None:
    with serve(pulled, tmp_path / "log", PUNA_ENGINE=engine) as program:
        text_of(program, max_tokens=1)
        children = psutil.Process(program.process.pid).children(recursive=True)
        assert children
        program.process.kill()
        until(
            lambda: not any(child.is_running() and child.status() != "zombie" for child in children), 30, "all to end"
        )


@pytest.mark.timeout(300)
def test_damaged_files_are_refused_and_the_server_stands(pulled: Path, tmp_path: Path) -> None:
    """Damaged copies in the store, under the right name: truncated or with one bit flipped, in the header or anywhere.

    That no damage at all goes unseen is the digest's doing: tests/unit/store/test_library.py.
    """
    chance = random.Random(3)
    models = tmp_path / "models"
    shutil.copytree(pulled, models)
    weights = max((models / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    whole = weights.read_bytes()
    with serve(models, tmp_path / "log") as program:
        for number in range(8):
            damage(weights, whole, number, chance)
            with pytest.raises(openai.APIStatusError) as refused:
                text_of(program, max_tokens=1)
            assert refused.value.code in {"invalid_model_file", "model_damaged"}
            assert refused.value.message
        weights.write_bytes(whole)
        assert text_of(program, max_tokens=3)


def damage(weights: Path, whole: bytes, number: int, chance: random.Random) -> None:
    """Truncate on even numbers, else flip one bit, half of the time inside the header."""
    if number % 2 == 0:
        weights.write_bytes(whole[: chance.randrange(len(whole))])
        return
    place = chance.randrange(2_000_000 if number % 4 == 1 else len(whole))
    with weights.open("r+b") if weights.stat().st_size == len(whole) else weights.open("w+b") as file:
        if file.seek(0, 2) != len(whole):
            file.write(whole)
        file.seek(place)
        file.write(bytes([whole[place] ^ (1 << chance.randrange(8))]))

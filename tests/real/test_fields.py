"""Every field that the contract calls honoured, seen to have its effect on both real engines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes.gguf_files import write_tiny_llama
from puna.server.contract.shapes import Honoured, Shape, shape_fields
from puna.server.openai.bodies import ChatCompletionBody, CompletionBody

from .conftest import SHALLOW, Program

HOT = {"temperature": 2, "top_p": 1, "top_k": 0, "min_p": 0}
"""With these, every seed has words of its own."""
SHAPE = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
COLOURS = ["green", "light red"]
END = "2"
"""The model's token that ends an answer."""
HTTP = httpx.Client(timeout=300)
"""For all requests: a client of its own for each would read the system's certificates every time."""


@dataclass(frozen=True)
class Door:
    """One of the two endpoints that generate, and the prompt that is sent when a field does not say another."""

    program: Program
    shape: type[Shape]

    @property
    def chats(self) -> bool:
        return self.shape is ChatCompletionBody

    @property
    def prompt(self) -> dict[str, Any]:
        """It ends with ` apple`, and so has an opinion on what comes next."""
        if not self.chats:
            return {"prompt": "I like fruit: apple, apple, apple, apple"}
        messages = [{"role": "user", "content": "Name fruit."}, {"role": "assistant", "content": "apple, apple, apple"}]
        return {"messages": messages, "continue_final_message": True}

    @property
    def open(self) -> dict[str, Any]:
        """Another prompt, after which much can come."""
        if not self.chats:
            return {"prompt": "Once upon a time"}
        return {"messages": [{"role": "user", "content": "Tell me a story."}], "continue_final_message": None}

    def post(self, path: str = "", **fields: Any) -> httpx.Response:
        body = {"model": "smollm2", "max_tokens": 8, "seed": 1} | ({} if path else self.prompt) | fields
        body = {name: value for name, value in body.items() if value is not None}
        path = path or (self.shape.__doc__ or "").removeprefix("POST ")
        return HTTP.post(f"{self.program.url}{path}", json=body)

    def answer(self, **fields: Any) -> dict[str, Any]:
        answer = self.post(**fields)
        assert answer.status_code == 200, answer.text
        assert "x-puna-ignored" not in answer.headers
        whole: dict[str, Any] = answer.json()
        return whole

    def texts(self, **fields: Any) -> list[str]:
        choices = self.answer(**fields)["choices"]
        return [choice["message"]["content"] if self.chats else choice["text"] for choice in choices]

    def text(self, **fields: Any) -> str:
        [text] = self.texts(**fields)
        return text

    def greedy(self, **fields: Any) -> str:
        return self.text(temperature=0, **fields)

    def of_seeds(self, **fields: Any) -> set[str]:
        """The answers to three seeds."""
        with ThreadPoolExecutor(3) as pool:
            return set(pool.map(lambda seed: self.text(**fields | {"seed": seed}), (1, 2, 3)))

    def reason(self, **fields: Any) -> str:
        reason: str = self.answer(**fields)["choices"][0]["finish_reason"]
        return reason

    def tokens(self, **fields: Any) -> int:
        count: int = self.answer(**fields)["usage"]["completion_tokens"]
        return count

    def prompt_tokens(self, **fields: Any) -> int:
        count: int = self.answer(**{"max_tokens": 1} | fields)["usage"]["prompt_tokens"]
        return count

    def ids(self, text: str) -> list[int]:
        body = {"model": "smollm2", "content": text}
        found: list[int] = HTTP.post(f"{self.program.url}/tokenize", json=body).json()["tokens"]
        return found

    def loaded(self, name: str) -> dict[str, Any]:
        models = HTTP.get(f"{self.program.url}/api/ps").json()["models"]
        [model] = [model for model in models if name in model["name"]]
        return dict(model)

    def logprob(self, token: int) -> float:
        """How likely the model finds `token` after the prompt."""
        wanted = {"logprobs": True} if self.chats else {"logprobs": 0}
        [choice] = self.answer(logit_bias={str(token): 100}, max_tokens=1, temperature=0, **wanted)["choices"]
        entries = choice["logprobs"]["content"] if self.chats else None
        found: float = entries[0]["logprob"] if entries else choice["logprobs"]["token_logprobs"][0]
        return found

    def apple_or_pear(self, lead: float) -> dict[str, Any]:
        """Fields with which the next token is ` apple`, which the prompt has, or ` pear`, which it has not.

        `lead`: by how much the logit of ` apple` is larger.
        """
        [apple], [pear] = self.ids(" apple"), self.ids(" pear")
        even = self.logprob(apple) - self.logprob(pear)
        bias = {str(apple): 60, str(pear): 60 + even - lead}
        return {"logit_bias": bias, "max_tokens": 1, "temperature": 0}


# ------------------------------------------------------------------------------------------------------- observations


def temperature(door: Door) -> None:
    assert len(door.of_seeds(temperature=0)) == 1
    assert len(door.of_seeds(**HOT)) == 3


def only_the_likeliest(**fields: Any) -> Callable[[Door], None]:
    """With these fields, even at a high temperature, no seed matters."""

    def observe(door: Door) -> None:
        assert door.of_seeds(**HOT | fields) == {door.greedy()}

    return observe


def typical_p(door: Door) -> None:
    assert len(door.of_seeds(**HOT, typical_p=0)) == 1


def against_what_was_there(**fields: Any) -> Callable[[Door], None]:
    def observe(door: Door) -> None:
        close = door.apple_or_pear(lead=1)
        assert door.text(**close) == " apple"
        assert door.text(**close, **fields) == " pear"
        assert door.text(**close, **fields, repeat_last_n=0) == " apple"

    return observe


def for_what_was_there(**fields: Any) -> Callable[[Door], None]:
    def observe(door: Door) -> None:
        against_what_was_there(**{name: -value for name, value in fields.items()})(door)
        close = door.apple_or_pear(lead=-1)
        assert door.text(**close) == " pear"
        assert door.text(**close, **fields) == " apple"

    return observe


def repeat_last_n(door: Door) -> None:
    """The prompt's last token is ` apple`."""
    close = door.apple_or_pear(lead=1)
    assert door.text(**close, presence_penalty=2, repeat_last_n=1) == " pear"
    assert door.text(**close, presence_penalty=2, repeat_last_n=-1) == " pear"
    assert door.text(**close, presence_penalty=2, repeat_last_n=2**31 - 1) == " pear"
    assert door.text(**close, presence_penalty=2, repeat_last_n=0) == " apple"


def logit_bias(door: Door) -> None:
    [pear] = door.ids(" pear")
    assert door.text(logit_bias={str(pear): 100}, max_tokens=3) == " pear" * 3
    first = door.ids(door.greedy(max_tokens=1))[0]
    assert door.ids(door.greedy(max_tokens=1, logit_bias={str(first): -100}))[0] != first
    refused = door.post(logit_bias={"60000": 1})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "logit_bias")


def seed(door: Door) -> None:
    answer = door.post(**HOT, seed=2**40 + 7)
    assert answer.headers["x-puna-seed"] == "exact"
    assert answer.json()["choices"] == door.answer(**HOT, seed=2**40 + 7)["choices"]
    assert answer.json()["choices"] != door.answer(**HOT, seed=7)["choices"]


def stop(door: Door) -> None:
    whole = door.greedy()
    end = whole[4:7]
    assert door.greedy(stop=["never there", end]) == whole[: whole.index(end)]
    assert door.reason(temperature=0, stop=end) == "stop"


def stream(door: Door) -> None:
    lines = door.post(stream=True, temperature=0, stream_options={"include_usage": True}).text.split("\n\n")
    *chunks, usage = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    parts = [chunk["choices"][0] for chunk in chunks]
    texts = [part["delta"].get("content") or "" if door.chats else part["text"] for part in parts]
    assert "".join(texts) == door.greedy()
    assert sum(map(bool, texts)) > 3
    assert usage["usage"]["completion_tokens"] == 8
    assert lines[-2] == "data: [DONE]"


def keep_alive(door: Door) -> None:
    door.answer(keep_alive="90m")
    long = door.loaded("smollm2")["expires_at"]
    door.answer(keep_alive=60)
    assert door.loaded("smollm2")["expires_at"] < long


def num_ctx(door: Door) -> None:
    """Less than is loaded is served from that, as if it were all; more is loaded."""
    door.answer(model=SHALLOW)
    long = long_prompt(door) | {"model": SHALLOW}
    assert door.post(**long).status_code == 200
    refused = door.post(num_ctx=640, **long)
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert "640" in refused.json()["error"]["message"]
    assert door.loaded(SHALLOW)["context_length"] == 4096
    try:
        door.answer(model=SHALLOW, num_ctx=4608)
        assert door.loaded(SHALLOW)["context_length"] == 4608
    finally:
        door.program.command("stop", SHALLOW)
    door.answer(model=SHALLOW)
    assert door.loaded(SHALLOW)["context_length"] == 4096


def long_prompt(door: Door) -> dict[str, Any]:
    text = "word " * 700
    if not door.chats:
        return {"prompt": text}
    return {"messages": [{"role": "user", "content": text}], "continue_final_message": None}


def mirostat(version: int) -> Callable[[Door], None]:
    def observe(door: Door) -> None:
        fields = HOT | door.open | {"mirostat": version}
        assert len(door.of_seeds(**fields, mirostat_tau=0)) == 1
        assert len(door.of_seeds(**fields, mirostat_tau=6)) == 3

    return observe


def mirostat_eta(door: Door) -> None:
    """The bound is close at first; what is learnt opens it."""
    close = HOT | door.open | {"mirostat": 2, "mirostat_tau": 0.1}
    assert len(door.of_seeds(**close, mirostat_eta=0)) == 1
    assert len(door.of_seeds(**close, mirostat_eta=100)) == 3


def ignore_eos(door: Door) -> None:
    ending = {"logit_bias": {END: 100}, "max_tokens": 5}
    assert (door.reason(**ending), door.tokens(**ending)) == ("stop", 0)
    going_on = {"max_tokens": 5, "logit_bias": {END: 30}, "ignore_eos": True}
    assert (door.reason(**going_on), door.tokens(**going_on)) == ("length", 5)


def formed(pattern: str, **fields: Any) -> Callable[[Door], None]:
    """The answer has this form, whatever the seed and however hot."""

    def observe(door: Door) -> None:
        found = door.of_seeds(**HOT | {"max_tokens": 60} | fields)
        assert all(re.fullmatch(pattern, text) for text in found), found

    return observe


def is_shape(**fields: Any) -> Callable[[Door], None]:
    def observe(door: Door) -> None:
        found = [json.loads(text) for text in door.of_seeds(**HOT | {"max_tokens": 60} | fields)]
        assert all(value in ({"ok": True}, {"ok": False}) for value in found), found

    return observe


def count(name: str) -> Callable[[Door], None]:
    def observe(door: Door) -> None:
        fields = {"max_tokens": None, "ignore_eos": True, name: 11}
        assert (door.tokens(**fields), door.reason(**fields)) == (11, "length")

    return observe


def choices(door: Door) -> None:
    texts = door.texts(**HOT, n=3)
    assert len(set(texts)) == 3
    assert texts[0] == door.text(**HOT)


def best_of(door: Door) -> None:
    """The likeliest of what `n` gives of the same seed."""
    all_of = door.answer(**HOT, n=4, logprobs=0)["choices"]
    [best] = door.answer(**HOT, best_of=4, logprobs=0)["choices"]

    def mean(choice: dict[str, Any]) -> float:
        logprobs = choice["logprobs"]["token_logprobs"]
        return sum(logprobs) / len(logprobs)

    assert best["text"] == max(all_of, key=mean)["text"]
    assert door.answer(**HOT, best_of=4)["usage"]["completion_tokens"] == sum(
        len(choice["logprobs"]["tokens"]) for choice in all_of
    )


def prompt(door: Door) -> None:
    """Four forms, one meaning: continued as it is."""
    text = door.prompt["prompt"]
    ids = door.ids(text)
    expected = door.greedy()
    assert door.prompt_tokens() == len(ids)
    assert door.greedy(prompt=ids) == expected
    assert door.texts(temperature=0, prompt=[text, text + "es"])[0] == expected
    assert door.texts(temperature=0, prompt=[ids, ids[:-1]])[0] == expected


def echo(door: Door) -> None:
    text = door.prompt["prompt"]
    assert door.greedy(echo=True) == text + door.greedy()
    assert door.greedy(echo=True, max_tokens=0) == text


def suffix(door: Door) -> None:
    refused = door.post(suffix=" and pears.")
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, "suffix")
    made = {"from": "smollm2", "template": "{{ .Prompt }}{{ if .Suffix }} ... {{ .Suffix }}{{ end }}", "stream": False}
    assert door.post("/api/create", **made | {"model": "fills", "max_tokens": None, "seed": None}).status_code == 200
    fills = {"model": "fills", "max_tokens": 1}
    whole = door.prompt_tokens(prompt=door.prompt["prompt"] + " ...  and pears.")
    assert door.prompt_tokens(**fills, suffix=" and pears.") == whole
    assert door.prompt_tokens(**fills) < whole


def continued(door: Door) -> None:
    asked = {"continue_final_message": None}
    assert door.prompt_tokens() < door.prompt_tokens(**asked) == door.prompt_tokens(**asked, add_generation_prompt=True)
    assert door.prompt_tokens(add_generation_prompt=False) == door.prompt_tokens()


def messages(door: Door) -> None:
    one = [{"role": "user", "content": "Hi"}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    fields = {"continue_final_message": None, "temperature": 0}
    assert door.text(**fields, messages=one) == door.text(**fields, messages=parts)
    told = [{"role": "developer", "content": "You are a parrot."}, *one]
    assert door.prompt_tokens(**fields, messages=told) != door.prompt_tokens(**fields, messages=one)


def model(door: Door) -> None:
    assert door.answer(model="smollm2:135m")["model"] == "smollm2:135m"
    missing = door.post(model="nope")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def thought(on: dict[str, Any], off: dict[str, Any]) -> Callable[[Door], None]:
    """`on` and `off` reach the template of a model that thinks and knows levels."""

    def observe(door: Door) -> None:
        asks = {"messages": [{"role": "user", "content": "Hi"}], "continue_final_message": None}
        plain, thinking, silent = (door.prompt_tokens(**asks, **fields, model="thinks") for fields in ({}, on, off))
        assert silent == plain + len("<think>\n\n</think>\n\n"), "a closed thought is in the prompt, byte by byte"
        assert thinking == plain + (len("Effort: high\n") if "high" in str(on) else 0)

    return observe


def budget(door: Door) -> None:
    """A thought that the caller began goes on for so many tokens; then it is closed and answered, each time alike."""
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "reasoning": "The user says"}]
    asks = {"messages": turns, "continue_final_message": True, "model": "thinks", "max_tokens": 40, "seed": 5}
    first, second = (door.answer(**asks, reasoning_budget_tokens=5) for _ in range(2))
    assert first["choices"] == second["choices"]
    usage, message = first["usage"], first["choices"][0]["message"]
    thought = usage["completion_tokens_details"]["reasoning_tokens"]
    over = thought - 5 - len("\n</think>\n\n")
    assert 0 <= over <= 3, "five, those of the tag that closes it, and what a character lacks that the fifth begins"
    assert thought < usage["completion_tokens"]
    assert message["reasoning"]
    assert message["content"]
    assert "</think>" not in message["content"] + message["reasoning"]


def prompt_cache_key(door: Door) -> None:
    """Another conversation with the same beginning, under a key of its own, does not cost this one what is cached."""

    def usage(text: str, key: str) -> dict[str, Any]:
        prompt = {"messages": [{"role": "user", "content": text}]} if door.chats else {"prompt": text}
        fields = prompt | {"continue_final_message": None, "prompt_cache_key": key, "max_tokens": 1}
        told: dict[str, Any] = door.answer(**fields)["usage"]
        return told

    shared = f"{door.shape.__name__} " + " ".join(f"fact {number}," for number in range(20))
    ours = shared + " ours" * 60
    before = usage(ours, "a")["prompt_tokens"]
    usage(shared + " theirs" * 60, "b")
    assert usage(ours + " and more", "a")["prompt_tokens_details"]["cached_tokens"] > before - 40


def predicted(door: Door) -> None:
    """The same answer, and how much of it was foretold. An engine that makes nothing of it says so."""
    said = door.open | {"max_tokens": 40, "seed": 3}
    text = door.text(**said)
    answer = door.post(**said, prediction={"type": "content", "content": text[:60] + "?" + text[60:]})
    whole = answer.json()
    assert whole["choices"][0]["message"]["content"] == text
    details = whole["usage"]["completion_tokens_details"]
    found = details["accepted_prediction_tokens"], details["rejected_prediction_tokens"]
    if door.program.environment["PUNA_ENGINE"] == "cpu":
        assert "x-puna-ignored" not in answer.headers
        assert found[0] > 30
        assert found[1] < 10
    else:
        assert answer.headers["x-puna-ignored"] == "prediction"
        assert found == (0, 0)


def options(door: Door) -> None:
    assert door.of_seeds(**HOT | {"top_k": None, "options": {"top_k": 1}}) == {door.greedy()}


SAMPLED: dict[str, Callable[[Door], None]] = {
    "model": model,
    "temperature": temperature,
    "top_p": only_the_likeliest(top_p=0),
    "top_k": only_the_likeliest(top_k=1),
    "min_p": only_the_likeliest(min_p=1),
    "typical_p": typical_p,
    "frequency_penalty": for_what_was_there(frequency_penalty=-2),
    "presence_penalty": for_what_was_there(presence_penalty=-2),
    "repeat_penalty": against_what_was_there(repeat_penalty=1.5),
    "repetition_penalty": against_what_was_there(repetition_penalty=1.5),
    "repeat_last_n": repeat_last_n,
    "logit_bias": logit_bias,
    "seed": seed,
    "stop": stop,
    "n": choices,
    "stream": stream,
    "stream_options": stream,
    "options": options,
    "prompt_cache_key": prompt_cache_key,
    "keep_alive": keep_alive,
    "num_ctx": num_ctx,
    "mirostat": mirostat(1),
    "mirostat_tau": mirostat(2),
    "mirostat_eta": mirostat_eta,
    "ignore_eos": ignore_eos,
    "max_tokens": count("max_tokens"),
    "grammar": formed("[ab]{3}c", grammar='root ::= [ab]{3} "c"'),
    "guided_grammar": formed("[ab]{3}c", guided_grammar='root ::= [ab]{3} "c"'),
    "guided_regex": formed(r"[a-z]{2}-\d{3}", guided_regex=r"[a-z]{2}-\d{3}"),
    "guided_choice": formed("green|light red", guided_choice=COLOURS),
    "structured_outputs": formed("green|light red", structured_outputs={"choice": COLOURS}),
    "json_schema": is_shape(json_schema=SHAPE),
    "guided_json": is_shape(guided_json=json.dumps(SHAPE)),
}
OBSERVED: dict[type[Shape], dict[str, Callable[[Door], None]]] = {
    ChatCompletionBody: SAMPLED
    | {
        "messages": messages,
        "prediction": predicted,
        "max_completion_tokens": count("max_completion_tokens"),
        "response_format": is_shape(
            response_format={"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": SHAPE}}
        ),
        "continue_final_message": continued,
        "add_generation_prompt": continued,
        "think": thought({"think": True}, {"think": False}),
        "reasoning_effort": thought({"reasoning_effort": "high"}, {"reasoning_effort": "none"}),
        "reasoning": thought({"reasoning": {"effort": "high"}}, {"reasoning": {"effort": "none"}}),
        "reasoning_budget_tokens": budget,
        "chat_template_kwargs": thought({}, {"chat_template_kwargs": {"enable_thinking": False}}),
    },
    CompletionBody: SAMPLED | {"prompt": prompt, "best_of": best_of, "echo": echo, "suffix": suffix},
}
ELSEWHERE = {
    "test_tools": {"tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"},
    "test_logprobs": {"logprobs", "top_logprobs"},
    "tests/api/openai/test_stored": {"store", "metadata"},
}


def honoured(shape: type[Shape]) -> list[str]:
    return [row.name for row in shape_fields(shape) if isinstance(row.mark, Honoured)]


OWN = [
    pytest.param(shape, name, id=f"{shape.__name__}-{name}")
    for shape in OBSERVED
    for name in OBSERVED[shape]
    if name not in SAMPLED
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("shape", "name"), OWN)
def test_a_field_has_its_effect(with_thinker: Program, shape: type[Shape], name: str) -> None:
    OBSERVED[shape][name](Door(with_thinker, shape))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SAMPLED)
def test_a_field_of_both_endpoints_has_its_effect(with_thinker: Program, name: str) -> None:
    """Through one of them on the one engine, through the other on the other.

    That both pass on a field alike is shown without a model (tests/api/openai/test_contract.py); what an engine then
    makes of it does not depend on where it came from.
    """
    turned = with_thinker.environment["PUNA_ENGINE"] == "cpu"
    shape = list(OBSERVED)[([*SAMPLED].index(name) + turned) % 2]
    OBSERVED[shape][name](Door(with_thinker, shape))


@pytest.mark.parametrize("shape", OBSERVED)
def test_every_honoured_field_is_observed(shape: type[Shape]) -> None:
    elsewhere = set().union(*ELSEWHERE.values())
    assert set(honoured(shape)) == OBSERVED[shape].keys() | (elsewhere & set(honoured(shape)))


THINKS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if reasoning_effort is defined %}Effort: {{ reasoning_effort }}\n{% endif %}"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@pytest.fixture(scope="module")
def with_thinker(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The program with one more model, `thinks`: tiny, and with a template that thinks."""
    directory: Path = tmp_path_factory.mktemp("thinks")
    write_tiny_llama(directory / "thinks.gguf", chat_template=THINKS, head=32)
    (directory / "Modelfile").write_text("FROM ./thinks.gguf\n")
    made = program.command("create", "thinks", "-f", str(directory / "Modelfile"))
    assert made.returncode == 0, made.stderr
    return program

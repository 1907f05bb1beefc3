from pathlib import Path

import pytest

from fakes.gguf_files import CHATML, Value, write_gguf, write_tiny_llama
from puna.model.capabilities import capabilities, go_capabilities, jinja_capabilities, template_kind
from puna.model.gguf import Header, read_header

GO_PLAIN = "{{ range .Messages }}{{ .Role }}: {{ .Content }}{{ end }}"
GO_TOOLS = '{{ .Tools }}{{ range .Messages }}{{ if eq .Role "tool" }}{{ end }}{{ .ToolCalls }}{{ end }}'
GO_THINKS = "{{ range .Messages }}{{ if .Thinking }}<mull>{{ .Thinking }}</mull>{{ end }}{{ end }}"
JINJA_TOOLS = "{% if tools %}{{ tools }}{% endif %}{% if message.role == 'tool' %}{{ message.tool_calls }}{% endif %}"
JINJA_THINK = "{% if '</think>' in content %}{{ content.split('</think>')[1] }}{% endif %}"


def header(
    path: Path, architecture: str = "llama", template: str | None = None, **metadata: bool | int | str
) -> Header:
    keys = {key.replace("__", "."): value for key, value in metadata.items()}
    return read_header(write_gguf(path / "m.gguf", architecture=architecture, chat_template=template, metadata=keys))


def names(*arguments: object) -> set[str]:
    return {capability.value for capability in capabilities(*arguments)}  # type: ignore[arg-type]


CHAT = {"completion", "tools"}
"""Whose template knows no tools gets them described."""


def test_chat_models(tmp_path: Path) -> None:
    assert names(header(tmp_path, template=CHATML)) == CHAT
    assert names(header(tmp_path)) == CHAT
    assert names(header(tmp_path, template=JINJA_TOOLS)) == CHAT
    assert names(header(tmp_path, template=JINJA_THINK)) == {*CHAT, "thinking"}
    assert names(header(tmp_path, template="{{ m.reasoning_content }}")) == {*CHAT, "thinking"}
    assert names(header(tmp_path, template="{{ m.content.split('[/THINK]') }}")) == {*CHAT, "thinking"}
    assert names(header(tmp_path, "gptoss")) == {*CHAT, "thinking"}
    assert names(header(tmp_path), GO_TOOLS) == CHAT
    assert names(header(tmp_path), GO_THINKS) == {*CHAT, "thinking"}
    assert names(header(tmp_path), "{{ .Prompt }}<think></think>{{ .Response }}") == {*CHAT, "thinking"}
    assert names(header(tmp_path), "{{ .Prompt }}{{ .Suffix }}") == {*CHAT, "insert"}
    assert names(header(tmp_path), "{{ .Prompt") == CHAT


def test_models_with_tokens_to_fill_in_text(tmp_path: Path) -> None:
    named: dict[str, Value] = {f"tokenizer.ggml.{role}_token_id": 65 for role in ("fim_pre", "fim_suf", "middle")}
    assert names(read_header(write_tiny_llama(tmp_path / "m.gguf", metadata=named))) == {*CHAT, "insert"}
    named.popitem()
    assert names(read_header(write_tiny_llama(tmp_path / "m.gguf", metadata=named))) == CHAT


def test_embedding_models(tmp_path: Path) -> None:
    assert names(header(tmp_path, "bert")) == {"embedding"}
    assert names(header(tmp_path, "qwen3", qwen3__pooling_type=3)) == {"embedding"}


def test_media(tmp_path: Path) -> None:
    assert names(header(tmp_path, "gemma3", gemma3__vision__block_count=27)) == CHAT, "nothing here would see"
    model = header(tmp_path)
    assert names(model, None, [header(tmp_path, "clip")]) == {*CHAT, "vision"}
    hears = header(tmp_path, "clip", clip__has_audio_encoder=True)
    assert names(model, None, [hears]) == {*CHAT, "audio"}
    both = header(tmp_path, "clip", clip__has_audio_encoder=True, clip__has_vision_encoder=True)
    assert names(model, None, [both]) == {*CHAT, "audio", "vision"}


@pytest.mark.parametrize(
    ("go", "jinja", "kind"),
    [
        (None, None, "none"),
        (None, CHATML, "jinja"),
        (GO_PLAIN, None, "go"),
        (GO_PLAIN, CHATML, "go"),
        (GO_PLAIN, JINJA_TOOLS, "jinja"),
        (GO_TOOLS, CHATML, "go"),
        (GO_TOOLS, JINJA_TOOLS, "go"),
        ("{{ .Tools }}", JINJA_TOOLS, "jinja"),
        (GO_TOOLS, "{{ tools }} <think></think>", "go"),
    ],
)
def test_which_template(go: str | None, jinja: str | None, kind: str) -> None:
    assert template_kind(go, jinja) == kind


def test_words_in_text_and_comments_do_not_count() -> None:
    assert go_capabilities('.Tools {{/* .Tools */}}{{ "x .Suffix" }}{{ `.Thinking` }}') == frozenset()
    assert {one.value for one in go_capabilities("{{- range $i, $t := $.Tools }}{{ $t.Function.Name }}{{ end }}")} == {
        "tools"
    }
    assert jinja_capabilities("{{ messages }}") == frozenset()

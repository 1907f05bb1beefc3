"""Checked bodies to the house's requests. Pure: what must be fetched was fetched before (`remote_images`).

What a single field's type cannot say is checked here: fields that exclude, need or contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from puna.errors import InvalidRequest, Unsupported
from puna.grammar.gbnf import quoted
from puna.model.parameters import options_from_json
from puna.server.body import kind, parse_json
from puna.server.media import check_image, check_sound, check_together
from puna.server.openai import media
from puna.server.openai import messages as shapes
from puna.server.openai.bodies import (
    ChatCompletionBody,
    CompletionBody,
    EmbeddingBody,
    Extras,
    Inputs,
    Prompts,
    Sampled,
    TokenizeBody,
)
from puna.server.openai.strict import check_strict
from puna.settings import parse_duration
from puna.types import (
    NO_OPTIONS,
    AudioPart,
    ChatRequest,
    CompletionRequest,
    EmbedRequest,
    Grammar,
    ImagePart,
    JsonObject,
    JsonOutput,
    JsonValue,
    Message,
    Options,
    Output,
    Part,
    TextPart,
    Think,
    Tool,
    ToolCall,
    ToolChoice,
)

DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's `max_tokens` of /v1/completions when none is said."""

Images = Mapping[str, bytes]
"""Fetched images by their URL."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Options of a request, and the paths of those without effect."""

    options: Options
    ignored: tuple[str, ...]


# -------------------------------------------------------------------------------------------------------- requests


def to_chat(body: ChatCompletionBody, images: Images) -> tuple[ChatRequest, tuple[str, ...]]:
    """The request, and the paths of options that have no effect."""
    _check_stream(body)
    asked = sampled_options(body, _one_of(body, "max_completion_tokens", "max_tokens"))
    tools = to_tools(body)
    return ChatRequest(
        model=body.model,
        messages=to_messages(body.messages, images),
        options=asked.options,
        tools=tools,
        tool_choice=to_tool_choice(body, tools),
        parallel_tool_calls=_parallel(body),
        output=to_output(body, body.response_format),
        think=to_think(body),
        n=body.n or 1,
        logprobs=_chat_logprobs(body),
        keep_alive=keep_alive(body),
        prefill=_prefill(body),
        template_arguments=body.chat_template_kwargs or {},
        cache_key=body.prompt_cache_key,
    ), asked.ignored


def to_completion(body: CompletionBody) -> tuple[CompletionRequest, tuple[str, ...]]:
    _check_stream(body)
    count = body.n or 1
    if body.best_of is not None and body.best_of < count:
        raise InvalidRequest(f"'best_of' ({body.best_of}) must be at least 'n' ({count}).", param="best_of")
    if body.stream and body.best_of is not None and body.best_of > count:
        raise Unsupported("'best_of' cannot be streamed: the best answers are known at the end.", param="best_of")
    if body.max_tokens == 0 and not body.echo:
        raise InvalidRequest("'max_tokens' 0 needs 'echo'.", param="max_tokens", code="integer_below_min_value")
    if body.suffix is not None and _token_prompts(body.prompt):
        raise Unsupported("'suffix' needs a prompt of text.", param="suffix")
    asked = sampled_options(body, DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens)
    return CompletionRequest(
        model=body.model,
        prompts=to_prompts(body.prompt),
        options=asked.options,
        suffix=body.suffix,
        echo=bool(body.echo),
        n=count,
        best_of=body.best_of,
        output=to_output(body, None),
        logprobs=body.logprobs,
        keep_alive=keep_alive(body),
        cache_key=body.prompt_cache_key,
    ), asked.ignored


def to_embed(body: EmbeddingBody) -> tuple[EmbedRequest, tuple[str, ...]]:
    asked = load_options(body)
    return EmbedRequest(
        model=body.model,
        inputs=to_prompts(body.input),
        options=asked.options,
        dimensions=body.dimensions,
        keep_alive=keep_alive(body),
    ), asked.ignored


def to_counted_chat(body: TokenizeBody, model: str, images: Images) -> ChatRequest:
    return ChatRequest(
        model=model,
        messages=to_messages(body.messages or [], images),
        tools=tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(body.tools or [])),
        template_arguments=body.chat_template_kwargs or {},
    )


def to_prompts(prompt: Prompts | Inputs) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(prompt, str):
        return (prompt,)
    if isinstance(prompt[0], int):
        return (tuple(prompt),)
    many = cast("list[str | list[int]]", prompt)
    return tuple(one if isinstance(one, str) else tuple(one) for one in many)


def _token_prompts(prompt: Prompts) -> bool:
    return not all(isinstance(one, str) for one in to_prompts(prompt))


def _check_stream(body: Sampled) -> None:
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )


def _chat_logprobs(body: ChatCompletionBody) -> int | None:
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs is not None:
        raise InvalidRequest("'logprobs' must be true for 'top_logprobs' to be used.", param="top_logprobs")
    return None


def _prefill(body: ChatCompletionBody) -> bool:
    continued = bool(body.continue_final_message)
    if body.add_generation_prompt is not None and body.add_generation_prompt == continued:
        raise InvalidRequest(
            "'add_generation_prompt' must be the opposite of 'continue_final_message'.", param="add_generation_prompt"
        )
    if continued and body.messages[-1].role != "assistant":
        raise InvalidRequest(
            "'continue_final_message' needs a last message of the assistant.", param="continue_final_message"
        )
    return continued


# --------------------------------------------------------------------------------------------------------- options


def sampled_options(body: Sampled, max_tokens: int | None) -> Asked:
    """The fields of the request over its `options`."""
    base = load_options(body)
    said = Options(
        num_predict=max_tokens,
        stop=(body.stop,) if isinstance(body.stop, str) else None if body.stop is None else tuple(body.stop),
        ignore_eos=body.ignore_eos,
        # To OpenAI every number is a seed; in the house's options -1 says `random`.
        seed=2**64 - 1 if body.seed == -1 else body.seed,
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        min_p=body.min_p,
        typical_p=body.typical_p,
        repeat_last_n=body.repeat_last_n,
        repeat_penalty=_one_of(body, "repeat_penalty", "repetition_penalty"),
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        mirostat=body.mirostat,
        mirostat_tau=body.mirostat_tau,
        mirostat_eta=body.mirostat_eta,
        logit_bias=None if body.logit_bias is None else tuple(_biases(body.logit_bias)),
    )
    return Asked(said.over(base.options), base.ignored)


def load_options(body: Extras) -> Asked:
    options, ignored = options_from_json(body.options or {}, param="options")
    said = NO_OPTIONS if body.num_ctx is None else Options(num_ctx=body.num_ctx)
    return Asked(said.over(options), tuple(f"options.{name}" for name in ignored))


def keep_alive(body: Extras) -> float | None:
    if not isinstance(body.keep_alive, str):
        return body.keep_alive
    try:
        return parse_duration(body.keep_alive)
    except ValueError as error:
        raise InvalidRequest(f"Invalid 'keep_alive': {error}.", param="keep_alive") from error


def _biases(bias: Mapping[str, float]) -> Iterator[tuple[int, float]]:
    for key, value in bias.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 10):
            raise InvalidRequest(
                f"Invalid key in 'logit_bias': '{key[:100]}'. Expected a token id.", param="logit_bias"
            )
        yield int(key), value


def _one_of(body: Sampled, name: str, alias: str) -> int | None:
    """The value of a field with two names."""
    first, second = getattr(body, name), getattr(body, alias)
    if first is not None and second is not None and first != second:
        raise InvalidRequest(
            f"'{alias}' and '{name}' are the same setting, but were given different values.", param=alias
        )
    return cast("int | None", first if first is not None else second)


def to_think(body: ChatCompletionBody) -> Think | None:
    """`reasoning_effort`, `reasoning.effort` and `think` are one setting."""
    return next(iter(_thinks(body).values()), None)


def field_names(body: Sampled) -> dict[str, str]:
    """What this request calls settings that have several names in requests."""
    response_format, thinks, functions = None, dict[str, Think](), 0
    if isinstance(body, ChatCompletionBody):
        response_format, thinks, functions = body.response_format, _thinks(body), len(body.functions or ())
    output = next(iter(_outputs(body, response_format)), "response_format")
    names = {"think": next(iter(thinks), "think"), "response_format": output, "grammar": output}
    return names | {f"tools[{at}].function.parameters": f"functions[{at}].parameters" for at in range(functions)}


def _thinks(body: ChatCompletionBody) -> dict[str, Think]:
    nested = None if body.reasoning is None else body.reasoning.effort
    wishes: dict[str, Think] = {}
    for name, effort in (("reasoning_effort", body.reasoning_effort), ("reasoning.effort", nested)):
        if effort is not None:
            wishes[name] = False if effort == "none" else "max" if effort == "xhigh" else effort
    if body.think is not None:
        wishes["think"] = body.think
    if len({str(wish) for wish in wishes.values()}) > 1:
        names = " and ".join(f"'{name}'" for name in wishes)
        raise InvalidRequest(f"{names} are the same setting, but were given different values.", param=[*wishes][-1])
    return wishes


# ---------------------------------------------------------------------------------------------------------- output


Wishes = dict[str, Output]
"""Ways to shape the answer that a request asks for, by the field that asks."""


def to_output(body: Sampled, response_format: shapes.ResponseFormat | None) -> Output | None:
    wishes = _outputs(body, response_format)
    if len(wishes) > 1:
        names = [*wishes]
        shown = ", ".join(f"'{name}'" for name in names)
        raise InvalidRequest(f"Only one of {shown} can shape the answer.", param=names[-1])
    return next(iter(wishes.values()), None)


def _outputs(body: Sampled, response_format: shapes.ResponseFormat | None) -> Wishes:
    wishes: Wishes = {}
    _add_format(wishes, response_format)
    if body.grammar is not None:
        wishes["grammar"] = Grammar("gbnf", body.grammar)
    if body.guided_grammar is not None:
        wishes["guided_grammar"] = Grammar("gbnf", body.guided_grammar)
    if body.guided_regex is not None:
        wishes["guided_regex"] = Grammar("regex", body.guided_regex)
    if body.guided_choice is not None:
        wishes["guided_choice"] = choice_grammar(body.guided_choice)
    if body.json_schema is not None:
        wishes["json_schema"] = JsonOutput(body.json_schema)
    if body.guided_json is not None:
        wishes["guided_json"] = JsonOutput(_schema(body.guided_json, "guided_json"))
    if body.structured_outputs is not None:
        _add_structured(wishes, body.structured_outputs)
    return wishes


def _add_format(wishes: Wishes, response_format: shapes.ResponseFormat | None) -> None:
    match response_format:
        case shapes.JsonObjectFormat(schema_=schema):
            wishes["response_format"] = JsonOutput(schema)
        case shapes.JsonSchemaFormat(json_schema=spec):
            if spec.strict and spec.schema_ is not None:
                check_strict(
                    spec.schema_, what=f"response_format '{spec.name}'", param="response_format.json_schema.schema"
                )
            wishes["response_format"] = JsonOutput(spec.schema_)


def _add_structured(wishes: Wishes, structured: shapes.StructuredOutputs) -> None:
    name = "structured_outputs"
    if structured.json_ is not None:
        wishes[f"{name}.json"] = JsonOutput(_schema(structured.json_, f"{name}.json"))
    if structured.regex is not None:
        wishes[f"{name}.regex"] = Grammar("regex", structured.regex)
    if structured.choice is not None:
        wishes[f"{name}.choice"] = choice_grammar(structured.choice)
    if structured.grammar is not None:
        wishes[f"{name}.grammar"] = Grammar("gbnf", structured.grammar)
    if structured.json_object:
        wishes[f"{name}.json_object"] = JsonOutput()


def _schema(schema: JsonObject | str, param: str) -> JsonObject:
    return schema if isinstance(schema, dict) else _object(schema, param, "a JSON Schema")


def choice_grammar(choices: list[str]) -> Grammar:
    """GBNF for one of `choices`, written as they are."""
    return Grammar("gbnf", "root ::= " + " | ".join(quoted(choice) for choice in choices))


# ----------------------------------------------------------------------------------------------------------- tools


def to_tools(body: ChatCompletionBody) -> tuple[Tool, ...]:
    if body.tools is not None and body.functions is not None:
        raise InvalidRequest("'functions' is the deprecated form of 'tools': send one of them.", param="functions")
    if body.functions is not None:
        tools = tuple(_function(spec, f"functions[{index}]") for index, spec in enumerate(body.functions))
    else:
        tools = tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(body.tools or []))
    names = [tool.name for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequest(f"The tool '{twice}' is there more than once.", param="tools")
    return tools


def _tool(tool: shapes.Tool, param: str) -> Tool:
    if isinstance(tool, shapes.FunctionTool):
        return _function(tool.function, f"{param}.function")
    spec = tool.custom
    grammar = None
    if isinstance(spec.format, shapes.FormatGrammar):
        grammar = Grammar(spec.format.grammar.syntax, spec.format.grammar.definition)
    return Tool(name=spec.name, description=spec.description or "", kind="custom", grammar=grammar)


def _function(spec: shapes.FunctionSpec, param: str) -> Tool:
    if spec.strict and spec.parameters is not None:
        check_strict(spec.parameters, what=f"function '{spec.name}'", param=f"{param}.parameters")
    return Tool(
        name=spec.name,
        description=spec.description or "",
        parameters=spec.parameters,
        strict=bool(spec.strict),
    )


def to_tool_choice(body: ChatCompletionBody, tools: tuple[Tool, ...]) -> ToolChoice:
    if body.function_call is not None:
        if body.tool_choice is not None or body.functions is None:
            raise InvalidRequest(
                "'function_call' goes with 'functions'; with 'tools' send 'tool_choice'.", param="function_call"
            )
        return _legacy_choice(body.function_call, tools)
    if body.tool_choice is not None and body.functions is not None:
        raise InvalidRequest(
            "'tool_choice' goes with 'tools'; with 'functions' send 'function_call'.", param="tool_choice"
        )
    choice = _choice(body.tool_choice)
    if choice.mode == "required" and not tools:
        raise InvalidRequest("When using 'tool_choice', 'tools' must be set.", param="tool_choice")
    return _known(choice, tools, "tool_choice")


def _choice(choice: shapes.ToolChoice | None) -> ToolChoice:
    match choice:
        case None:
            return ToolChoice()
        case shapes.NamedFunction():
            return ToolChoice("required", (choice.function.name,))
        case shapes.NamedCustom():
            return ToolChoice("required", (choice.custom.name,))
        case shapes.AllowedTools(allowed_tools=allowed):
            names = tuple(_referred(tool) for tool in allowed.tools)
            return ToolChoice(allowed.mode, tuple(dict.fromkeys(names)))
        case _:
            return ToolChoice(choice)


def _parallel(body: ChatCompletionBody) -> bool:
    """Whether there may be several calls: a named tool is called once, and the deprecated form has room for one."""
    named = isinstance(body.tool_choice, shapes.NamedFunction | shapes.NamedCustom)
    return body.parallel_tool_calls is not False and body.functions is None and not named


def _referred(tool: shapes.NamedFunction | shapes.NamedCustom) -> str:
    return tool.function.name if isinstance(tool, shapes.NamedFunction) else tool.custom.name


def _legacy_choice(choice: shapes.FunctionChoice, tools: tuple[Tool, ...]) -> ToolChoice:
    if isinstance(choice, shapes.ToolReference):
        return _known(ToolChoice("required", (choice.name,)), tools, "function_call")
    return ToolChoice(choice)


def _known(choice: ToolChoice, tools: tuple[Tool, ...], param: str) -> ToolChoice:
    known = {tool.name for tool in tools}
    unknown = next((name for name in choice.names or () if name not in known), None)
    if unknown is not None:
        raise InvalidRequest(f"Tool choice '{unknown}' not found in 'tools' parameter.", param=param)
    return choice


# -------------------------------------------------------------------------------------------------------- messages


def remote_images(conversation: list[shapes.Message]) -> list[tuple[str, str]]:
    """Paths and URLs of images that must be fetched."""
    found: list[tuple[str, str]] = []
    for index, message in enumerate(conversation):
        if isinstance(message, shapes.UserMessage) and isinstance(message.content, list):
            for at, part in enumerate(message.content):
                if isinstance(part, shapes.ImagePart) and media.is_remote(_url(part)):
                    found.append((_url_path(part, f"messages[{index}].content[{at}]"), _url(part)))
    return found


def has_media(conversation: list[shapes.Message]) -> bool:
    """Whether some part takes time to read."""
    return any(
        not isinstance(part, shapes.TextPart)
        for message in conversation
        if isinstance(message, shapes.UserMessage) and isinstance(message.content, list)
        for part in message.content
    )


def to_messages(conversation: list[shapes.Message], images: Images) -> tuple[Message, ...]:
    calls: dict[str, str] = {}
    legacy: dict[str, str] = {}
    converted: list[Message] = []
    for index, message in enumerate(conversation):
        path = f"messages[{index}]"
        match message:
            case shapes.SystemMessage():
                converted.append(Message("system", _text_parts(message.content), name=message.name))
            case shapes.UserMessage():
                converted.append(Message("user", _user_parts(message.content, path, images), name=message.name))
            case shapes.AssistantMessage():
                turn = _assistant(message, index, path)
                calls.update({call.id: call.name for call in turn.tool_calls})
                if message.function_call is not None:
                    legacy[message.function_call.name] = _legacy_id(index)
                converted.append(turn)
            case shapes.ToolMessage():
                converted.append(_tool_result(message, path, calls))
            case shapes.FunctionMessage():
                converted.append(_function_result(message, path, legacy))
    check_together(converted, "messages")
    return tuple(converted)


def _assistant(message: shapes.AssistantMessage, index: int, path: str) -> Message:
    content = () if message.content is None else _text_parts(message.content)
    if message.refusal is not None:
        content = (*content, TextPart(message.refusal))
    calls = tuple(_past_call(call, f"{path}.tool_calls[{at}]") for at, call in enumerate(message.tool_calls or []))
    if message.function_call is not None:
        arguments = _arguments(message.function_call.arguments, f"{path}.function_call.arguments")
        calls = (*calls, ToolCall(_legacy_id(index), message.function_call.name, arguments))
    if not content and not calls and message.content is None:
        raise InvalidRequest(
            f"Missing required parameter: '{path}.content'. It may be absent only beside tool_calls or function_call.",
            param=f"{path}.content",
            code="missing_required_parameter",
        )
    thinking = message.reasoning_content if message.reasoning_content is not None else message.reasoning
    return Message("assistant", content, name=message.name, thinking=thinking, tool_calls=calls)


def _legacy_id(index: int) -> str:
    """The deprecated form has no ids: the message's place stands for one."""
    return f"call_function_{index}"


def _past_call(call: shapes.PastCall, path: str) -> ToolCall:
    if isinstance(call, shapes.PastCustomCall):
        return ToolCall(call.id, call.custom.name, call.custom.input, "custom")
    return ToolCall(call.id, call.function.name, _arguments(call.function.arguments, f"{path}.function.arguments"))


def _arguments(text: str, param: str) -> str:
    """Clients send an empty text for no arguments."""
    if not text.strip():
        return "{}"
    _object(text, param, "the JSON text of an object")
    return text


def _object(text: str, param: str, expected: str) -> JsonObject:
    try:
        value: JsonValue = parse_json(text.encode("utf-8", "replace"))
    except InvalidRequest as error:
        raise InvalidRequest(f"Invalid '{param}': expected {expected}.", param=param) from error
    if not isinstance(value, dict):
        raise InvalidRequest(f"Invalid '{param}': expected {expected}, but got {kind(value)}.", param=param)
    return value


def _tool_result(message: shapes.ToolMessage, path: str, calls: Mapping[str, str]) -> Message:
    name = calls.get(message.tool_call_id)
    if name is None:
        raise InvalidRequest(
            f"Invalid '{path}.tool_call_id': no earlier message has a tool call '{message.tool_call_id[:100]}'.",
            param=f"{path}.tool_call_id",
        )
    return Message("tool", _text_parts(message.content), name=name, tool_call_id=message.tool_call_id)


def _function_result(message: shapes.FunctionMessage, path: str, calls: Mapping[str, str]) -> Message:
    call = calls.get(message.name)
    if call is None:
        raise InvalidRequest(
            f"Invalid '{path}.name': no earlier message has a function call '{message.name[:100]}'.",
            param=f"{path}.name",
        )
    return Message("tool", (TextPart(message.content or ""),), name=message.name, tool_call_id=call)


def _text_parts(content: shapes.TextContent | shapes.AssistantContent) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    return tuple(TextPart(part.refusal if isinstance(part, shapes.RefusalPart) else part.text) for part in content)


def _user_parts(content: shapes.UserContent, path: str, images: Images) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    return tuple(_user_part(part, f"{path}.content[{at}]", images) for at, part in enumerate(content))


def _user_part(part: shapes.UserPart, path: str, images: Images) -> Part:
    match part:
        case shapes.TextPart():
            return TextPart(part.text)
        case shapes.ImagePart():
            return ImagePart(_image(_url(part), _url_path(part, path), images))
        case shapes.AudioPart():
            param = f"{path}.input_audio.data"
            sound = media.decode_base64(part.input_audio.data, param)
            return AudioPart(check_sound(sound, param, part.input_audio.format))
        case shapes.FilePart():
            return TextPart(_file(part.file, f"{path}.file"))


def _url(part: shapes.ImagePart) -> str:
    return part.image_url if isinstance(part.image_url, str) else part.image_url.url


def _url_path(part: shapes.ImagePart, path: str) -> str:
    return f"{path}.image_url" if isinstance(part.image_url, str) else f"{path}.image_url.url"


def _image(url: str, param: str, images: Images) -> bytes:
    if url in images:
        return images[url]
    if not url[:5].lower() == "data:":
        raise InvalidRequest(
            f"Invalid '{param}': expected a data: URL or an http(s) URL.", param=param, code="invalid_image_url"
        )
    return check_image(media.decode_data_url(url, param)[1], param)


def _file(file: shapes.FileData, path: str) -> str:
    if file.file_data is None:
        raise InvalidRequest(
            f"Missing required parameter: '{path}.file_data'.",
            param=f"{path}.file_data",
            code="missing_required_parameter",
        )
    return media.file_name(file.filename, media.file_text(file.file_data, f"{path}.file_data"))

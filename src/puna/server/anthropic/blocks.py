"""The blocks of a message: their contract, and what they become. Pure: what must be fetched was fetched before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from puna.errors import InvalidRequest, Unsupported
from puna.server.contract.shapes import UNION, Honoured, JsonObject, JsonValue, Refused, Reported, Shape
from puna.server.documents import document_text
from puna.server.kept_files import KeptText
from puna.server.media import check_image
from puna.server.openai.media import decode_base64, is_remote
from puna.types import ImagePart, Part, TextPart, ToolCall

HOSTED_BLOCKS = frozenset(
    {
        "server_tool_use",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "mcp_tool_use",
        "mcp_tool_result",
        "container_upload",
        "compaction",
        "tool_reference",
        "browser_state",
    }
)
"""What Anthropic's own servers run, or what only they can read."""


def by_type(*known: str, hosted: frozenset[str] = HOSTED_BLOCKS, expected: str) -> Discriminator:
    """Tells blocks apart by their `type`; those that only Anthropic's servers know are told by name."""

    def tag(value: object) -> str | None:
        found = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        if not isinstance(found, str):
            return None
        return found if found in known else "hosted" if found in hosted else None

    return Discriminator(tag, custom_error_type=UNION, custom_error_message=expected)


def text_or_array(value: object) -> str | None:
    return "array" if isinstance(value, list) else "text" if isinstance(value, str) else None


_CONTENT = Discriminator(text_or_array, custom_error_type=UNION, custom_error_message="a string or an array of blocks")

# ----------------------------------------------------------------------------------------------------------- shapes


class CacheControl(Shape):
    type: Literal["ephemeral"]
    ttl: Annotated[
        Literal["5m", "1h"] | None,
        Reported("What was computed stays while the model is loaded and there is room.", harmless=("5m",)),
    ] = None
    scope: Annotated[str | None, Reported("There is one cache, for all.")] = None


CACHED = Honoured("Every prompt is cached as far as it goes; with a mark, the usage says what was written, too.")


class CachedBlock(Shape):
    cache_control: Annotated[CacheControl | None, CACHED] = None


class TextBlock(CachedBlock):
    type: Literal["text"]
    text: Annotated[str, Honoured("The text.")]
    citations: Annotated[
        JsonValue, Reported("Citations of an earlier answer say nothing to the model.", harmless=([],))
    ] = None


class ImageBase64(Shape):
    type: Literal["base64"]
    data: Annotated[str, Honoured("Base64.")]
    media_type: Annotated[
        Literal["image/jpeg", "image/png", "image/gif", "image/webp"],
        Honoured("What the image is, its bytes say: png, jpeg, or webp with the extra `webp`. A gif is refused."),
    ]


class ImageAtUrl(Shape):
    type: Literal["url"]
    url: Annotated[str, Honoured("http(s), fetched within limits of size, time and address.")]


class FileSource(Shape):
    type: Literal["file"]
    file_id: Annotated[str, Honoured("A file of `/v1/files`: an image, or one whose text is read.")]


class ImageBlock(CachedBlock):
    type: Literal["image"]
    source: Annotated[
        Annotated[ImageBase64 | ImageAtUrl | FileSource, Field(discriminator="type")],
        Honoured("The image, for a model that sees."),
    ]
    transformations: Annotated[JsonObject | None, Reported("Images are always read as the model reads them.")] = None


class DocumentBase64(Shape):
    type: Literal["base64"]
    data: Annotated[str, Honoured("Base64 of a PDF, whose text is read (with the extra `pdf`).")]
    media_type: Annotated[Literal["application/pdf"], Honoured("A PDF.")]


class DocumentText(Shape):
    type: Literal["text"]
    data: Annotated[str, Honoured("The text.")]
    media_type: Annotated[Literal["text/plain"], Honoured("Text.")]


class DocumentContent(Shape):
    type: Literal["content"]
    content: Annotated[
        Annotated[
            Annotated[str, Tag("text")]
            | Annotated[list[Annotated[TextBlock | ImageBlock, Field(discriminator="type")]], Tag("array")],
            _CONTENT,
        ],
        Honoured("Text, or blocks: text, image."),
    ]


class DocumentAtUrl(Shape):
    type: Literal["url"]
    url: Annotated[
        str, Honoured("http(s): text, or a PDF (with the extra `pdf`), fetched within limits, as images are.")
    ]


class Citations(Shape):
    enabled: Annotated[bool | None, Refused("Answers here have no citations.", harmless=(False,))] = None


class DocumentBlock(CachedBlock):
    type: Literal["document"]
    source: Annotated[
        Annotated[
            DocumentBase64 | DocumentText | DocumentContent | DocumentAtUrl | FileSource, Field(discriminator="type")
        ],
        Honoured("The document, whose text becomes part of the message."),
    ]
    title: Annotated[str | None, Honoured("Stands before the text.")] = None
    context: Annotated[str | None, Honoured("Stands before the text.")] = None
    citations: Annotated[Citations | None, Honoured("Only switched off.")] = None


class SearchResultBlock(CachedBlock):
    type: Literal["search_result"]
    source: Annotated[str, Honoured("Stands before the text.")]
    title: Annotated[str, Honoured("Stands before the text.")]
    content: Annotated[list[TextBlock], Honoured("The text.")]
    citations: Annotated[Citations | None, Honoured("Only switched off.")] = None


class AnthropicBlock(Shape):
    """A block of what Anthropic's servers run: refused by its name."""

    type: str


ResultBlock: TypeAlias = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ImageBlock, Tag("image")]
    | Annotated[SearchResultBlock, Tag("search_result")]
    | Annotated[DocumentBlock, Tag("document")]
    | Annotated[AnthropicBlock, Tag("hosted")],
    by_type(
        "text",
        "image",
        "search_result",
        "document",
        expected="a block of type 'text', 'image', 'search_result' or 'document'",
    ),
]


class ToolResultBlock(CachedBlock):
    type: Literal["tool_result"]
    tool_use_id: Annotated[str, Honoured("The call it answers; must be one of the conversation's.")]
    content: Annotated[
        Annotated[Annotated[str, Tag("text")] | Annotated[list[ResultBlock], Tag("array")], _CONTENT] | None,
        Honoured("The result: text, or blocks. Images follow in the user's turn."),
    ] = None
    is_error: Annotated[bool | None, Honoured("The model reads that the call failed.")] = None
    toolset_name: Annotated[str | None, Reported("There are no toolsets.")] = None


class ToolUseBlock(CachedBlock):
    type: Literal["tool_use"]
    id: Annotated[str, Honoured("The call's id, which a tool_result answers.")]
    name: Annotated[str, Honoured("Its name.")]
    input: Annotated[JsonObject, Honoured("The arguments.")]
    caller: Annotated[JsonValue, Reported("The model called it.", harmless=({"type": "direct"},))] = None
    toolset_name: Annotated[str | None, Reported("There are no toolsets.")] = None


class ThinkingBlock(Shape):
    type: Literal["thinking"]
    thinking: Annotated[str, Honoured("The thinking of that turn, for templates that want it.")]
    signature: Annotated[str | None, Honoured("Comes with each thought of an answer; none is asked for here.")] = None


class RedactedThinkingBlock(Shape):
    type: Literal["redacted_thinking"]
    data: Annotated[str, Reported("Only those who wrote it can read it.")]


UserBlock: TypeAlias = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ImageBlock, Tag("image")]
    | Annotated[DocumentBlock, Tag("document")]
    | Annotated[SearchResultBlock, Tag("search_result")]
    | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[AnthropicBlock, Tag("hosted")],
    by_type(
        "text",
        "image",
        "document",
        "search_result",
        "tool_result",
        expected="a block of type 'text', 'image', 'document', 'search_result' or 'tool_result'",
    ),
]
AssistantBlock: TypeAlias = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ThinkingBlock, Tag("thinking")]
    | Annotated[RedactedThinkingBlock, Tag("redacted_thinking")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[AnthropicBlock, Tag("hosted")],
    by_type(
        "text",
        "thinking",
        "redacted_thinking",
        "tool_use",
        expected="a block of type 'text', 'thinking', 'redacted_thinking' or 'tool_use'",
    ),
]

SystemBlocks: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[Annotated[TextBlock, Field(discriminator="type")]], Tag("array")],
    _CONTENT,
]
UserBlocks: TypeAlias = Annotated[Annotated[str, Tag("text")] | Annotated[list[UserBlock], Tag("array")], _CONTENT]
AssistantBlocks: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[AssistantBlock], Tag("array")], _CONTENT
]

# -------------------------------------------------------------------------------------------------- what they become


@dataclass(frozen=True, slots=True)
class HeldElsewhere:
    """What blocks speak of and others hold. `images`: by URL, and by the ids of files; `texts`: likewise."""

    images: Mapping[str, bytes] = field(default_factory=dict)
    texts: Mapping[str, KeptText] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FromBlock:
    """A part of a house message, and the path of the block it came from."""

    part: Part
    path: str


Readable: TypeAlias = TextBlock | ImageBlock | DocumentBlock | SearchResultBlock
"""Blocks that become text and images."""


def readable_parts(block: Readable, path: str, fetched: HeldElsewhere) -> list[FromBlock]:
    match block:
        case TextBlock():
            return [FromBlock(TextPart(block.text), path)]
        case ImageBlock():
            return [FromBlock(ImagePart(_image(block, f"{path}.source", fetched)), path)]
        case SearchResultBlock():
            text = "\n".join(inner.text for inner in block.content)
            return [FromBlock(TextPart(f"{block.title}\n{block.source}\n{text}"), path)]
        case DocumentBlock():
            title = None if isinstance(block.source, FileSource | DocumentAtUrl) else block.title
            head = "\n".join(text for text in (title, block.context) if text)
            return [*([FromBlock(TextPart(head), path)] if head else []), *_document(block, f"{path}.source", fetched)]


def _image(block: ImageBlock, path: str, fetched: HeldElsewhere) -> bytes:
    source = block.source
    if isinstance(source, FileSource):
        return check_image(fetched.images[source.file_id], f"{path}.file_id")
    if isinstance(source, ImageAtUrl):
        if source.url in fetched.images:
            return fetched.images[source.url]
        raise InvalidRequest(
            f"Invalid '{path}.url': expected an http(s) URL.", param=f"{path}.url", code="invalid_image_url"
        )
    return check_image(decode_base64(source.data, f"{path}.data"), f"{path}.data")


def _document(block: DocumentBlock, path: str, fetched: HeldElsewhere) -> Iterator[FromBlock]:
    match block.source:
        case DocumentText(data=text):
            yield FromBlock(TextPart(text), path)
        case DocumentBase64(data=data):
            param = f"{path}.data"
            yield FromBlock(TextPart(document_text(decode_base64(data, param), "application/pdf", param)), path)
        case FileSource(file_id=held) | DocumentAtUrl(url=held) if held in fetched.texts:
            yield FromBlock(TextPart(fetched.texts[held].named(block.title)), path)
        case DocumentAtUrl():
            raise InvalidRequest(f"Invalid '{path}.url': expected an http(s) URL.", param=f"{path}.url")
        case DocumentContent(content=str(text)):
            yield FromBlock(TextPart(text), path)
        case DocumentContent(content=list(blocks)):
            for at, inner in enumerate(blocks):
                yield from readable_parts(inner, f"{path}.content[{at}]", fetched)


def refuse_hosted(block: AnthropicBlock, path: str) -> Unsupported:
    return Unsupported(
        f"'{path}': blocks of type '{block.type}' are of Anthropic's own servers; this one has no use for them.",
        param=f"{path}.type",
    )


def call_of(block: ToolUseBlock) -> ToolCall:
    return ToolCall(block.id, block.name, json.dumps(block.input, ensure_ascii=False))


def held_elsewhere(
    blocks: list[UserBlock] | list[ResultBlock], path: str
) -> Iterator[tuple[str, ImageBlock | DocumentBlock]]:
    """Every image and document, and where it is."""
    for at, block in enumerate(blocks):
        here = f"{path}[{at}]"
        match block:
            case ImageBlock():
                yield here, block
            case DocumentBlock(source=FileSource() | DocumentAtUrl()):
                yield here, block
            case DocumentBlock(source=DocumentContent(content=list(inner))):
                for place, one in enumerate(inner):
                    if isinstance(one, ImageBlock):
                        yield f"{here}.source.content[{place}]", one
            case ToolResultBlock(content=list(inner)):
                yield from held_elsewhere(inner, f"{here}.content")


def takes_long(block: UserBlock) -> bool:
    """Whether reading it is work."""
    if isinstance(block, ToolResultBlock) and isinstance(block.content, list):
        return any(takes_long(inner) for inner in block.content)
    return isinstance(block, ImageBlock | DocumentBlock)


def remote_url(block: ImageBlock | DocumentBlock) -> str | None:
    source = block.source
    return source.url if isinstance(source, ImageAtUrl | DocumentAtUrl) and is_remote(source.url) else None


def file_id(block: ImageBlock | DocumentBlock) -> str | None:
    return block.source.file_id if isinstance(block.source, FileSource) else None

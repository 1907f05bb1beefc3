"""The parts of an item's content: their contract, and what they become. Pure."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, cast

from pydantic import Discriminator, Field, Tag

from puna.errors import InvalidRequest
from puna.server.contract.shapes import UNION, Honoured, JsonValue, Refused, Reported, Shape
from puna.server.documents import named_text
from puna.server.media import check_sound
from puna.server.openai import media
from puna.server.openai.parts import ContentPart, Images, InputAudio, RefusalContentPart, image_bytes
from puna.types import AudioPart, ImagePart, Part, TextPart

_NO_FILES = "This server stores no files: send the content."


class InputText(ContentPart):
    type: Literal["input_text"]
    text: Annotated[str, Honoured("The text.")]


class InputImage(ContentPart):
    type: Literal["input_image"]
    image_url: Annotated[
        str | None,
        Honoured("A data: URL (png, jpeg, or webp with the extra `webp`), or http(s), fetched within limits."),
    ] = None
    detail: Annotated[
        Literal["auto", "low", "high", "original"] | None,
        Reported("Images are always read as the model reads them.", harmless=("auto",)),
    ] = None
    file_id: Annotated[str | None, Refused(_NO_FILES)] = None


class InputFile(ContentPart):
    type: Literal["input_file"]
    file_data: Annotated[
        str | None, Honoured("A data: URL of text, or of a PDF (with the extra `pdf`): its text is read.")
    ] = None
    filename: Annotated[str | None, Honoured("Stands before the text.")] = None
    detail: Annotated[
        Literal["auto", "low", "high"] | None,
        Reported("The text of a file is read, whatever its pages look like.", harmless=("auto",)),
    ] = None
    file_id: Annotated[str | None, Refused(_NO_FILES)] = None
    file_url: Annotated[str | None, Refused("This server fetches no files: send file_data.")] = None


class InputSound(ContentPart):
    type: Literal["input_audio"]
    input_audio: Annotated[InputAudio, Honoured("Sound, for a model that hears.")]


class OutputText(Shape):
    type: Literal["output_text"]
    text: Annotated[str, Honoured("Text of an earlier answer.")]
    annotations: Annotated[
        JsonValue, Reported("Annotations of an earlier answer say nothing to the model.", harmless=([],))
    ] = None
    logprobs: Annotated[
        JsonValue, Reported("How likely an earlier answer was says nothing to the model.", harmless=([],))
    ] = None
    parsed: Annotated[JsonValue, Reported("What a client read out of `text`, which counts.")] = None


ItemPart: TypeAlias = Annotated[
    InputText | OutputText | RefusalContentPart | InputImage | InputFile | InputSound, Field(discriminator="type")
]


def _text_or_array(value: object) -> str | None:
    return "array" if isinstance(value, list) else "text" if isinstance(value, str) else None


_CONTENT = Discriminator(_text_or_array, custom_error_type=UNION, custom_error_message="a string or an array of parts")

ItemContent: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[ItemPart], Tag("array")],
    _CONTENT,
]
ToolOutput: TypeAlias = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[
        list[Annotated[InputText | InputImage | InputFile, Field(discriminator="type")]],
        Tag("array"),
    ],
    _CONTENT,
]


class ReasoningText(Shape):
    type: Literal["reasoning_text"]
    text: Annotated[str, Honoured("The thought.")]


class SummaryText(Shape):
    type: Literal["summary_text"]
    text: Annotated[str, Honoured("What the thought was, in short.")]


# -------------------------------------------------------------------------------------------------- what they become


def to_parts(content: ItemContent | ToolOutput, path: str, images: Images, *, media_at: str = "") -> tuple[Part, ...]:
    """`media_at`: why images, sounds and files may not stand here, if they may not."""
    if isinstance(content, str):
        return (TextPart(content),)
    parts = enumerate(cast("list[ItemPart]", content))
    return tuple(_part(part, f"{path}[{at}]", images, media_at) for at, part in parts)


def _part(part: ItemPart, path: str, images: Images, media_at: str) -> Part:
    match part:
        case InputText() | OutputText():
            return TextPart(part.text)
        case RefusalContentPart():
            return TextPart(part.refusal)
    if media_at:
        raise InvalidRequest(f"Invalid '{path}': {media_at}.", param=path)
    match part:
        case InputImage():
            if part.image_url is None:
                raise _missing(f"{path}.image_url")
            return ImagePart(image_bytes(part.image_url, f"{path}.image_url", images))
        case InputSound():
            param = f"{path}.input_audio.data"
            return AudioPart(
                check_sound(media.decode_base64(part.input_audio.data, param), param, part.input_audio.format)
            )
        case InputFile():
            if part.file_data is None:
                raise _missing(f"{path}.file_data")
            return TextPart(named_text(part.filename, media.file_text(part.file_data, f"{path}.file_data")))


def _missing(path: str) -> InvalidRequest:
    return InvalidRequest(f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter")


def remote_urls(content: ItemContent | ToolOutput, path: str) -> list[tuple[str, str]]:
    """Paths and URLs of images that must be fetched."""
    if isinstance(content, str):
        return []
    return [
        (f"{path}[{at}].image_url", part.image_url)
        for at, part in enumerate(cast("list[ItemPart]", content))
        if isinstance(part, InputImage) and part.image_url is not None and media.is_remote(part.image_url)
    ]


def is_slow(content: ItemContent | ToolOutput) -> bool:
    """Whether some part takes time to read."""
    return not isinstance(content, str) and any(
        isinstance(part, InputImage | InputFile | InputSound) for part in cast("list[ItemPart]", content)
    )

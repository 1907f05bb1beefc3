"""The parts of a message: their contract, and what they become. Pure: what must be fetched was fetched before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from puna.errors import InvalidRequest
from puna.server.contract.shapes import UNION, Honoured, JsonObject, Reported, Shape
from puna.server.documents import named_text
from puna.server.media import check_image
from puna.server.openai import media
from puna.server.sounds import check_sound
from puna.types import AudioPart, ImagePart, Part, TextPart

Images = Mapping[str, bytes]
"""Fetched images by their URL."""


def _text_or_array(value: object) -> str | None:
    return "array" if isinstance(value, list) else "text" if isinstance(value, str) else None


_CONTENT = Discriminator(_text_or_array, custom_error_type=UNION, custom_error_message="a string or an array of parts")

# ---------------------------------------------------------------------------------------------------------- parts


class ContentPart(Shape):
    prompt_cache_breakpoint: Annotated[
        JsonObject | None, Reported("Every prompt is cached as far as it was seen before.")
    ] = None


class TextContentPart(ContentPart):
    type: Literal["text"]
    text: Annotated[str, Honoured("The text.")]


class RefusalContentPart(Shape):
    type: Literal["refusal"]
    refusal: Annotated[str, Honoured("A refusal of an earlier turn; given to the model as text.")]


class ImageUrl(Shape):
    url: Annotated[
        str,
        Honoured(
            "A data: URL (png, jpeg, or webp with the extra `webp`), or http(s), fetched within limits of size, time"
            " and address."
        ),
    ]
    detail: Annotated[
        Literal["auto", "low", "high", "original"] | None,
        Reported("Images are always read as the model reads them.", harmless=("auto",)),
    ] = None


def _url_or_object(value: object) -> str | None:
    return "url" if isinstance(value, str) else "object" if isinstance(value, dict | Shape) else None


ImageSource: TypeAlias = Annotated[
    Annotated[str, Tag("url")] | Annotated[ImageUrl, Tag("object")],
    Discriminator(_url_or_object, custom_error_type=UNION, custom_error_message="an object or a string"),
]


class ImageContentPart(ContentPart):
    type: Literal["image_url"]
    image_url: Annotated[ImageSource, Honoured("The image, as OpenAI's object or as a bare URL.")]


class InputAudio(Shape):
    data: Annotated[str, Honoured("Base64.")]
    format: Annotated[
        Literal["wav", "mp3", "flac", "ogg", "m4a", "mp4", "webm", "mpga", "mpeg", "aac"],
        Honoured("Must be what the bytes are. All but `wav`, `mp3` and `flac` need the extra `sound`."),
    ]


class AudioContentPart(ContentPart):
    type: Literal["input_audio"]
    input_audio: Annotated[InputAudio, Honoured("Sound, for a model that hears.")]


class FileData(Shape):
    file_data: Annotated[
        str | None, Honoured("A data: URL of text, or of a PDF (with the extra `pdf`): its text is read.")
    ] = None
    filename: Annotated[str | None, Honoured("Stands before the text.")] = None
    file_id: Annotated[str | None, Honoured("A file of `/v1/files` whose text is read, its name before it.")] = None


class FileContentPart(ContentPart):
    type: Literal["file"]
    file: Annotated[FileData, Honoured("A file whose text becomes part of the message.")]


UserPart: TypeAlias = Annotated[
    TextContentPart | ImageContentPart | AudioContentPart | FileContentPart, Field(discriminator="type")
]
AssistantPart: TypeAlias = Annotated[TextContentPart | RefusalContentPart, Field(discriminator="type")]
OnlyText: TypeAlias = Annotated[TextContentPart, Field()]

TextContent: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[OnlyText], Field(min_length=1), Tag("array")], _CONTENT
]
UserContent: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[UserPart], Field(min_length=1), Tag("array")], _CONTENT
]
AssistantContent: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[AssistantPart], Field(min_length=1), Tag("array")], _CONTENT
]

# -------------------------------------------------------------------------------------------------- what they become


def text_parts(content: TextContent | AssistantContent) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    return tuple(TextPart(part.refusal if isinstance(part, RefusalContentPart) else part.text) for part in content)


def user_parts(content: UserContent, path: str, images: Images) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    return tuple(_user_part(part, f"{path}.content[{at}]", images) for at, part in enumerate(content))


def _user_part(part: UserPart, path: str, images: Images) -> Part:
    match part:
        case TextContentPart():
            return TextPart(part.text)
        case ImageContentPart():
            return ImagePart(image_bytes(image_url(part), image_url_path(part, path), images))
        case AudioContentPart():
            param = f"{path}.input_audio.data"
            sound = media.decode_base64(part.input_audio.data, param)
            return AudioPart(check_sound(sound, param, part.input_audio.format))
        case FileContentPart():
            return TextPart(_file(part.file, f"{path}.file"))


def image_url(part: ImageContentPart) -> str:
    return part.image_url if isinstance(part.image_url, str) else part.image_url.url


def image_url_path(part: ImageContentPart, path: str) -> str:
    return f"{path}.image_url" if isinstance(part.image_url, str) else f"{path}.image_url.url"


def image_bytes(url: str, param: str, images: Images) -> bytes:
    """What a URL of an image holds: fetched before, or in the URL itself."""
    if url in images:
        return images[url]
    if not url[:5].lower() == "data:":
        raise InvalidRequest(
            f"Invalid '{param}': expected a data: URL or an http(s) URL.", param=param, code="invalid_image_url"
        )
    return check_image(media.decode_data_url(url, param)[1], param)


def _file(file: FileData, path: str) -> str:
    if file.file_id is not None:
        raise InvalidRequest(f"Send either '{path}.file_id' or '{path}.file_data'.", param=f"{path}.file_id")
    if file.file_data is None:
        raise InvalidRequest(
            f"Missing required parameter: '{path}.file_data'.",
            param=f"{path}.file_data",
            code="missing_required_parameter",
        )
    return named_text(file.filename, media.file_text(file.file_data, f"{path}.file_data"))

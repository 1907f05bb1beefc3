"""The parts of an item's content: their contract, and what they become. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias, cast

from pydantic import Discriminator, Field, Tag

from puna.errors import InvalidRequest
from puna.server.contract.shapes import UNION, Honoured, JsonValue, Reported, Shape
from puna.server.documents import named_text
from puna.server.kept_files import KeptText
from puna.server.openai import media
from puna.server.openai.parts import ContentPart, Images, InputAudio, RefusalContentPart, image_bytes
from puna.server.sounds import check_sound
from puna.types import AudioPart, ImagePart, Part, TextPart


@dataclass(frozen=True, slots=True)
class Brought:
    """What was got for a request before it is converted: images and the texts of files, by their URL or by the id of a
    kept file."""

    images: Images = field(default_factory=dict)
    texts: Mapping[str, KeptText] = field(default_factory=dict)


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
    file_id: Annotated[str | None, Honoured("A file of `/v1/files` that holds an image.")] = None


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
    file_id: Annotated[str | None, Honoured("A file of `/v1/files` whose text is read, its name before it.")] = None
    file_url: Annotated[
        str | None, Honoured("An http(s) URL of text, or of a PDF: fetched within limits, its name before its text.")
    ] = None


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


def to_parts(content: ItemContent | ToolOutput, path: str, brought: Brought, *, media_at: str = "") -> tuple[Part, ...]:
    """`media_at`: why images, sounds and files may not stand here, if they may not."""
    if isinstance(content, str):
        return (TextPart(content),)
    parts = enumerate(cast("list[ItemPart]", content))
    return tuple(_part(part, f"{path}[{at}]", brought, media_at) for at, part in parts)


def _part(part: ItemPart, path: str, brought: Brought, media_at: str) -> Part:
    match part:
        case InputText() | OutputText():
            return TextPart(part.text)
        case RefusalContentPart():
            return TextPart(part.refusal)
    if media_at:
        raise InvalidRequest(f"Invalid '{path}': {media_at}.", param=path)
    match part:
        case InputImage():
            _one_source(path, image_url=part.image_url, file_id=part.file_id)
            if part.file_id is not None:
                return ImagePart(brought.images[part.file_id])
            return ImagePart(image_bytes(part.image_url or "", f"{path}.image_url", brought.images))
        case InputSound():
            param = f"{path}.input_audio.data"
            return AudioPart(
                check_sound(media.decode_base64(part.input_audio.data, param), param, part.input_audio.format)
            )
        case InputFile():
            _one_source(path, file_data=part.file_data, file_id=part.file_id, file_url=part.file_url)
            elsewhere = part.file_id or part.file_url
            if elsewhere is not None:
                return TextPart(brought.texts[elsewhere].named(part.filename))
            return TextPart(named_text(part.filename, media.file_text(part.file_data or "", f"{path}.file_data")))


def _one_source(path: str, **sources: str | None) -> None:
    """InvalidRequest where a part has no content, or two."""
    said = [name for name, source in sources.items() if source is not None]
    if len(said) > 1:
        raise InvalidRequest(f"Send either '{path}.{said[0]}' or '{path}.{said[1]}'.", param=f"{path}.{said[1]}")
    if not said:
        missing = f"{path}.{next(iter(sources))}"
        raise InvalidRequest(
            f"Missing required parameter: '{missing}'.", param=missing, code="missing_required_parameter"
        )


@dataclass(frozen=True, slots=True)
class Named:
    """A file that a part names: where, by which id or URL, and what it is."""

    path: str
    name: str
    kind: Literal["image", "file", "url"]


def named_files(content: ItemContent | ToolOutput, path: str) -> list[Named]:
    """The files that content names, kept here or somewhere else."""
    found: list[Named] = []
    for at, part in enumerate([] if isinstance(content, str) else cast("list[ItemPart]", content)):
        match part:
            case InputImage(file_id=str(id_)):
                found.append(Named(f"{path}[{at}].file_id", id_, "image"))
            case InputFile(file_id=str(id_)):
                found.append(Named(f"{path}[{at}].file_id", id_, "file"))
            case InputFile(file_url=str(url)):
                found.append(Named(f"{path}[{at}].file_url", url, "url"))
            case _:
                pass
    return found


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

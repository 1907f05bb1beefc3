"""A tokenizer as GGUF files have it: from `tokenizer.json`, byte-level BPE and BERT's WordPiece.

llama.cpp knows how byte-level BPE cuts text into words by a name (`pre`); which one it is shows in the expression that
the tokenizer splits by.
"""

from __future__ import annotations

from pathlib import Path

from puna.convert.source import MAX_JSON_BYTES, Published, read_json, settings
from puna.convert.writer import MetadataEntry
from puna.errors import ModelFileError, Unsupported
from puna.plainfile import NotPlain, read_plain
from puna.types import JsonObject, JsonValue

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
"""`tokenizer.ggml.token_type`."""

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_BY_PATTERN = {_LLAMA3: "llama-bpe", _QWEN2: "qwen2"}

MOST_TOKENS = 1 << 22
_WORD_BEGIN = "\u2581"


def wordpiece(directory: Path) -> dict[str, MetadataEntry]:
    """BERT's, without letters in upper case: llama.cpp knows no other. Words begin with U+2581 there."""
    tokenizer = _tokenizer(directory)
    model = _object(tokenizer, "model")
    if model.get("type") != "WordPiece" or _object(tokenizer, "normalizer").get("lowercase") is not True:
        raise Unsupported("only tokenizers of lower-case WordPiece can be converted for this family", param="files")
    tokens, kinds = _tokens(tokenizer, model)
    roles = {
        "unknown": "[UNK]",
        "seperator": "[SEP]",
        "padding": "[PAD]",
        "cls": "[CLS]",
        "mask": "[MASK]",
        "bos": "[CLS]",
    }
    ids = {text: number for number, text in enumerate(tokens)}
    found: dict[str, MetadataEntry] = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [_marked(text) for text in tokens],
        "tokenizer.ggml.token_type": kinds,
    }
    for role, text in roles.items():
        if text in ids:
            found[f"tokenizer.ggml.{role}_token_id"] = ids[text]
    return found


def _marked(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        return text
    return text[2:] if text.startswith("##") else _WORD_BEGIN + text


def byte_level(directory: Path, size: int) -> dict[str, MetadataEntry]:
    """Byte-level BPE. `size`: tokens that the weights have; what the tokenizer lacks of them is unused."""
    tokenizer = _tokenizer(directory)
    model = _object(tokenizer, "model")
    pre = _pre(tokenizer)
    if model.get("type") != "BPE" or pre is None:
        raise Unsupported(
            "its tokenizer is none that Puna converts (byte-level BPE that cuts words as llama 3, qwen2, gpt-2 or "
            "smollm do)",
            param="files",
        )
    tokens, kinds = _tokens(tokenizer, model)
    if len(tokens) > size:
        raise ModelFileError(f"the tokenizer has {len(tokens)} tokens, the weights {size}")
    tokens += [f"[PAD{number}]" for number in range(len(tokens), size)]
    kinds += [UNUSED] * (size - len(kinds))
    found: dict[str, MetadataEntry] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": _merges(model),
    }
    return found | _special(directory, tokenizer, {text: number for number, text in enumerate(tokens)})


def chat_template(directory: Path) -> str | None:
    path = directory / "chat_template.jinja"
    if path.is_file():
        try:
            return read_plain(path, MAX_JSON_BYTES).decode("utf-8", "replace")
        except NotPlain as error:
            raise ModelFileError(f"chat_template.jinja is {error.strerror}") from error
    said = settings(directory, "tokenizer_config.json").values.get("chat_template")
    if isinstance(said, list):
        named = [item for item in said if isinstance(item, dict) and item.get("name") == "default"]
        said = named[0].get("template") if named else None
    return said if isinstance(said, str) else None


def _special(directory: Path, tokenizer: JsonObject, ids: dict[str, int]) -> dict[str, MetadataEntry]:
    """Of the settings: the tokenizer's, which name texts, before the model's, which have ids."""
    told, model = settings(directory, "tokenizer_config.json"), settings(directory, "config.json")
    found: dict[str, MetadataEntry] = {}
    for role, name in (("bos", "bos"), ("eos", "eos"), ("padding", "pad"), ("unknown", "unk")):
        number = ids.get(_text_of(told, f"{name}_token"), _first(model.values.get(f"{name}_token_id")))
        if number is not None:
            found[f"tokenizer.ggml.{role}_token_id"] = number
    begins = told.values.get("add_bos_token")
    if not isinstance(begins, bool):
        begins = _begins(tokenizer, _text_of(told, "bos_token"))
    return found | {"tokenizer.ggml.add_bos_token": begins}


def _begins(tokenizer: JsonObject, bos: str) -> bool:
    """Whether its post-processor puts the token before every text."""
    processor = _object(tokenizer, "post_processor")
    several = processor.get("processors")
    for one in several if isinstance(several, list) else [processor]:
        single = one.get("single") if isinstance(one, dict) else None
        first = single[0] if isinstance(single, list) and single else None
        special = first.get("SpecialToken") if isinstance(first, dict) else None
        if isinstance(special, dict) and special.get("id") == bos and bos:
            return True
    return False


def _first(value: JsonValue) -> int | None:
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text_of(told: Published, name: str) -> str:
    value = told.values.get(name)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _tokenizer(directory: Path) -> JsonObject:
    value = read_json(directory / "tokenizer.json", "tokenizer.json")
    if not isinstance(value, dict):
        raise Unsupported("a tokenizer.json is needed beside the weights", param="files")
    return value


def _tokens(tokenizer: JsonObject, model: JsonObject) -> tuple[list[str], list[int]]:
    """All of them by id, with their types. A gap is an unused one."""
    ids = {
        number: text
        for text, number in _object(model, "vocab").items()
        if isinstance(number, int) and 0 <= number < MOST_TOKENS
    }
    kinds: dict[int, int] = {}
    added = tokenizer.get("added_tokens")
    for token in added if isinstance(added, list) else []:
        if not isinstance(token, dict):
            continue
        number, text = token.get("id"), token.get("content")
        if isinstance(number, int) and isinstance(text, str) and 0 <= number < MOST_TOKENS:
            ids[number] = text
            kinds[number] = CONTROL if token.get("special") is True else USER_DEFINED
    unknown = model.get("unk_token")
    size = max(ids, default=-1) + 1
    if not 0 < len(ids) >= size // 2:
        raise ModelFileError("tokenizer.json has no vocabulary, or one with gaps")
    tokens = [ids.get(number, f"[PAD{number}]") for number in range(size)]
    types = [kinds.get(number, NORMAL if number in ids else UNUSED) for number in range(size)]
    return tokens, [UNKNOWN if text == unknown else kind for text, kind in zip(tokens, types, strict=True)]


def _merges(model: JsonObject) -> list[str]:
    merges = model.get("merges")
    found = (
        [" ".join(map(str, item)) if isinstance(item, list) else item for item in merges]
        if isinstance(merges, list)
        else []
    )
    if not found or not all(isinstance(item, str) for item in found):
        raise ModelFileError("tokenizer.json has no merges")
    return [str(item) for item in found]


def _pre(tokenizer: JsonObject) -> str | None:
    """llama.cpp's name of how it cuts text into words."""
    cutting = _object(tokenizer, "pre_tokenizer")
    several = cutting.get("pretokenizers")
    steps = [one for one in (several if isinstance(several, list) else [cutting]) if isinstance(one, dict)]
    match [one.get("type") for one in steps]:
        case ["Split", "ByteLevel"] if steps[1].get("use_regex") is False:
            pattern = _object(steps[0], "pattern").get("Regex")
            return _BY_PATTERN.get(pattern) if isinstance(pattern, str) else None
        case ["Digits", "ByteLevel"] if steps[0].get("individual_digits") is True:
            return "smollm"
        case ["ByteLevel"]:
            return "gpt-2"
        case _:
            return None


def _object(shape: JsonObject, name: str) -> JsonObject:
    value = shape.get(name)
    return value if isinstance(value, dict) else {}

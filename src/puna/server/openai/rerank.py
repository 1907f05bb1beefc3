"""Ranking in the forms of Jina and Cohere, of TEI, and of vLLM's scores: their contracts, and objects. Pure."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, TypeAlias

from pydantic import Discriminator, Field, Tag

from puna.errors import InvalidRequest
from puna.server.contract.converted import Converted
from puna.server.contract.names import FieldNames
from puna.server.contract.options import read_keep_alive
from puna.server.contract.shapes import UNION, Honoured, JsonObject, JsonValue, Refused, Reported, Shape
from puna.server.openai.options import USER_MEANING, Extras, load_options
from puna.types import Ranking, RankRequest

MOST_DOCUMENTS = 10_000
"""Documents of one request."""

_Text = Annotated[str, Field(min_length=1)]


class RankDocument(Shape):
    text: Annotated[str, Honoured("Its text.")]
    image: Annotated[JsonValue, Refused("Rerankers here read text.")] = None


def _text_or_object(value: object) -> str | None:
    return "text" if isinstance(value, str) else "object" if isinstance(value, dict | RankDocument) else None


_Document: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[RankDocument, Tag("object")],
    Discriminator(_text_or_object, custom_error_type=UNION, custom_error_message="a string or an object with a text"),
]


class RerankBody(Extras):
    """POST /v1/rerank"""

    model: Annotated[str, Field(min_length=1), Honoured("A reranking model's Name, as `puna list` shows it.")]
    query: Annotated[_Text, Honoured("What is looked for.")]
    documents: Annotated[
        list[_Document],
        Field(min_length=1, max_length=MOST_DOCUMENTS),
        Honoured("Texts, or objects with a `text`. Each is ranked by itself."),
    ]
    top_n: Annotated[int | None, Field(ge=1), Honoured("So many of the best; absent: all.")] = None
    return_documents: Annotated[
        bool | None, Honoured("The documents come back with their ranks. Absent: only those that came as objects.")
    ] = None
    truncation: Annotated[
        bool | None, Honoured("Jina's: documents that are too long are cut. Absent: they are refused by their index.")
    ] = None
    max_tokens_per_doc: Annotated[
        int | None, Field(ge=1), Honoured("Cohere's: documents are cut to so many tokens. Absent: none is cut.")
    ] = None
    max_chunks_per_doc: Annotated[
        int | None, Refused("Documents are ranked whole, or cut (`max_tokens_per_doc`).", harmless=(1,))
    ] = None
    rank_fields: Annotated[
        JsonValue, Refused("Of documents that are objects, `text` is read.", harmless=(["text"], []))
    ] = None
    return_embeddings: Annotated[
        bool | None, Refused("Rerankers here give ranks; /v1/embeddings gives vectors.", harmless=(False,))
    ] = None
    priority: Annotated[int | None, Reported("Requests are served in order of arrival.", harmless=(0,))] = None
    user: Annotated[str | None, Reported(USER_MEANING)] = None


class TextsRankBody(Extras):
    """POST /rerank"""

    model: Annotated[
        str | None, Field(min_length=1), Honoured("May be absent when only one model is loaded or stored.")
    ] = None
    query: Annotated[_Text, Honoured("What is looked for.")]
    texts: Annotated[list[str], Field(min_length=1, max_length=MOST_DOCUMENTS), Honoured("Each is ranked by itself.")]
    raw_scores: Annotated[bool | None, Honoured("Log-odds instead of probabilities. Default false.")] = None
    return_text: Annotated[bool | None, Honoured("The texts come back with their ranks. Default false.")] = None
    truncate: Annotated[bool | None, Honoured("Texts that are too long are cut; else refused by their index.")] = None
    truncation_direction: Annotated[str | None, Refused("Texts are cut at their end.", harmless=("Right", "right"))] = (
        None
    )


_Texts: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[str], Field(min_length=1, max_length=MOST_DOCUMENTS), Tag("texts")],
    Discriminator(
        lambda value: "text" if isinstance(value, str) else "texts" if isinstance(value, list) else None,
        custom_error_type=UNION,
        custom_error_message="a string or an array of strings",
    ),
]


class ScoreBody(Extras):
    """POST /v1/score"""

    model: Annotated[str, Field(min_length=1), Honoured("A reranking model's Name, as `puna list` shows it.")]
    text_1: Annotated[_Texts, Honoured("A query, or as many as there are in `text_2`.")]
    text_2: Annotated[_Texts, Honoured("What is ranked for it: one text or many.")]
    truncate_prompt_tokens: Annotated[
        int | None, Refused("Ask /v1/rerank with `max_tokens_per_doc`.", harmless=(-1,))
    ] = None
    user: Annotated[str | None, Reported(USER_MEANING)] = None


# -------------------------------------------------------------------------------------------------- what they become


def to_rank(body: RerankBody) -> Converted[RankRequest]:
    documents = tuple(map(_text, body.documents))
    request = RankRequest(
        model=body.model,
        query=body.query,
        documents=documents,
        truncate=bool(body.truncation),
        most=body.max_tokens_per_doc,
    )
    return _converted(body, request, {})


def to_text_rank(body: TextsRankBody, model: str) -> Converted[RankRequest]:
    texts = tuple(body.texts)
    request = RankRequest(model=model, query=body.query, documents=texts, truncate=bool(body.truncate))
    return _converted(body, request, {"documents[]": "texts[]"})


def to_scores(body: ScoreBody) -> list[Converted[RankRequest]]:
    """One request a query: a query with all texts, or each with its own."""
    queries, texts = ([value] if isinstance(value, str) else value for value in (body.text_1, body.text_2))
    if len(queries) not in {1, len(texts)}:
        raise InvalidRequest(
            f"Invalid 'text_1': expected one text, or {len(texts)} as in 'text_2', but got {len(queries)}.",
            param="text_1",
        )
    pairs = (
        [(queries[0], tuple(texts))]
        if len(queries) == 1
        else [(q, (text,)) for q, text in zip(queries, texts, strict=True)]
    )
    names = {"query": "text_1", "documents[]": "text_2[]" if isinstance(body.text_2, list) else "text_2"}
    return [
        _converted(body, RankRequest(model=body.model, query=query, documents=documents), names)
        for query, documents in pairs
    ]


def _text(document: str | RankDocument) -> str:
    return document if isinstance(document, str) else document.text


def _converted(body: Extras, request: RankRequest, names: Mapping[str, str]) -> Converted[RankRequest]:
    """`names`: what the body calls the query and the documents, where it has words of its own."""
    asked = load_options(body, loading=True)
    request = replace(request, options=asked.options, keep_alive=read_keep_alive(body.keep_alive))
    return Converted(request, asked.ignored, FieldNames({**asked.names, **names}))


# ---------------------------------------------------------------------------------------------------------- objects


def relevance(log_odds: float) -> float:
    """From 0 to 1."""
    return 1 / (1 + math.exp(-log_odds)) if log_odds >= 0 else math.exp(log_odds) / (1 + math.exp(log_odds))


def _best(ranking: Ranking) -> list[int]:
    return sorted(range(len(ranking.log_odds)), key=lambda place: -ranking.log_odds[place])


def rerank_json(body: RerankBody, ranking: Ranking, id_: str) -> JsonObject:
    """The best first; what Jina's and what Cohere's clients read."""
    results: list[JsonValue] = []
    for place in _best(ranking)[: body.top_n]:
        result: JsonObject = {"index": place, "relevance_score": relevance(ranking.log_odds[place])}
        document = body.documents[place]
        shown = isinstance(document, RankDocument) if body.return_documents is None else body.return_documents
        if shown:
            result["document"] = {"text": _text(document)}
        results.append(result)
    return {
        "id": id_,
        "object": "list",
        "model": body.model,
        "results": results,
        "usage": _usage(ranking.prompt_tokens),
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 0},
            "tokens": {"input_tokens": ranking.prompt_tokens, "output_tokens": 0},
        },
    }


def texts_rank_json(body: TextsRankBody, ranking: Ranking) -> list[JsonValue]:
    """TEI's list, the best first."""
    shown: list[JsonValue] = []
    for place in _best(ranking):
        odds = ranking.log_odds[place]
        item: JsonObject = {"index": place, "score": odds if body.raw_scores else relevance(odds)}
        if body.return_text:
            item["text"] = body.texts[place]
        shown.append(item)
    return shown


def scores_json(body: ScoreBody, rankings: list[Ranking], id_: str) -> JsonObject:
    """vLLM's object, in the order of the request."""
    odds = [one for ranking in rankings for one in ranking.log_odds]
    data: list[JsonValue] = [
        {"index": place, "object": "score", "score": relevance(one)} for place, one in enumerate(odds)
    ]
    return {
        "id": id_,
        "object": "list",
        "created": int(time.time()),
        "model": body.model,
        "data": data,
        "usage": _usage(sum(ranking.prompt_tokens for ranking in rankings)),
    }


def _usage(tokens: int) -> JsonObject:
    return {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}

from __future__ import annotations

import pytest

from puna.server.contract.names import FieldNames

NAMES = FieldNames(
    {
        "output": "guided_json",
        "num_ctx": "options.num_ctx",
        "tools[].parameters": "functions[].parameters",
        "messages[].content[]": "messages[].images",
        "input": "prompt",
    }
)


@pytest.mark.parametrize(
    ("house", "request_"),
    [
        ("output", "guided_json"),
        ("output/properties/a[0].b", "guided_json/properties/a[0].b"),
        ("num_ctx", "options.num_ctx"),
        ("tools[12].parameters/properties/x", "functions[12].parameters/properties/x"),
        ("tools[12].name", "tools[12].name"),
        ("messages[3].content[1]", "messages[3].images"),
        ("messages[3].role", "messages[3].role"),
        ("input[2]", "prompt[2]"),
        ("outputs", "outputs"),
        ("", ""),
    ],
)
def test_a_path_of_the_house_is_the_requests(house: str, request_: str) -> None:
    assert NAMES.of(house) == request_


def test_a_place_of_its_own_wins() -> None:
    names = FieldNames({"messages[]": "items[]", "messages[1]": "previous"})
    assert [names.of("messages[0].content"), names.of("messages[1].content"), names.of("messages[12]")] == [
        "items[0].content",
        "previous.content",
        "items[12]",
    ]

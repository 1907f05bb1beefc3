"""A conversation's state."""

from __future__ import annotations

from dataclasses import replace

import pytest

from puna.cli.ask import Ask
from puna.cli.keyboard import is_open, unquoted
from puna.cli.session import Session, command
from puna.client.card import ModelCard
from puna.client.client import Client
from puna.client.models import Details
from puna.settings import Address

CARD = ModelCard("", "", "", "", "", Details(), ("completion",), {}, {}, (), ())


@pytest.fixture
def session() -> Session:
    return Session(Client(Address()), "m", CARD, Ask(model="m"), {"keep_alive": "5m"})


def test_a_system_message_without_an_answer_is_replaced(session: Session) -> None:
    session.set_system("one")
    session.set_system("two")
    session.add("user", "hi")
    session.set_system("three")
    assert session.messages == [
        {"role": "system", "content": "two"},
        {"role": "user", "content": "hi"},
        {"role": "system", "content": "three"},
    ]
    session.clear()
    assert session.messages == [{"role": "system", "content": "three"}]


async def test_settings_become_part_of_the_request(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (
        "/set parameter temperature 0.3",
        "/set parameter stop A B",
        "/set format json",
        "/set think",
        '/set system """Be brief."""',
    ):
        await command(session, line)
    assert session.request() == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}],
        "keep_alive": "5m",
        "format": "json",
        "think": True,
        "options": {"temperature": 0.3, "stop": ["A", "B"]},
    }
    out, err = capsys.readouterr()
    assert "Set parameter 'stop' to 'A, B'" in out
    assert "does not support thinking" in err
    await command(session, "/set noformat")
    assert "format" not in session.request()


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("/set parameter temperature hot", "Couldn't set parameter"),
        ("/set think loudly", "Unknown level 'loudly'"),
        ("/set wat", "Unknown command '/set wat'"),
        ("/show wat", "Unknown command '/show wat'"),
        ("/show license", "No license was specified for this model."),
        ("/show system", "No system message was specified for this model."),
        ("/wat", "Unknown command '/wat'. Type /? for help"),
        ("/load", "/load <modelname>"),
    ],
)
async def test_what_is_told(session: Session, capsys: pytest.CaptureFixture[str], line: str, text: str) -> None:
    await command(session, line)
    assert text in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "text"), [("/?", "/load <model>"), ("/help set", "/set parameter"), ("/set", "nothink")]
)
async def test_help_is_on_stderr(session: Session, capsys: pytest.CaptureFixture[str], line: str, text: str) -> None:
    await command(session, line)
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["hi"], "hi"),
        (['"""one', "", 'two"""'], "one\n\ntwo"),
        (['"""one line"""'], "one line"),
        (['"""', "x", '"""'], "\nx\n"),
        (['/set system """one', 'two"""'], '/set system """one\ntwo"""'),
        (['say """ aloud'], 'say """ aloud'),
    ],
)
def test_three_quotes_hold_lines_together(lines: list[str], message: str) -> None:
    for count in range(1, len(lines)):
        assert is_open("\n".join(lines[:count]))
    assert not is_open("\n".join(lines))
    assert unquoted("\n".join(lines)) == message


async def test_parameters_are_shown_one_line_a_value(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    stored = ['stop                           "<|end|>"', "top_k                          4"]
    session.card = replace(CARD, parameters="\n".join(stored))
    for line in ("/set parameter stop A B", "/set parameter temperature 0.3", "/show parameters"):
        await command(session, line)
    shown = capsys.readouterr().out.partition("Model defined parameters:\n")[2].splitlines()
    assert shown == [
        *stored,
        "",
        "User defined parameters:",
        'stop                           "A"',
        'stop                           "B"',
        "temperature                    0.3",
    ]

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import InvalidRequest
from puna.model.modelfile import Modelfile, decode_modelfile, parse_modelfile, render_modelfile
from puna.types import Message

WHOLE = '''# a comment
FROM ./base.gguf
from ./mmproj.gguf
  Parameter temperature 0.5
PARAMETER stop <|end|>
PARAMETER STOP "two words "
PARAMETER low_vram true
TEMPLATE """
{{ .Prompt }} # data
"""
SYSTEM You are "brief".
LICENSE """"""
LICENSE MIT
ADAPTER ./lora.gguf
MESSAGE user Hi
MESSAGE assistant """Hello
there"""
REQUIRES v0.14.0
'''


def test_a_whole_file() -> None:
    assert parse_modelfile(WHOLE) == Modelfile(
        from_=("./base.gguf", "./mmproj.gguf"),
        adapter="./lora.gguf",
        template="\n{{ .Prompt }} # data\n",
        system='You are "brief".',
        requires="0.14.0",
        parameters={"temperature": 0.5, "stop": ["<|end|>", "two words "]},
        obsolete=("low_vram",),
        licenses=("", "MIT"),
        messages=(Message.of("user", "Hi"), Message.of("assistant", "Hello\nthere")),
    )


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("plain  text  ", "plain  text"),
        ("\ttabbed", "tabbed"),
        ("'single'", "'single'"),
        ('"quoted "', "quoted "),
        ('"inner " quote"', 'inner " quote'),
        ('"two\nlines"', "two\nlines"),
        ('""', ""),
        ('""""""', ""),
        ('"""a "b" c"""', 'a "b" c'),
        ('"""a"""  ', "a"),
        ("a # b", "a # b"),
        ("no\u00a0break\u0007", "nobreak"),
    ],
)
def test_quoting(argument: str, value: str) -> None:
    assert parse_modelfile(f"FROM x\nSYSTEM {argument}\nLICENSE y").system == value
    assert parse_modelfile(f"FROM x\r\nSYSTEM {argument}").system == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no FROM line"),
        ("SYSTEM x", "no FROM line"),
        ("FROM x\nFORM y", r"\(line 2\): command must be one of \"from\", .*or \"requires\""),
        ("FROM", "unexpected EOF"),
        ("FROM \nSYSTEM x", "unexpected EOF"),
        ("FROM x\nFROM: y", r"\(line 2\): command"),
        ("FROM x\nMESSAGE tool hi", r"\(line 2\): message role must be one of"),
        ("FROM x\nMESSAGE user", "unexpected EOF"),
        ("FROM x\nPARAMETER", "unexpected EOF"),
        ("FROM x\nPARAMETER num_ctx", "unexpected EOF"),
        ("FROM x\nPARAMETER num_ctx many", r"invalid int value \[many\]"),
        ("FROM x\nPARAMETER tfs 1", "unknown parameter 'tfs'"),
        ('FROM x\nSYSTEM """abc\nLICENSE x', "unexpected EOF"),
        ('FROM x\nSYSTEM "abc\nLICENSE x', "unexpected EOF"),
        ("FROM x\nREQUIRES new", "requires must be a valid semver"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        parse_modelfile(text)


def test_byte_order_marks() -> None:
    assert decode_modelfile(b"FROM \xc3\xa9") == "FROM é"
    assert decode_modelfile(codecs.BOM_UTF8 + b"FROM x") == "FROM x"
    assert decode_modelfile(codecs.BOM_UTF16_LE + "FROM é".encode("utf-16-le")) == "FROM é"
    assert decode_modelfile(codecs.BOM_UTF16_BE + "FROM é".encode("utf-16-be")) == "FROM é"
    with pytest.raises(InvalidRequest, match="not text"):
        decode_modelfile(b"FROM \xff\xfe")


_TEXT = st.text(st.sampled_from("ab \n\t\"'#{}é"), max_size=12).filter(lambda text: '"""' not in text)


@given(_TEXT, _TEXT, st.lists(_TEXT, max_size=3))
def test_what_is_printed_parses_to_the_same(system: str, message: str, stops: list[str]) -> None:
    modelfile = Modelfile(
        from_=("base",),
        system=system,
        parameters={"stop": [stop for stop in stops if stop], "num_ctx": 5} if any(stops) else {"use_mmap": True},
        messages=(Message.of("user", message),),
    )
    assert parse_modelfile(render_modelfile(modelfile, comment="# c\n")) == modelfile


def test_long_files_are_read_line_by_line() -> None:
    """Each line looked to the end of the file, and a text's began at its first: minutes, of a file of a megabyte."""
    count = 40_000
    text = "FROM x\n" + "".join(f"MESSAGE user {number}\nPARAMETER stop {number}\n" for number in range(count))
    quoted = '"\n' * count
    found = parse_modelfile(f'{text}SYSTEM """{quoted}"""\n')
    assert [message.text for message in found.messages] == [str(number) for number in range(count)]
    assert found.parameters["stop"] == [str(number) for number in range(count)]
    assert found.system == quoted

from pathlib import Path

import pytest

from fakes.gguf_files import Int32, Tensor, Uint16, write_gguf, write_shards, write_tiny_llama
from puna.errors import ModelFileError
from puna.model.gguf import Header, read_header
from puna.model.shards import ShardName, filename, place, read_whole, together


def test_names() -> None:
    name = ShardName.parse("Big-Q4_K_M-00002-of-00003.gguf")
    assert name == ShardName("Big-Q4_K_M", 2, 3)
    assert name.all == tuple(filename("Big-Q4_K_M", number, 3) for number in (1, 2, 3))
    for other in ("m.gguf", "m-00001-of-00001.gguf", "m-00004-of-00003.gguf", "m-00000-of-00003.gguf", "m-1-of-3.gguf"):
        assert ShardName.parse(other) is None


def shards(tmp_path: Path) -> list[Path]:
    write_tiny_llama(tmp_path / "tiny.gguf", shards=3)
    return [tmp_path / name for name in ShardName("tiny", 1, 3).all]


def test_the_header_of_all_is_that_of_one_file(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    one, many = read_header(write_tiny_llama(tmp_path / "one.gguf")), read_whole(paths)
    assert [(tensor.name, tensor.shape) for tensor in many.tensors] == [(t.name, t.shape) for t in one.tensors]
    assert {tensor.part for tensor in many.tensors} == {0, 1, 2}
    assert many.special_tokens == one.special_tokens
    for tensor in many.tensors:
        assert tensor.offset + tensor.size <= paths[tensor.part].stat().st_size
    assert place(read_header(paths[2])) == (2, 3)
    assert place(one) is None


def headers(paths: list[Path]) -> list[tuple[str, Header]]:
    return [(path.name, read_header(path)) for path in paths]


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    found = headers(shards(tmp_path))
    whole = ("whole", read_header(write_tiny_llama(tmp_path / "whole.gguf")))
    write_tiny_llama(tmp_path / "two.gguf", shards=2)
    two = headers([tmp_path / name for name in ShardName("two", 1, 2).all])
    for given, words in [
        ([found[0], found[2]], "in 3 files, of which 1 are missing: x-00002-of-00003.gguf"),
        ([found[1]], "in 3 files, of which 2 are missing: x-00001-of-00003.gguf, x-00003-of-00003.gguf"),
        ([found[0], found[1], found[1]], "x-00002-of-00003.gguf is there twice"),
        ([found[0], whole], "one of them is no shard"),
        ([found[0], two[1]], "shards of different models: of 2 and of 3"),
    ]:
        with pytest.raises(ModelFileError, match=words):
            together(given, "x")


@pytest.mark.parametrize(("number", "count"), [(3, 3), (9, 3), (0, 5000)])
def test_a_place_that_cannot_be(tmp_path: Path, number: int, count: int) -> None:
    metadata = {"split.no": Uint16(number), "split.count": Uint16(count)}
    with pytest.raises(ModelFileError, match="says that it is shard"):
        place(read_header(write_gguf(tmp_path / "m.gguf", metadata=metadata)))


def test_a_tensor_in_two_files_or_in_none(tmp_path: Path) -> None:
    twice = write_shards(tmp_path / "a.gguf", 2, [Tensor("t", (8,)), Tensor("t", (8,))], metadata={})
    with pytest.raises(ModelFileError, match="'t' is in two"):
        read_whole([twice, twice.with_name("a-00002-of-00002.gguf")])
    few = write_shards(tmp_path / "b.gguf", 2, [Tensor("t", (8,)), Tensor("u", (8,))], metadata={})
    pairs = {"split.no": Uint16(1), "split.count": Uint16(2), "split.tensors.count": Int32(2)}
    empty = write_gguf(tmp_path / "empty.gguf", metadata=pairs)
    with pytest.raises(ModelFileError, match="hold 1 tensors, and the first of them names 2"):
        read_whole([few, empty])

import json

import pytest

from puna.errors import ModelFileError
from puna.model.digest import Digest
from puna.model.manifest import (
    CONFIG_TYPE,
    MODEL_TYPE,
    SYSTEM_TYPE,
    Config,
    Layer,
    Manifest,
    parse_config,
    parse_manifest,
)

LAYER = Layer(MODEL_TYPE, Digest("ab" * 32), 7, from_="m:latest")
CONFIG = Layer(CONFIG_TYPE, Digest("cd" * 32), 3)


def test_manifest_has_ollamas_bytes() -> None:
    """The order of keys, the spacing and the newline that Ollama's own creator writes."""
    config = f'{{"mediaType":"{CONFIG_TYPE}","digest":"sha256:{"cd" * 32}","size":3}}'
    layer = f'{{"mediaType":"{MODEL_TYPE}","digest":"sha256:{"ab" * 32}","size":7,"from":"m:latest"}}'
    head = '{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json"'
    assert Manifest(CONFIG, (LAYER,)).dump().decode() == f'{head},"config":{config},"layers":[{layer}]}}\n'


def test_round_trip_and_selection() -> None:
    manifest = Manifest(CONFIG, (LAYER, Layer(SYSTEM_TYPE, Digest("ef" * 32), 5, name="x")))
    assert parse_manifest(manifest.dump()) == manifest
    assert manifest.of_type(MODEL_TYPE) == (LAYER,)
    assert manifest.size == 15


def test_unknown_keys_and_types_pass() -> None:
    shape = json.loads(Manifest(CONFIG, (LAYER,)).dump()) | {"annotations": {"a": 1}}
    shape["layers"].append({"mediaType": "x/y", "digest": f"sha256-{'12' * 32}", "size": 1, "urls": []})
    assert [layer.media_type for layer in parse_manifest(json.dumps(shape).encode()).layers] == [MODEL_TYPE, "x/y"]


GOOD = json.loads(Manifest(CONFIG, (LAYER,)).dump())


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"[]", b"null", b"{", b"{}", b"\xff", b"[" * 100_000),
        json.dumps(GOOD | {"layers": {}}).encode(),
        json.dumps(GOOD | {"layers": [1]}).encode(),
        json.dumps(GOOD | {"config": GOOD["config"] | {"size": -1}}).encode(),
        json.dumps(GOOD | {"config": GOOD["config"] | {"size": True}}).encode(),
        json.dumps(GOOD | {"config": GOOD["config"] | {"digest": "sha256:../../x"}}).encode(),
        json.dumps(GOOD | {"mediaType": 1}).encode(),
        json.dumps(GOOD | {"x": "y" * 5_000_000}).encode(),
    ],
    ids=lambda data: repr(data[:30]),
)
def test_damaged(data: bytes) -> None:
    with pytest.raises(ModelFileError, match="damaged"):
        parse_manifest(data)


def test_config_round_trip() -> None:
    config = Config(
        model_family="llama", model_families=("llama",), model_type="134.52M", file_type="Q4_1", requires="1.2.3"
    )
    assert parse_config(config.dump()) == config
    assert json.loads(config.dump()) | {"architecture": "amd64", "os": "linux"} == json.loads(config.dump())


def test_config_of_other_creators() -> None:
    assert parse_config(b'{"model_format":"","model_families":null,"rootfs":{"type":"layers"}}') == Config()


@pytest.mark.parametrize("data", [b'{"model_families":[1]}', b'{"context_length":-1}', b'{"parser":{}}'])
def test_damaged_config(data: bytes) -> None:
    with pytest.raises(ModelFileError):
        parse_config(data)

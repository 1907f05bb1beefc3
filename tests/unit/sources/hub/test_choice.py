import pytest

from puna.errors import SourceNotFound, Unsupported
from puna.model.digest import Digest
from puna.sources.hub.choice import all_weights, choose, quantisations
from puna.sources.hub.repository import RepoFile

SMALL = ["README.md", "config.json", "m-IQ2_M.gguf", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-f16.gguf"]


def files(*paths: str) -> list[RepoFile]:
    return [RepoFile(path, 10, Digest.of(path.encode())) for path in paths]


def chosen(paths: list[str], tag: str = "latest") -> list[str]:
    return [file.path for file in choose(files(*paths), tag, "hf.co/o/r").files]


@pytest.mark.parametrize(
    ("tag", "path"),
    [
        ("latest", "m-Q4_K_M.gguf"),
        ("Latest", "m-Q4_K_M.gguf"),
        ("q8_0", "m-Q8_0.gguf"),
        ("F16", "m-f16.gguf"),
        ("FP16", "m-f16.gguf"),
        ("m-IQ2_M.gguf", "m-IQ2_M.gguf"),
        ("M-iq2_m", "m-IQ2_M.gguf"),
    ],
)
def test_a_tag_is_a_quantisation_or_a_files_name(tag: str, path: str) -> None:
    assert chosen(SMALL, tag) == [path]


def test_without_the_usual_one_the_first_in_order(tmp_path: object) -> None:
    assert chosen(["m-Q8_0.gguf", "m-Q2_K.gguf"]) == ["m-Q8_0.gguf"]
    assert chosen(["m-Q2_K.gguf", "m-bf16.gguf", "m-XQ9.gguf"]) == ["m-Q2_K.gguf"]
    assert chosen(["only.gguf"]) == ["only.gguf"]
    assert chosen(["m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf"]) == ["m-Q4_K_M.gguf"]
    assert chosen(["m-UD-Q4_K_XL.gguf", "m-Q8_0.gguf"], "q4_k_xl") == ["m-UD-Q4_K_XL.gguf"]


def test_shards_come_in_order_and_whole() -> None:
    big = [f"BF16/Big-{number:05}-of-00003.gguf" for number in (3, 1, 2)]
    assert chosen([*big, "Big-Q6_K.gguf"], "bf16") == sorted(big)
    with pytest.raises(Unsupported, match="lacks Big-00002-of-00003.gguf of 3 shards"):
        chosen(big[:2], "bf16")


def test_shards_that_are_missing_keep_nobody_from_others() -> None:
    torn = ["Big-Q4_K_M-00002-of-00002.gguf", "Small-Q8_0.gguf", "Small-Q6_K.gguf"]
    assert chosen(torn) == ["Small-Q6_K.gguf"]
    assert chosen(torn, "q8_0") == ["Small-Q8_0.gguf"]
    assert chosen([*torn, "Whole-Q4_K_M.gguf"], "Q4_K_M") == ["Whole-Q4_K_M.gguf"]
    for paths, tag in ((torn, "Q4_K_M"), (torn[:1], "latest")):
        with pytest.raises(Unsupported, match="lacks Big-Q4_K_M-00001-of-00002.gguf of 2 shards"):
            chosen(paths, tag)


def test_a_projector_comes_along_in_half_precision() -> None:
    several = ["m-Q4_K_M.gguf", "mmproj-m-f32.gguf", "mmproj-m-Q8_0.gguf", "mmproj-m-BF16.gguf"]
    assert chosen(several) == ["m-Q4_K_M.gguf", "mmproj-m-BF16.gguf"]
    assert chosen([*several, "mmproj-m-F16.gguf"])[1] == "mmproj-m-F16.gguf"
    assert chosen(["a/m-Q4_0.gguf", "a/mmproj-Q8_0.gguf", "mmproj-F16.gguf"])[1] == "a/mmproj-Q8_0.gguf"


def test_what_is_not_there_is_answered_with_what_is() -> None:
    with pytest.raises(SourceNotFound) as caught:
        chosen(SMALL, "Q5_K_M")
    assert caught.value.message == "hf.co/o/r has no quantisation 'Q5_K_M'; it has Q4_K_M, Q8_0, IQ2_M, F16"
    with pytest.raises(SourceNotFound, match="has no GGUF files \\(it has safetensors"):
        chosen(["model.safetensors", "config.json"])
    with pytest.raises(Unsupported, match="may mean 2 models \\(a-Q4_0.gguf, b-Q4_0.gguf\\); name a file"):
        chosen(["a-Q4_0.gguf", "b-Q4_0.gguf"], "q4_0")
    with pytest.raises(Unsupported, match="without a tag it may mean 2 models .*, as in 'hf.co/o/r:a-Q4_0.gguf'"):
        chosen(["a-Q4_0.gguf", "b-Q4_0.gguf"])
    assert chosen(["a-Q4_0.gguf", "b-Q4_0.gguf"], "b-Q4_0.gguf") == ["b-Q4_0.gguf"]


def test_labels() -> None:
    names = {
        "Qwen2.5-0.5B-Instruct-Q4_K_M.gguf": "Q4_K_M",
        "llama.q5_1.gguf": "Q5_1",
        "gpt-oss-20b-mxfp4.gguf": "MXFP4",
        "x-UD-IQ1_S.gguf": "UD-IQ1_S",
        "imatrix_Q4.gguf": None,
        "Q8-model.gguf": "Q8",
        "Odd-Q4_K_M_fixed.gguf": "Q4_K_M",
        "Odd_Q5_K_M_v2-of-mine.gguf": "Q5_K_M",
        "odd.i1-IQ3_XXS_imat.gguf": "IQ3_XXS",
        "Odd-Q4_0_4_4.gguf": "Q4_0_4_4",
        "Odd-Q6_K_L.gguf": "Q6_K_L",
        "odd-iq4_kss.gguf": "IQ4_KSS",
        "odd-Q8_0_R8.GGUF": "Q8_0_R8",
        "Odd-UD-Q8_K_XL.gguf": "UD-Q8_K_XL",
        "Odd-2507-MXFP4_MOE.gguf": "MXFP4_MOE",
        "model.gguf": "model.gguf",
    }
    for name, label in names.items():
        assert quantisations(all_weights(files(name))) == ([] if label is None else [label])
    assert all_weights([RepoFile("m-Q4_0.gguf", 1)]) == [], "a file whose digest nobody tells"

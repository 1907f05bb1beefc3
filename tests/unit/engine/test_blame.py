"""What llama.cpp said when it loaded no model: a file that it can make nothing of is no fault of the server."""

import pytest

from puna.engine.llama.blame import not_loaded
from puna.errors import LoadFailed, ModelFileError

LOAD = "exited with 1: llama_model_load: error loading model: "


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (f"{LOAD}unknown tokenizer: 'x'", "unknown tokenizer: 'x'"),
        (f"{LOAD}key general.file_type has wrong type f32", "key general.file_type has wrong type f32"),
        ("exited with 1: x: failed to apply lora adapter: expect a type", "expect a type"),
        ("exited with 1: gguf_init_from_reader: tensor 'v' has offset 8, expected 4", "tensor 'v' has offset 8"),
        ("exited with 1: mtmd_get_memory_usage: error: Failed to load CLIP model from a", "Failed to load CLIP model"),
        ("exited with 1: mtmd_init: error: mismatch between text model (n_embd = 3)", "mismatch between text model"),
        ("killed by SIGABRT: ggml.c:3355: GGML_ASSERT(ggml_can_mul_mat(a, b)) failed", "ggml.c:3355: GGML_ASSERT"),
        ("killed by SIGABRT: llama-model.cpp:1448: GGML_ASSERT(x) failed", "llama-model.cpp:1448: GGML_ASSERT(x)"),
    ],
)
def test_of_the_file(cause: str, told: str) -> None:
    error = not_loaded(cause)
    assert isinstance(error, ModelFileError)
    assert error.message.startswith(f"the model could not be loaded: llama.cpp says of its file: {told}")


@pytest.mark.parametrize(
    "cause",
    [
        f"{LOAD}unable to allocate CPU buffer",
        f"{LOAD}failed to open x.gguf: Permission denied",
        f"{LOAD}mmap failed: Cannot allocate memory",
        "killed by SIGKILL (out of memory?)",
        "killed by SIGABRT: ggml-backend.cpp:10: GGML_ASSERT(buffer) failed",
        "killed by SIGSEGV",
        "exited with 127: no such library",
    ],
)
def test_of_the_machine(cause: str) -> None:
    error = not_loaded(cause)
    assert isinstance(error, LoadFailed)
    assert error.message == f"the model could not be loaded: {cause}"

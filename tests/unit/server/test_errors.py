from __future__ import annotations

import errno
import threading

import pytest

from puna.errors import LoadFailed, ModelNotFound, Overloaded, PunaError, RunnerDied, Unauthorized
from puna.server.errors import error_body, error_response, internal_error, speaks_openai


@pytest.mark.parametrize("path", ["/v1", "/v1/x", "/tokenize", "/detokenize"])
def test_paths_of_openai(path):
    assert speaks_openai(path)
    assert error_body(ModelNotFound("x"), path) == {
        "error": {
            "message": "model 'x' not found, try pulling it first: puna pull x",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


@pytest.mark.parametrize("path", ["/", "/api/chat", "/v10", "/health"])
def test_other_paths(path):
    assert error_body(PunaError("oh"), path) == {"error": "oh"}


def test_whether_to_try_again():
    def headers(error: PunaError) -> dict[str, str]:
        return dict(error_response(error, "/v1").headers)

    busy = headers(Overloaded("full", retry_after=2.2))
    assert (busy["retry-after"], busy["x-should-retry"]) == ("3", "true")
    assert headers(RunnerDied("x"))["x-should-retry"] == "true"
    assert headers(LoadFailed("x"))["x-should-retry"] == "false"
    assert "x-should-retry" not in headers(ModelNotFound("x"))
    assert headers(Unauthorized("x"))["www-authenticate"].startswith("Bearer")


def test_a_fault_of_ours_tells_only_its_id():
    assert internal_error("req_1", ValueError("secret")).message.count("req_1") == 1
    assert "secret" not in internal_error("req_1", ValueError("secret")).message


def no_thread() -> RuntimeError:
    """What Python says where the system refuses a thread."""
    threading.stack_size(1 << 46)  # bytes: more than there are addresses
    try:
        threading.Thread(target=bool).start()
    except RuntimeError as error:
        return error
    finally:
        threading.stack_size(0)
    raise AssertionError("a thread was started")


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "x"), BlockingIOError(errno.EAGAIN, "x"), MemoryError(), no_thread()]
)
def test_what_the_system_does_not_give_is_worth_another_try(error):
    told = internal_error("req_1", error)
    assert isinstance(told, Overloaded)
    assert "no more" in told.message

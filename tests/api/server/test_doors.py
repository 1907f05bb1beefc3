"""Who may come in: origins, hosts, keys, sizes."""

from __future__ import annotations

import socket

import pytest

from puna.server.contract.report import HEADERS

EVIL = {"origin": "http://evil.example"}


def test_a_page_from_elsewhere_is_refused_in_words(server):
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("OPTIONS", "/v1/models")):
        answer = server.request(method, path, headers=EVIL)
        assert answer.status == 403
        assert "PUNA_ORIGINS" in answer.error["message"]
        assert "access-control-allow-origin" not in answer.headers
    assert "not allowed" in server.get("/api/tags", headers=EVIL).json["error"]


@pytest.mark.parametrize(
    "origin",
    ["http://localhost", "http://localhost:3000", "https://127.0.0.1:8443", "http://0.0.0.0", "http://[::1]:80",
     "app://obsidian.md", "tauri://localhost", "vscode-webview://abc"],
)  # fmt: skip
def test_pages_of_this_machine_are_welcome(server, origin):
    answer = server.get("/v1/models", headers={"origin": origin})
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["vary"] == "Origin"
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", *HEADERS} <= set(exposed)


@pytest.mark.parametrize(
    "origin",
    ["null", "http://localhost:evil.example", "http://localhost.evil.example", "chrome-extension://abc", "https://"],
)
def test_look_alikes_are_not(server, origin):
    assert server.get("/v1/models", headers={"origin": origin}).status == 403


def test_the_same_origin_needs_no_leave(server):
    answer = server.get("/v1/models", headers={"origin": server.url})
    assert answer.status == 200


def test_preflight(server):
    answer = server.request(
        "OPTIONS",
        "/v1/chat/completions",
        headers={"origin": "http://localhost:3000", "access-control-request-method": "POST"},
    )
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "X-Stainless-Retry-Count" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-max-age"] == "43200"
    assert "Access-Control-Request-Method" in answer.headers["vary"]


def test_errors_can_be_read_by_welcome_pages(server):
    answer = server.get("/v1/x", headers={"origin": "http://localhost"})
    assert answer.status == 404
    assert answer.headers["access-control-allow-origin"] == "http://localhost"


def test_origins_of_the_operator(serving):
    with serving(origins=("https://app.example", "chrome-extension://*")) as own:
        for origin in ("https://app.example", "chrome-extension://abc", "http://localhost"):
            assert own.get("/health", headers={"origin": origin}).status == 200
        assert own.get("/health", headers=EVIL).status == 403
    with serving(origins=("*",)) as own:
        answer = own.get("/health", headers=EVIL)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "*")
        assert "vary" not in answer.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:1", 200),
        ("[::1]", 200),
        ("192.168.1.2", 200),
        ("my.localhost:80", 200),
        ("host.docker.internal", 200),
        (socket.gethostname(), 200),
        ("example.com", 403),
        ("evil.local.example.com", 403),
        ("8.8.8.8", 403),
        ("host.docker.internal.evil.com", 403),
        ("[", 403),
    ],
)
def test_hosts(server, host, status):
    answer = server.get("/v1/models", headers={"host": host})
    assert answer.status == status
    if status == 403:
        assert answer.error["code"] == "forbidden"


def test_keys(serving):
    with serving(api_keys=("first", "sécond")) as own:
        bare = own.get("/v1/models")
        assert (bare.status, bare.error["code"]) == (401, "invalid_api_key")
        assert bare.headers["www-authenticate"].startswith("Bearer")
        assert own.get("/v1/models", headers={"authorization": "Bearer nope"}).status == 401
        assert own.get("/v1/models", headers={"authorization": "Basic first"}).status == 401
        assert own.get("/v1/models", headers={"authorization": "Bearer first"}).status == 200
        assert own.get("/v1/models", headers={"x-api-key": "first"}).status == 200
        assert isinstance(own.get("/api/tags").json["error"], str)
        assert own.get("/health").status == own.get("/").status == 200
        preflight = own.request("OPTIONS", "/v1/models", headers={"origin": "http://localhost"})
        assert preflight.status == 204


def test_without_keys_any_key_is_fine(server):
    assert server.get("/v1/models", headers={"authorization": "Bearer whatever"}).status == 200


def test_bodies_over_the_limit(serving):
    with serving(max_body=1000) as own:
        answer = own.chat("x" * 2000)
        assert (answer.status, answer.error["code"]) == (413, "request_too_large")
        assert "PUNA_MAX_BODY" in answer.error["message"]
        assert own.chat("x").status == 200

        def chunks():
            for _ in range(10):
                yield b"x" * 500

        assert own.request("POST", "/api/chat", chunked=chunks()).status == 413


# -------------------------------------------------------------------------------------------- what browsers may ask


def test_a_preflight_may_ask_for_any_header(server):
    asked = {
        "origin": "http://localhost:3000",
        "access-control-request-method": "POST",
        "access-control-request-headers": "traceparent,x-title, X-Sentry-Trace,authorization, no header,",
        "access-control-request-private-network": "true",
    }
    answer = server.request("OPTIONS", "/v1/chat/completions", headers=asked)
    assert answer.status == 204
    allowed = {name.lower() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert {"traceparent", "x-title", "x-sentry-trace", "authorization", "content-type"} <= allowed
    assert "no header" not in allowed
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert server.request("OPTIONS", "/v1/chat/completions", headers=asked | EVIL).status == 403


@pytest.mark.parametrize("path", ["/api/tags", "/v1/models", "/api/delete", "/v1//models/"])
def test_a_page_from_elsewhere_is_refused_without_an_origin_too(server, path):
    for mode in ("no-cors", "navigate", "cors"):
        headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": mode}
        assert server.get(path, headers=headers).status == 403
        assert server.post(path, b"{}", headers=headers).status == 403


def test_what_is_no_page_from_elsewhere_is_served(server, serving):
    for site in ("same-origin", "same-site", "none"):
        assert server.get("/v1/models", headers={"sec-fetch-site": site}).status == 200
    for path in ("/", "/health"):
        assert server.get(path, headers={"sec-fetch-site": "cross-site"}).status == 200
    welcome = {"sec-fetch-site": "cross-site", "origin": "vscode-webview://abc"}
    assert server.get("/v1/models", headers=welcome).status == 200
    with serving(origins=("*",)) as own:
        assert own.get("/v1/models", headers={"sec-fetch-site": "cross-site"}).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.com@localhost", 403),
        ("localhost@evil.com", 403),
        ("evil.com:80@localhost:11434", 403),
        ("localhost.evil.com", 403),
        ("localhost:evil.com", 403),
        ("localhost/evil.com", 403),
        ("localhost:80:80", 403),
        ("localhost evil.com", 403),
        ("[::1].evil.com", 403),
        ("evil.com#localhost", 403),
        ("evil.com\\localhost", 403),
        ("2130706433", 403),
        ("localhost.", 200),
        ("LOCALHOST:11434", 200),
        ("[::1]:11434", 200),
        ("127.0.0.1.:11434", 200),
        ("[0:0:0:0:0:0:0:1]", 200),
        ("", 200),
    ],
)
def test_hosts_are_read_strictly(server, host, status):
    assert server.get("/api/version", headers={"host": host}).status == status


# ------------------------------------------------------------------------------------------------------------ paths


@pytest.mark.parametrize("path", ["/v1/models/", "//v1/models", "/v1//models", "//v1///models//", "/v1/models%2F"])
def test_slashes_too_many(server, path):
    answer = server.get(path)
    assert (answer.status, answer.json["object"]) == (200, "list")


def test_slashes_too_many_in_other_places(server):
    assert server.post("//v1/chat/completions/", {"model": "tiny", "messages": []}).error["param"] == "messages"
    assert server.get("/v1/models/tiny/").json["id"] == "tiny"
    assert server.get("//api/version").json["version"]
    assert server.get("//").status == 200
    answer = server.get("//v1/nothing/")
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")


# ------------------------------------------------------------------------------------------------------------- keys


def test_guesses_at_keys_are_braked_and_right_keys_are_not(serving):
    with serving(api_keys=("right", "schlüssel")) as own:
        for _ in range(10):
            assert own.get("/v1/models", headers={"authorization": "Bearer wrong"}).status == 401
        braked = own.get("/v1/models", headers={"authorization": "Bearer wrong"})
        assert (braked.status, braked.error["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(braked.headers["retry-after"]) <= 60
        assert own.get("/v1/models", headers={"authorization": "Bearer right"}).status == 200
        assert own.get("/v1/models", headers={"x-api-key": "schlüssel".encode()}).status == 200
        assert own.get("/v1/models", headers={"x-api-key": "schlüssel".encode("latin-1")}).status == 200
        assert own.get("/v1/models").status == 401
        assert own.get("/health").status == 200

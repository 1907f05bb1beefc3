"""Hostile templates through the server's doors: a refusal that names the template, while others are served."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

SLOW = "{{ range $i := 10000 }}{{ range $j := 10000 }}{{ end }}{{ end }}{{ .Prompt }}"
TEMPLATES = {
    "slow": SLOW,
    "wide": '{{ range $i := 1000 }}{{ printf "%3000000d" 1 }}{{ end }}{{ .Prompt }}',
    "long": '{{ printf "%3000000d" 1 }}{{ .Prompt }}',
    "deep": "{% if 1 %}" * 20_000 + "{{ messages }}" + "{% endif %}" * 20_000,
    "minus": "{% if 1 %}{% endif %}{{ messages[0].content }}{{ " + "-" * 20_000 + "1 }}",
    "format": "{% if 1 %}{% endif %}{{ messages[0].content }}{{ '%300000000d'|format(1) }}",
    "ranges": "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}{{ messages[0].content }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_callers_template_is_refused(server, name):
    """It is run once and not tried. What it writes within its bounds is a prompt like any other."""
    body = {"model": "tiny", "template": TEMPLATES[name], "prompt": "Hi"}
    answer = server.post("/api/generate", json.dumps(body).encode())
    assert answer.status == 400
    assert ("maximum context length" if name == "long" else "template error") in json.loads(answer.body)["error"]


@pytest.mark.parametrize("name", ["slow", "wide"])
def test_a_models_template_is_refused_when_it_is_made(server, name):
    body = {"model": f"hostile-{name}", "from": "tiny", "template": TEMPLATES[name], "stream": False}
    answer = server.post("/api/create", json.dumps(body).encode())
    assert answer.status == 400
    assert "template" in json.loads(answer.body)["error"]


def test_others_are_answered_meanwhile(server):
    """Several at once, each another template: they wait for each other, and nobody waits for them."""
    bodies = [
        json.dumps({"model": "tiny", "template": f"{number}{SLOW}", "prompt": "Hi"}).encode() for number in range(2)
    ]
    good = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "stream": False}).encode()
    assert server.post("/api/chat", good).status == 200
    with ThreadPoolExecutor(2) as clients:
        hostile = [clients.submit(server.post, "/api/generate", body) for body in bodies]
        served = 0
        while not all(one.done() for one in hostile):
            assert server.post("/api/chat", good).status == 200
            served += 1
    assert [one.result().status for one in hostile] == [400] * 2
    assert served > 2

"""Templates that would end a server, hold it or fill its memory: each ends at a refusal, and the next one is run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from fakes.gguf_files import CHATML
from puna.errors import InvalidRequest, ModelFileError, Overloaded, ServerStopping, TemplateTooCostly
from puna.template import cage as cage_module
from puna.template.cage import Cage
from puna.template.cell import ROOM
from puna.template.gotemplate import GoTemplate
from puna.template.jinja import JinjaTemplate
from puna.template.languages import TemplateKey
from puna.types import Message, Tool

USER = Message.of("user", "Hi")
GOOD = TemplateKey("jinja", CHATML)

JINJA = {
    "minus": "{{ " + "-" * 20_000 + "1 }}",
    "not": "{{ " + "not " * 50_000 + "1 }}",
    "parentheses": "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
    "lists": "{{ " + "[" * 100_000 + "]" * 100_000 + " }}",
    "maps": "{{ " + "{'a':" * 100_000 + "1" + "}" * 100_000 + " }}",
    "filters": "{{ 1" + "|string" * 200_000 + " }}",
    "attributes": "{{ messages" + ".a" * 200_000 + " }}",
    "ifs": "{% if 1 %}" * 50_000 + "{% endif %}" * 50_000,
    "loops": "{% for a in 'ab' %}" * 1_000 + "{% endfor %}" * 1_000,
    "width": "{{ '%300000000d'|format(1) }}",
    "indent": "{{ ('a\n' * 1000)|indent(100000000) }}",
    "tojson": "{{ [[[[1]]]]|tojson(indent=300000000) }}",
    "separators": "{{ [1, 2, 3]|tojson(separators=['x' * 300000000, ':']) }}",
    "product": "{{ 'x' * 3000000000 }}",
    "doubled": "{% set n = namespace(a='x' * 1000) %}{% for i in range(40) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
    "lists doubled": "{% set n = namespace(a=[1] * 99) %}{% for i in range(40) %}{% set n.a = n.a + n.a %}{% endfor %}",
    "replaced": "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}",
    "joined": "{{ range(99999)|join('x' * 100000) }}",
    "ranges": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "self": "{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('x' * 1000) }}",
    "center": "{{ 'a'|center(3000000000) }}",
    "date": "{{ strftime_now('%c' * 10000000) }}",
    "sorted": "{{ ((range(99999)|list) * 100)|sort|length }}",
    "split": "{{ ('a,' * 30000000).split(',')|length }}",
    "error": "{{ raise_exception('x' * 300000000) }}",
}  # fmt: skip
GO = {
    "range": "{{ range $i := 1900000 }}{{ .Prompt }}{{ end }}",
    "ranges": "{{ range $i := 10000 }}{{ range $j := 10000 }}{{ end }}{{ end }}{{ .Prompt }}",
    "width": '{{ printf "%300000000d" 1 }}{{ .Prompt }}',
    "widths": '{{ range $i := 1000 }}{{ printf "%3000000d" 1 }}{{ end }}{{ .Prompt }}',
    "precision": '{{ printf "%.300000000f" 1.0 }}{{ .Prompt }}',
    "parentheses": "{{ " + "(" * 50_000 + ".Prompt" + ")" * 50_000 + " }}",
    "ifs": "{{ if 1 }}" * 10_000 + "{{ .Prompt }}" + "{{ end }}" * 10_000,
    "recursion": '{{ define "f" }}{{ template "f" . }}{{ template "f" . }}{{ end }}{{ template "f" . }}{{ .Prompt }}',
    "doubled": "{{ $a := .Prompt }}{{ range $i := 60 }}{{ $a = print $a $a $a }}{{ end }}{{ $a }}",
    "quoted": '{{ $a := "\\"" }}{{ range $i := 40 }}{{ $a = printf "%q" $a }}{{ end }}{{ $a }}{{ .Prompt }}',
    "pipes": "{{ .Prompt" + " | print" * 20_000 + " }}",
}  # fmt: skip
HOSTILE = [
    *((TemplateKey("jinja", source), f"jinja {name}") for name, source in JINJA.items()),
    *((TemplateKey("go", source), f"go {name}") for name, source in GO.items()),
]


@pytest.fixture(scope="module")
def cage() -> Iterator[Cage]:
    with Cage() as cage:
        yield cage


def cells() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "puna.template.cell" in child.cmdline()]


def used(cage: Cage, key: TemplateKey) -> str:
    """What became of it: as much of its prompt as says that there is one, or the refusal."""
    try:
        return cage.open(key).render([USER], tools=[Tool("f", "g")])[:100]
    except (InvalidRequest, ModelFileError) as error:
        return error.message


@pytest.mark.parametrize("key", [pytest.param(key, id=name) for key, name in HOSTILE])
def test_a_hostile_template_ends_at_its_bounds(cage, key):
    before = psutil.Process().memory_info().rss
    outcome = used(cage, key)
    assert len(outcome) < 2000
    assert psutil.Process().memory_info().rss - before < ROOM
    assert all(cell.memory_info().rss < 2 * ROOM for cell in cells())
    assert cage.open(GOOD).render([USER]) == JinjaTemplate(CHATML).render([USER])


def test_the_kinds_that_ended_servers_are_refused_by_name(cage):
    for source in (JINJA["minus"], JINJA["width"], JINJA["tojson"], JINJA["ranges"], JINJA["doubled"]):
        with pytest.raises(ModelFileError, match="chat template .*(more than|nested)"):
            cage.open(TemplateKey("jinja", source)).render([USER])


def test_what_was_refused_once_is_refused_at_once(cage):
    key = TemplateKey("go", GO["range"])
    with pytest.raises(TemplateTooCostly) as first:
        cage.open(key)
    there = {cell.pid for cell in cells()}
    with pytest.raises(TemplateTooCostly) as second:
        cage.open(key)
    assert first.value.message == second.value.message
    assert {cell.pid for cell in cells()} == there


def test_a_good_template_does_not_wait_for_one_on_trial(cage):
    """The one on trial is stopped by the system: it will never be done."""
    template = cage.open(GOOD)
    trying = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        slow = cage._cells[1]
        slow.start()
        assert slow.process is not None
        os.kill(slow.process.pid, signal.SIGSTOP)

        def hold() -> str:
            trying.set()
            return used(cage, TemplateKey("jinja", "never seen {{ messages }}"))

        held = threads.submit(hold)
        assert trying.wait(10)
        for _ in range(100):
            assert template.render([USER]) == JinjaTemplate(CHATML).render([USER])
        assert not held.done()
        os.kill(slow.process.pid, signal.SIGCONT)
        assert "never seen" in held.result(30)


def test_what_a_request_brings_is_read_and_not_tried(cage):
    """It has a process of its own, which no other template waits for; and what it says of itself counts."""
    known = cage.open(GOOD)
    with ThreadPoolExecutor(1) as threads:
        third = cage._cells[2]
        third.start()
        assert third.process is not None
        os.kill(third.process.pid, signal.SIGSTOP)
        held = threads.submit(lambda: cage.read(TemplateKey("go", "{{ .System }}|{{ .Prompt }}")))
        for number in range(20):
            assert known.render([USER]) == JinjaTemplate(CHATML).render([USER])
            assert used(cage, TemplateKey("jinja", f"{number}{{{{ messages[0].content }}}}")) == f"{number}Hi"
        assert not held.done()
        os.kill(third.process.pid, signal.SIGCONT)
        brought = held.result(30)
    assert (brought.trust, known.trust) == ("brought", "known")
    assert brought.render([Message.of("system", "S"), USER]) == "S|Hi"
    # Its text would be refused if it were run; reading it costs nothing of that.
    slow = cage.read(TemplateKey("go", GO["ranges"]))
    assert slow.facts.user
    with pytest.raises(TemplateTooCostly):
        slow.render([USER])
    assert cage.open(GOOD).trust == "known"


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("{{ .Prompt }}", True),
        ("{{ range .Messages }}{{ .Role }}: {{ .Content }}{{ end }}", True),
        ("{{ range .Messages }}{{ json . }}{{ end }}", True),
        ("{{ json .Messages }}", True),
        ("{{ with .Prompt }}{{ . }}{{ end }}", True),
        ("{{ $all := .Prompt }}{{ $all }}", True),
        ('{{ define "a" }}{{ .Prompt }}{{ end }}{{ template "a" . }}', True),
        ("{{ .System }}", False),
        ("{{ range .Messages }}{{ .Role }}{{ end }}", False),
        ("{{ if .Prompt }}{{ .System }}{{ end }}", False),
    ],
)
def test_a_go_template_says_whether_it_shows_what_a_user_says(source, shown):
    template = GoTemplate(source)
    assert (template.told.user, template.facts.user) == (shown, shown)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_cell_that_others_end_is_replaced(cage, number):
    template = cage.open(GOOD)
    for cell in cells():
        cell.send_signal(number)
        cell.wait(10)
    assert template.render([USER]) == JinjaTemplate(CHATML).render([USER])


def test_a_cell_that_others_stop_is_replaced(cage, monkeypatch):
    template = cage.open(GOOD)
    monkeypatch.setattr(cage_module, "WALL_SECONDS", 1.0)
    for cell in cells():
        cell.suspend()
    assert template.render([USER]) == JinjaTemplate(CHATML).render([USER])


def test_cells_that_are_stopped_again_and_again_are_no_fault_of_the_template(cage, monkeypatch):
    template = cage.open(GOOD)
    start = cage_module._Cell.start

    def stopped(cell):
        start(cell)
        psutil.Process(cell.process.pid).suspend()

    with monkeypatch.context() as patched:
        patched.setattr(cage_module, "WALL_SECONDS", 0.1)
        patched.setattr(cage_module._Cell, "start", stopped)
        with pytest.raises(Overloaded, match="let run too little"):
            template.render([USER])
    assert template.trust == "known"
    assert template.render([USER]) == JinjaTemplate(CHATML).render([USER])


def test_one_that_had_the_processor_and_does_not_answer_is_the_templates_fault(cage, monkeypatch):
    """As on a system that bounds no process's time."""
    template = cage.open(GOOD)
    monkeypatch.setattr(cage_module, "WALL_SECONDS", 0.1)
    taken = iter([0.0, 8.0])
    monkeypatch.setattr(cage_module._Cell, "_used", lambda cell: next(taken))
    for cell in cells():
        cell.suspend()
    with pytest.raises(TemplateTooCostly, match="not done after"):
        template.render([USER])
    assert template.trust == "suspect"


def test_many_at_once(cage):
    template = cage.open(GOOD)
    texts = [f"text {number} " * (number % 50) for number in range(200)]
    with ThreadPoolExecutor(16) as threads:
        prompts = [*threads.map(lambda text: template.render([Message.of("user", text)]), texts)]
    here = JinjaTemplate(CHATML)
    assert prompts == [here.render([Message.of("user", text)]) for text in texts]


def test_what_a_template_says_comes_through(cage):
    odd = "half a pair \ud800, a zero \0, and 2**70"
    echo = cage.open(TemplateKey("jinja", "{{ messages[0].content }}{{ number }}"))
    here = JinjaTemplate(echo.source)
    said, arguments = [Message.of("user", odd)], {"number": 2**70}
    assert echo.render(said, arguments=arguments) == here.render(said, arguments=arguments)
    kept = TemplateKey("go", "{{ .Prompt }}")
    assert cage.open(kept).render(said) == odd
    refusing = cage.open(TemplateKey("jinja", "{{ raise_exception('no, é') }}"))
    with pytest.raises(InvalidRequest, match="refuses: no, é") as error:
        refusing.render([USER])
    assert error.value.param == "messages"
    with pytest.raises(ModelFileError, match=r"template: :1: function \"nope\" not defined"):
        cage.open(TemplateKey("go", "{{ nope }}"))


def test_closed_it_leaves_nothing():
    with Cage() as cage:
        cage.start()
        cage.open(GOOD)
        mine = {cell.process.pid for cell in cage._cells if cell.process}
    assert len(mine) == 2
    assert not mine & {cell.pid for cell in cells()}


def test_a_cage_that_is_closed_starts_no_process_again():
    """A request that was ended may still have a thread at it."""
    cage = Cage()
    cage.start()
    cage.close()
    with pytest.raises(ServerStopping):
        cage.open(GOOD)
    assert all(cell.process is None for cell in cage._cells)

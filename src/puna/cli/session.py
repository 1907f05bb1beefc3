"""A conversation's state, and what each `/command` does to it. Asks the server; reads no keyboard."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace

from puna.cli.ask import LEVELS, Ask
from puna.cli.models import card_text, list_models
from puna.cli.screen import columns
from puna.client.card import ModelCard
from puna.client.client import Client
from puna.client.errors import ServerRefused
from puna.errors import InvalidRequest, PunaError
from puna.model.parameters import parse_parameter
from puna.types import JsonObject, JsonValue

HELP = """\
Available Commands:
  /set            Set session variables
  /show           Show model information
  /load <model>   Load a session or model
  /save <model>   Save your current session
  /list           List the models that are here
  /clear          Clear session context
  /bye            Exit
  /?, /help       Help for a command
  /? shortcuts    Help for keyboard shortcuts

Use \"\"\" to begin a multi-line message.
"""

HELP_SET = """\
Available Commands:
  /set parameter ...     Set a parameter
  /set system <string>   Set system message
  /set history           Enable history
  /set nohistory         Disable history
  /set wordwrap          Enable wordwrap
  /set nowordwrap        Disable wordwrap
  /set format json       Enable JSON mode
  /set noformat          Disable formatting
  /set verbose           Show counts and rates
  /set quiet             Do not show counts and rates
  /set think [level]     Enable thinking
  /set nothink           Disable thinking
"""

HELP_SHOW = """\
Available Commands:
  /show info         Show details for this model
  /show license      Show model license
  /show modelfile    Show Modelfile for this model
  /show parameters   Show parameters for this model
  /show system       Show system message
  /show template     Show prompt template
"""

HELP_SHORTCUTS = """\
Available keyboard shortcuts:
  Ctrl + a            Move to the beginning of the line (Home)
  Ctrl + e            Move to the end of the line (End)
  Alt + b, Alt + f    Move back, forward one word
  Ctrl + k, Ctrl + u  Delete the sentence after, before the cursor
  Ctrl + w            Delete the word before the cursor
  Ctrl + j            Begin a new line
  Ctrl + l            Clear the screen
  Ctrl + g            Edit the message in $EDITOR
  Ctrl + c            Stop the model from responding
  Ctrl + d            Exit (/bye)
"""

_HELP = {"set": HELP_SET, "/set": HELP_SET, "show": HELP_SHOW, "/show": HELP_SHOW, "shortcut": HELP_SHORTCUTS}


@dataclass(slots=True)
class Session:
    """Everything that the next message to the model depends on."""

    server: Client
    model: str
    card: ModelCard
    ask: Ask
    fields: JsonObject
    messages: list[JsonValue] = field(default_factory=list)
    parameters: JsonObject = field(default_factory=dict)
    system: str = ""
    keep_history: bool = True

    def request(self) -> JsonObject:
        """The body for `/api/chat` with what was said so far."""
        request: JsonObject = {"model": self.model, "messages": list(self.messages), **self.fields}
        if self.parameters:
            request["options"] = dict(self.parameters)
        return request

    def add(self, role: str, content: str, **more: JsonValue) -> None:
        """`more`: other fields of the message; None leaves one out."""
        extra = {key: value for key, value in more.items() if value is not None}
        self.messages.append({"role": role, "content": content, **extra})

    def set_system(self, text: str) -> None:
        """A system message that nothing was said under yet is replaced."""
        self.system = text
        last = self.messages[-1] if self.messages else None
        if isinstance(last, dict) and last.get("role") == "system":
            self.messages.pop()
        self.add("system", text)

    def clear(self) -> None:
        self.messages.clear()
        if self.system:
            self.add("system", self.system)


async def command(session: Session, line: str) -> None:
    """Do what a line that begins with '/' says. Mistakes are told, and end nothing."""
    word, _, rest = line.partition(" ")
    rest = rest.strip()
    try:
        for name, work in _COMMANDS.items():
            if word.startswith(name):
                await work(session, rest)
                return
    except PunaError as error:
        print(f"Error: {error}", file=sys.stderr)
        return
    print(f"Unknown command '{word}'. Type /? for help")


async def _set(session: Session, rest: str) -> None:
    what, _, value = rest.partition(" ")
    value = value.strip()
    match what:
        case "parameter":
            _set_parameter(session, value.split())
        case "system":
            session.set_system(_unquoted(value))
            print("Set system message.")
        case "history" | "nohistory":
            session.keep_history = what == "history"
        case "wordwrap" | "nowordwrap":
            session.ask = replace(session.ask, word_wrap=what == "wordwrap")
            print(f"Set '{what}' mode.")
        case "verbose" | "quiet":
            session.ask = replace(session.ask, verbose=what == "verbose")
            print(f"Set '{what}' mode.")
        case "format" if value == "json":
            session.fields["format"] = "json"
            print("Set format to 'json' mode.")
        case "noformat":
            session.fields.pop("format", None)
            print("Disabled format.")
        case "think" | "nothink":
            _set_think(session, what, value)
        case "":
            print(HELP_SET, file=sys.stderr)
        case _:
            print(f"Unknown command '/set {rest}'. Type /? for help")


def _set_parameter(session: Session, words: list[str]) -> None:
    if len(words) < 2:
        print("Usage: /set parameter <name> <value>...", file=sys.stderr)
        return
    name, *texts = words
    try:
        values = [parse_parameter(name, text) for text in texts]
    except InvalidRequest as error:
        print(f'Couldn\'t set parameter: "{error}"')
        return
    if isinstance(values[0], list):
        session.parameters[name] = [item for value in values if isinstance(value, list) for item in value]
    else:
        session.parameters[name] = values[0]
    print(f"Set parameter '{name}' to '{', '.join(texts)}'")


def _set_think(session: Session, what: str, level: str) -> None:
    if level and level not in LEVELS:
        print(f"Unknown level '{level}': must be {', '.join(LEVELS)}")
        return
    session.fields["think"] = level or what == "think"
    print(f"Set 'think' mode to '{level}'." if level else f"Set '{what}' mode.")
    if what == "think" and "thinking" not in session.card.capabilities:
        print(f"Warning: model '{session.model}' does not support thinking", file=sys.stderr)


async def _show(session: Session, rest: str) -> None:
    card = session.card
    match rest:
        case "info":
            print(card_text(card, columns(), verbose=False), end="", file=sys.stderr)
        case "license":
            print(card.license or "No license was specified for this model.")
        case "modelfile":
            print(card.modelfile)
        case "parameters":
            print("Model defined parameters:")
            print(card.parameters or "  No parameters were specified for this model.")
            if session.parameters:
                print("\nUser defined parameters:")
                print("\n".join(_parameter_lines(session.parameters)))
        case "system":
            print(session.system or card.system or "No system message was specified for this model.")
        case "template":
            print(card.template or "No prompt template was specified for this model.")
        case "":
            print(HELP_SHOW, file=sys.stderr)
        case _:
            print(f"Unknown command '/show {rest}'. Type /? for help")


def _parameter_lines(parameters: JsonObject) -> Iterator[str]:
    """One line a value, as the server writes the model's own."""
    for name, value in parameters.items():
        for item in value if isinstance(value, list) else [value]:
            yield f"{name:<30} {json.dumps(item, ensure_ascii=False)}"


async def _load(session: Session, name: str) -> None:
    if not name:
        print("Usage:\n  /load <modelname>")
        return
    try:
        card = await session.server.show(name)
    except ServerRefused as error:
        if error.http_status != 404:
            raise
        _, _, meant = str(error).partition("not found")
        print(f"Couldn't find model '{name}'{meant}")
        return
    print(f"Loading model '{name}'")
    session.model, session.card = name, card
    session.messages.clear()
    session.system = ""
    await open_model(session)


async def open_model(session: Session) -> None:
    """Get the model into memory and go through the messages it was made with."""
    keep_alive = session.fields.get("keep_alive")
    await session.server.load(session.model, None if keep_alive is None else str(keep_alive), session.parameters)
    for role, content in session.card.messages:
        print(f">>> {content}" if role == "user" else content, end="\n\n" if role == "assistant" else "\n")


async def _save(session: Session, name: str) -> None:
    if not name:
        print("Usage:\n  /save <modelname>")
        return
    said = [message for message in session.messages if isinstance(message, dict) and message.get("role") != "system"]
    request: JsonObject = {"model": name, "from": session.model}
    if session.system:
        request["system"] = session.system
    if session.parameters:
        request["parameters"] = dict(session.parameters)
    if said:
        stored: list[JsonValue] = [{"role": role, "content": content} for role, content in session.card.messages]
        request["messages"] = [*stored, *said]
    async for _ in session.server.create(request):
        pass
    print(f"Created new model '{name}'")


async def _clear(session: Session, rest: str) -> None:
    session.clear()
    print("Cleared session context")


async def _list(session: Session, rest: str) -> None:
    await list_models(rest)


async def _help(session: Session, rest: str) -> None:
    print(next((text for word, text in _HELP.items() if rest.startswith(word)), HELP), file=sys.stderr)


def _unquoted(text: str) -> str:
    """Without the marks of a multi-line text, or one pair of quotes."""
    if text.startswith('"""'):
        return text.removeprefix('"""').removesuffix('"""')
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    return text


_COMMANDS: Mapping[str, Callable[[Session, str], Coroutine[None, None, None]]] = {
    "/set": _set,
    "/show": _show,
    "/load": _load,
    "/save": _save,
    "/clear": _clear,
    "/list": _list,
    "/help": _help,
    "/?": _help,
}

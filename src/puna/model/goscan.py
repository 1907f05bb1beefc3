"""What a parsed Go template says of itself: the variables that it mentions, the tags around thinking. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from puna.model.goparse import (
    Action,
    Branch,
    Call,
    Chain,
    Dot,
    Field,
    Nodes,
    Operand,
    Pipe,
    Text,
    Tree,
    Variable,
    fault,
)

VARIABLES = frozenset(
    {"System", "Prompt", "Response", "Messages", "Tools", "Suffix", "Think", "ThinkLevel", "IsThinkSet", "First"}
)
"""What a template may read of its root. `First` is of Ollama's first templates: whether this is the first turn."""


def names(tree: Tree) -> frozenset[str]:
    """Every field and variable that is mentioned anywhere."""
    found: set[str] = set()
    for nodes in (tree.body, *tree.defined.values()):
        for pipe in _pipes(nodes):
            for operand in _operands(pipe):
                if isinstance(operand, Variable):
                    found.add(operand.name[1:])
                if isinstance(operand, Field | Variable | Chain):
                    found.update(operand.path)
    return frozenset(found)


def shows(tree: Tree, fields: Collection[str]) -> bool:
    """Whether it writes one of these fields anywhere, or all of what it stands at."""
    return any(
        isinstance(operand, Dot)
        or (isinstance(operand, Field | Variable) and (not operand.path or operand.path[-1] in fields))
        for nodes in (tree.body, *tree.defined.values())
        for pipe in _written(nodes)
        for operand in _operands(pipe)
    )


def check_root(tree: Tree) -> None:
    """ModelFileError when it reads something of its root that no template is given: that would always be empty."""
    _check_root(tree, tree.body, frozenset())


def _check_root(tree: Tree, nodes: Nodes, inside: frozenset[str]) -> None:
    """Of nodes whose dot is the root. `inside`: templates being looked at."""
    for pipe in _pipes(nodes):
        for operand in _operands(pipe):
            if isinstance(operand, Variable) and operand.name == "$":
                _check_name(operand)
    for node in nodes:
        if isinstance(node, Action | Branch):
            for operand in _operands(node.pipe):
                if isinstance(operand, Field):
                    _check_name(operand)
        if isinstance(node, Branch):
            for part in (node.body if node.kind == "if" else (), node.otherwise):
                _check_root(tree, part, inside)


def _check_name(operand: Field | Variable) -> None:
    if operand.path and operand.path[0] not in VARIABLES:
        known = ", ".join(f".{name}" for name in sorted(VARIABLES))
        raise fault(operand.line, f"there is no .{operand.path[0]} (what there is: {known})")


def thinking_tags(tree: Tree) -> tuple[str, str] | None:
    """The texts around `.Thinking` within a range over the messages: the first and the last of its list of nodes."""
    found = [tags for nodes in (tree.body, *tree.defined.values()) for tags in _tags(nodes, (), False)]
    return found[0] if found else None


def _tags(nodes: Nodes, lists: tuple[Nodes, ...], ranging: bool) -> Iterator[tuple[str, str]]:
    """`lists`: those that hold this one, the nearest last."""
    inner = (*lists, nodes)
    for node in nodes:
        if isinstance(node, Action) and ranging and _mentions(node.pipe, "Thinking"):
            yield from (tags for some in reversed(inner) if (tags := _around(some)) is not None)
        if isinstance(node, Branch):
            over = ranging or (node.kind == "range" and _mentions(node.pipe, "Messages"))
            yield from _tags(node.body, inner, over)
            yield from _tags(node.otherwise, inner, ranging)


def _around(nodes: Nodes) -> tuple[str, str] | None:
    first, last = nodes[0], nodes[-1]
    if not isinstance(first, Text) or not isinstance(last, Text) or not first.text.strip() or not last.text.strip():
        return None
    return first.text.strip(), last.text.strip()


def _mentions(pipe: Pipe, name: str) -> bool:
    return any(isinstance(operand, Field | Variable) and operand.path[-1:] == (name,) for operand in _operands(pipe))


def _written(nodes: Nodes) -> Iterator[Pipe]:
    """The pipes whose values are written, and those that variables keep."""
    for node in nodes:
        if isinstance(node, Action):
            yield node.pipe
        if isinstance(node, Branch):
            yield from _written(node.body)
            yield from _written(node.otherwise)


def _pipes(nodes: Nodes) -> Iterator[Pipe]:
    for node in nodes:
        if isinstance(node, Action | Branch) or (isinstance(node, Call) and node.pipe is not None):
            assert node.pipe is not None
            yield node.pipe
        if isinstance(node, Branch):
            yield from _pipes(node.body)
            yield from _pipes(node.otherwise)


def _operands(pipe: Pipe) -> Iterator[Operand]:
    for command in pipe.commands:
        for operand in command:
            yield operand
            if isinstance(operand, Chain):
                yield from _operands(operand.pipe)

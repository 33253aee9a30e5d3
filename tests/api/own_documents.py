"""The GraphQL documents that Purser's own programs send, as they stand in their source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from graphql import (
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    OperationDefinitionNode,
    Visitor,
    parse,
    visit,
)

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = [
    *sorted((ROOT / "app" / "demonstration").glob("*.py")),
    ROOT / "app" / "replay.py",
    *sorted((ROOT / "examples").glob("*.py")),
]


def own_documents() -> set[tuple[str, str]]:
    """The program and the exact text of each document that it sends."""
    return {(path.stem.replace("_", "-"), text) for path in PROGRAMS for text in _sent_by(path)}


def _sent_by(path: Path) -> Iterator[str]:
    constants: dict[str, str] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _text(node.value, constants)
            if value is not None:
                constants[node.targets[0].id] = value
        text = _text(node, constants)
        if text is not None and _is_whole(text):
            yield text


def _text(node: ast.AST, constants: dict[str, str]) -> str | None:
    """The value of a literal, of the name of one, or of a sum of these."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.Name(id=name):
            return constants.get(name)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            parts = (_text(left, constants), _text(right, constants))
            return parts[0] + parts[1] if parts[0] is not None and parts[1] is not None else None
    return None


def _is_whole(text: str) -> bool:
    """Whether it can be sent: an operation with every fragment that it spreads."""
    try:
        document = parse(text)
    except GraphQLError:
        return False
    spread: set[str] = set()

    class Spreads(Visitor):
        def enter_fragment_spread(self, node: FragmentSpreadNode, *_: object) -> None:
            spread.add(node.name.value)

    visit(document, Spreads())
    fragments = {
        each.name.value for each in document.definitions if isinstance(each, FragmentDefinitionNode)
    }
    asks = any(isinstance(each, OperationDefinitionNode) for each in document.definitions)
    return asks and spread <= fragments

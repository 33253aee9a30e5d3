"""What the documents say of the code: links lead somewhere, promises name tests that exist, what
is written in GraphQL fits the schema.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from graphql import DocumentNode, OperationDefinitionNode, build_schema, parse, validate

from core.errors import error_classes
from schema.export import SNAPSHOT

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """The places in a document that a link may name, as code hosts derive them from headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", document.read_text()), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT).as_posix())
)
def test_a_link_leads_somewhere(document: Path) -> None:
    broken = []
    for target in LINK.findall(FENCED.sub("", document.read_text())):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        place = (document.parent / name).resolve() if name else document
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(target)
    assert broken == []


def test_every_test_that_a_promise_names_exists() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    named = re.findall(r"`(\w+/test_\w+\.py)::(test_\w+)`", text)
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / "tests" / file).exists()
        or not re.search(rf"\bdef {name}\(", (ROOT / "tests" / file).read_text())
    ]
    assert len(named) > 50
    assert missing == []


def test_the_page_of_errors_tells_what_the_classes_say() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| (yes|no) \| (yes|\*\*no\*\*) \| (.+?) \|", text, re.MULTILINE
    )
    told = {code: (retry == "yes", known == "yes", said) for code, retry, known, said in rows}
    assert told == {
        code: (each.retryable, each.outcome_known, each.default_message)
        for code, each in error_classes().items()
    }


def test_what_is_written_in_graphql_fits_the_schema() -> None:
    schema = build_schema(SNAPSHOT.read_text())
    blocks = re.compile(r"^```graphql\n(.*?)^```", re.DOTALL | re.MULTILINE)
    written = [block for document in DOCUMENTS for block in blocks.findall(document.read_text())]
    assert len(written) > 5
    for operation in (each for block in written for each in parse(block).definitions):
        assert isinstance(operation, OperationDefinitionNode)
        assert validate(schema, DocumentNode(definitions=(operation,))) == []

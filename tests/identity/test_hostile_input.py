"""Whatever a stranger sends, the answer is one of our refusals and never an error of a library."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InvalidArgument, SignatureInvalid, Unauthenticated
from identity import customers, passwords, signatures, tokens
from identity.addresses import parse_address
from identity.payment_password import checked_payment_password
from identity.signing_client import sign_request

TEXT = st.text(st.characters(codec=None), max_size=80)
ODD = [
    '"',
    ";",
    "=",
    ":",
    ",",
    "(",
    ")",
    "\\",
    "\x00",
    "\n",
    "é",
    "\ud800",
    "🏦",
    "%",
    "/",
    "?",
    "1",
]
ROUNDS = 400


def refused(call: Callable[[], object]) -> None:
    try:
        call()
    except InvalidArgument:
        return


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_any_text_is_an_address_or_refused(text: str) -> None:
    refused(lambda: parse_address(text, None))
    refused(lambda: parse_address(None, text))
    refused(lambda: parse_address("+" + text, None))
    refused(lambda: parse_address(None, text + "@example.com"))


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_any_text_is_a_secret_or_refused(text: str) -> None:
    refused(lambda: passwords.checked_password(text))
    refused(lambda: checked_payment_password(text))
    refused(lambda: customers.checked_name(text))


def mutated(text: str, dice: random.Random) -> str:
    """A few characters replaced, removed or put in, or a part doubled."""
    letters = list(text)
    for _ in range(dice.randint(1, 4)):
        position = dice.randrange(len(letters) + 1)
        match dice.randrange(4):
            case 0 if position < len(letters):
                letters[position] = dice.choice(ODD)
            case 1 if position < len(letters):
                del letters[position]
            case 2:
                letters.insert(position, dice.choice(ODD))
            case _:
                letters[position:position] = letters[: dice.randrange(20)]
    return "".join(letters)


async def test_no_mutated_token_raises_anything_of_a_library(person: Any) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    token = person.tokens.access_token
    for _ in range(ROUNDS):
        hostile = mutated(token, dice)
        if hostile == token:
            continue
        try:
            await tokens.verify_access(hostile)
        except Unauthenticated:
            continue
        raise AssertionError(hostile)


async def test_no_mutated_signature_raises_anything_of_a_library(shop: Any) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    key_id, key = shop.keys["ed25519"]
    for _ in range(ROUNDS):
        headers = sign_request("POST", "http://x/graphql", b"{}", key_id=key_id, key=key)
        name = dice.choice(sorted(headers))
        headers[name] = mutated(headers[name], dice)
        try:
            await signatures.verify_request("POST", "/graphql", headers, b"{}")
        except SignatureInvalid:
            continue
        raise AssertionError(headers)

"""The schema itself: described, permitted, mapped, and the one that is committed."""

from __future__ import annotations

from typing import Any

import pytest
import strawberry
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
)

from core import errors as core_errors
from core.errors import error_classes
from identity.permissions import Permission
from resolvers import root
from resolvers.guard import PUBLIC
from resolvers.root import root_type, sensitive_fields
from schema.cursors import make_cursor, read_cursor
from schema.errors import VIEWS, user_error
from schema.export import SNAPSHOT, current_sdl
from schema.node import key_of, node_id, parse_node_id
from schema.scalars import parse_big_int, parse_instant, show_instant

OPEN_TO_ALL = {
    "customer_register",
    "registration_code_request",
    "customer_confirm",
    "customer_login",
    "token_refresh",
    "password_reset_request",
    "password_reset",
    "operator_login",
}


@pytest.fixture(scope="module")
def sdl() -> GraphQLSchema:
    return build_schema(SNAPSHOT.read_text())


def test_the_committed_schema_is_the_present_one() -> None:
    assert SNAPSHOT.read_text() == current_sdl(), "run `make schema` and look at the difference"


def test_everything_in_the_schema_is_described(sdl: GraphQLSchema) -> None:
    missing = []
    for name, kind in sdl.type_map.items():
        if name.startswith("__") or name in ("String", "Int", "Float", "Boolean", "ID"):
            continue
        if not kind.description:
            missing.append(name)
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType):
            for field_name, field in kind.fields.items():
                if not field.description:
                    missing.append(f"{name}.{field_name}")
                for argument_name, argument in getattr(field, "args", {}).items():
                    if not argument.description and argument_name != "input":
                        missing.append(f"{name}.{field_name}({argument_name})")
        if isinstance(kind, GraphQLEnumType):
            missing += [
                f"{name}.{key}" for key, each in kind.values.items() if not each.description
            ]
    assert missing == []


def test_each_mutation_takes_one_input_and_answers_with_its_payload(sdl: GraphQLSchema) -> None:
    assert sdl.mutation_type is not None
    for name, field in sdl.mutation_type.fields.items():
        kind = name[0].upper() + name[1:]
        assert list(field.args) == ["input"]
        assert str(field.args["input"].type) == f"{kind}Input!"
        assert str(field.type) == f"{kind}Payload", (
            "nullable: a fault of one leaves the others alone"
        )
        payload = sdl.type_map[f"{kind}Payload"]
        assert str(payload.fields["userErrors"].type) == "[UserError!]!"  # type: ignore[attr-defined]
        given = sdl.type_map[f"{kind}Input"].fields  # type: ignore[attr-defined]
        assert ("idempotencyKey" in given) == ("idempotentReplay" in payload.fields)  # type: ignore[attr-defined]


def test_no_amount_is_a_float(sdl: GraphQLSchema) -> None:
    floats = {
        f"{name}.{field}"
        for name, kind in sdl.type_map.items()
        if isinstance(kind, GraphQLObjectType | GraphQLInputObjectType)
        for field, value in kind.fields.items()
        if "Float" in str(value.type)
    }
    assert floats == {"Decision.latencyMs", "Decision.probability", "RiskFeature.value"}


def test_every_root_field_names_a_permission() -> None:
    fields = [*root.QUERIES, *root.MUTATIONS, *root.SUBSCRIPTIONS]
    permissions = {field.python_name: field.metadata["permission"] for field in fields}
    assert {name for name, guard in permissions.items() if guard == PUBLIC} == OPEN_TO_ALL
    assert all(guard == PUBLIC or guard in Permission for guard in permissions.values())


def test_a_field_without_a_permission_stops_the_start() -> None:
    @strawberry.field
    def bare() -> int:
        return 1

    with pytest.raises(RuntimeError, match=r"Query\.bare"):
        root_type("Query", "", [bare])


def test_what_takes_a_secret_may_stand_only_once() -> None:
    found = sensitive_fields(root.MUTATIONS)
    assert {"customerLogin", "operatorLogin", "challengeAnswer", "paymentPasswordSet"} <= found
    assert "pay" not in found


def test_each_error_class_has_a_view_and_a_new_one_without_is_found() -> None:
    assert set(VIEWS) == set(error_classes())
    for code, error in error_classes().items():
        shown = user_error(error(), "CNY")
        assert shown.code.value == code  # type: ignore[attr-defined]
        assert shown.retryable is error.retryable
        assert shown.outcome_known is error.outcome_known


def test_a_refusal_shows_what_it_carries() -> None:
    shown: Any = user_error(core_errors.InsufficientAvailable(available_minor=1_234), "JPY")
    assert shown.available.formatted == "1234"
    shown = user_error(core_errors.CredentialsInvalid(remaining_attempts=3))
    assert shown.remaining_attempts == 3


def test_an_id_that_we_never_made_is_not_found() -> None:
    made = node_id(
        "Order", parse_node_id("T3JkZXI6MDE5M2Y0MTgtMDAwMC03MDAwLTgwMDAtMDAwMDAwMDAwMDAw")[1]
    )
    wrong = ["", "x", made + "=", made[:-2], made.replace("T", "U", 1), "💥", "\x00", "A" * 500]
    for unchecked in wrong:
        with pytest.raises(core_errors.NotFound):
            key_of("Order", unchecked, "id")
    with pytest.raises(core_errors.NotFound):
        key_of("Merchant", made, "id")


@pytest.mark.usefixtures("configuration")
def test_a_cursor_is_good_for_its_own_list_only() -> None:
    made = make_cursor("orders:a", "2026-01-01", 7)
    assert read_cursor("orders:a", made) == ["2026-01-01", 7]
    for name, cursor in (("orders:b", made), ("orders:a", made[:-1]), ("orders:a", "é")):
        with pytest.raises(core_errors.InvalidArgument):
            read_cursor(name, cursor)


def test_scalars_are_exact() -> None:
    assert parse_big_int("9007199254740993") == 9_007_199_254_740_993
    assert parse_big_int(-(2**63)) == -(2**63)
    instant = parse_instant("2026-01-31T23:59:59.9999+08:00")
    assert show_instant(instant) == "2026-01-31T15:59:59.999Z"

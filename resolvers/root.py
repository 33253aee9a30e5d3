"""Query, Mutation and Subscription put together, and the schema that the server runs.

A root field that names no permission stops the start here.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import strawberry
from graphql import (
    DirectiveLocation,
    GraphQLArgument,
    GraphQLDirective,
    GraphQLError,
    GraphQLNonNull,
    GraphQLString,
)
from strawberry.extensions import MaxTokensLimiter
from strawberry.schema.config import StrawberryConfig
from strawberry.tools import create_type
from strawberry.types import ExecutionContext
from strawberry.types.field import StrawberryField

from identity.permissions import Permission
from resolvers import customers, hooks, live, merchants, operators, paying, reads
from resolvers.extensions import CarefulParserCache, Costs, FreshContext, LimitedValidation
from resolvers.faults import coded
from resolvers.guard import PUBLIC
from resolvers.plans import Plans
from schema import errors, orders, parties, webhooks
from schema.limits import TOKENS_MAX
from schema.scalars import SCALARS

QUERIES = [
    reads.viewer,
    reads.node,
    reads.nodes,
    reads.order,
    reads.order_by_merchant_number,
    reads.orders,
    reads.review_queue,
    reads.wallet,
    reads.wallets,
    reads.merchant,
    reads.merchant_balance,
    reads.payee,
    reads.webhook_endpoint,
    reads.webhook_events,
    reads.ledger_integrity,
]
MUTATIONS = [
    customers.customer_register,
    customers.registration_code_request,
    customers.customer_confirm,
    customers.customer_login,
    customers.customer_logout,
    customers.token_refresh,
    customers.password_reset_request,
    customers.password_reset,
    customers.password_change,
    customers.payment_password_set,
    customers.payment_password_reset_request,
    customers.payment_password_reset,
    paying.top_up,
    paying.pay,
    paying.transfer,
    paying.challenge_code_request,
    paying.challenge_answer,
    paying.order_close,
    paying.refund,
    paying.pay_out,
    hooks.webhook_endpoint_set,
    hooks.webhook_secret_rotate,
    hooks.webhook_event_replay,
    merchants.merchant_token_issue,
    merchants.merchant_key_create,
    merchants.merchant_key_rotate,
    merchants.merchant_key_revoke,
    operators.operator_login,
    operators.merchant_register,
    operators.merchant_update,
    operators.settlement_run,
    operators.review_decide,
]
SUBSCRIPTIONS = [live.order_updated, live.wallet_updated]

IDEMPOTENT = GraphQLDirective(
    name="idempotent",
    locations=[DirectiveLocation.FIELD],
    args={
        "key": GraphQLArgument(
            GraphQLNonNull(GraphQLString),
            description="8 to 255 visible ASCII characters, the same for each retry.",
        )
    },
    description="Names a request that moves money, in place of `idempotencyKey` in its input.",
)


class PurserSchema(strawberry.Schema):
    """Adds `@idempotent`, which as an operation directive would cost a middleware on each field,
    and gives every error its code.
    """

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Called with each list of errors before it leaves; what is coded already stays."""
        errors[:] = [coded(error) for error in errors]

    @cached_property
    def plans(self) -> Plans:
        """Its known documents, compiled."""
        return Plans(self, Validation.sensitive)

    def _collect_graphql_directives(self, schema_directive_types: Any) -> Any:
        return (*super()._collect_graphql_directives(schema_directive_types), IDEMPOTENT)


def root_type(name: str, description: str, fields: list[Any]) -> type[Any]:
    """A root type of guarded fields; raises `RuntimeError` for one without a permission."""
    for field in fields:
        guard = field.metadata.get("permission") if isinstance(field, StrawberryField) else None
        if guard != PUBLIC and not isinstance(guard, Permission):
            raise RuntimeError(f"{name}.{field.python_name} names no permission")
    return create_type(name, fields, description=description)


def sensitive_fields(mutations: list[Any]) -> frozenset[str]:
    """Names of the mutations that take a secret, as they stand in a document."""
    parts = [each.python_name.split("_") for each in mutations if each.metadata.get("sensitive")]
    return frozenset(head + "".join(map(str.capitalize, rest)) for head, *rest in parts)


class Validation(LimitedValidation):
    """The limits of this schema, with the fields that may stand only once."""

    sensitive = sensitive_fields(MUTATIONS)


def make_schema() -> PurserSchema:
    """The one schema. Extensions are made for each operation, their caches are not."""
    return PurserSchema(
        query=root_type("Query", "Reads.", QUERIES),
        mutation=root_type(
            "Mutation", "Changes; each takes one `input` and answers with its payload.", MUTATIONS
        ),
        subscription=root_type(
            "Subscription", "Hints as they happen; webhooks are the durable channel.", SUBSCRIPTIONS
        ),
        types=[*errors.CONCRETE_TYPES, orders.Attempt, parties.Operator, webhooks.WebhookDelivery],
        config=StrawberryConfig(
            scalar_map=SCALARS, disable_field_suggestions=True, relay_max_results=100
        ),
        extensions=[
            FreshContext,
            lambda: MaxTokensLimiter(max_token_count=TOKENS_MAX),
            CarefulParserCache,
            Validation,
            Costs,
        ],
    )

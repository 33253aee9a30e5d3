"""Compiled plans against the ordinary engine: the same bytes, or no plan at all.

Each document runs through both on the same state. What the loaders give can be broken on purpose,
so that nulls and errors arise at every depth.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from strawberry.types.execution import PreExecutionError

from core import ids
from core.errors import Forbidden, ServerBusy
from core.principal import merchant as merchant_principal
from identity import tokens
from identity.caller import Caller
from resolvers import context as contexts
from resolvers.compiled.plan import Plan
from resolvers.context import RequestContext, request_context
from resolvers.loaders import Loaders
from resolvers.plans import Plans
from resolvers.root import Validation, make_schema
from schema.node import node_id
from tests.api.conftest import Api, Person, Shop, paying
from tests.api.documents_made import documents_made
from tests.api.own_documents import own_documents

SCHEMA = make_schema()
PLANS = Plans(SCHEMA, Validation.sensitive)

MONEY = "{ amountMinor currency exponent formatted }"
EVERYTHING = f"""
fragment Everything on Order {{
  __typename id resourceVersion merchantOrderNo type product state amount {MONEY}
  captured {MONEY} refunded {MONEY} fee {MONEY} feeRateMillionths refundProgress payoutProgress
  settlementProgress description effectiveAt expiresAt createdAt merchantId merchantName
  payer {{ id status displayName phone wallets {{ id currency balance {MONEY} frozen }} }}
  operations {{ id type state amount {MONEY} attempts {{ channel result }} updatedAt }}
  challenge {{ state remainingAttempts }} riskOutcome
  riskDecisions {{ id outcome source }}
}}
"""
PAY = """mutation Pay($input: PayInput!) { pay(input: $input) {
  __typename idempotentReplay
  order { id state type amount { amountMinor currency formatted } merchantName challenge { state } }
  operation { id type state }
  userErrors { __typename code message field retryable outcomeKnown
    ... on InsufficientAvailableError { available { formatted } }
    ... on CredentialsError { remainingAttempts } }
} }"""


@pytest.fixture
def engine() -> str:
    """Both, beside each other, in each test here."""
    return "both"


@pytest.fixture
async def callers(
    api: Api, person: Person, shop: Shop, operator: Caller
) -> dict[str, Caller | None]:
    """One of each kind who may ask, and nobody."""
    return {
        "nobody": None,
        "customer": await tokens.verify_access(person.token),
        "merchant": Caller(principal=merchant_principal(shop.merchant_id), signed=True),
        "operator": operator,
    }


@pytest.fixture
async def order(api: Api, person: Person, shop: Shop) -> dict[str, Any]:
    """A paid order."""
    payload = await api.mutate(
        "pay", paying(shop, 1_234), "order { id merchantOrderNo }", token=person.token
    )
    found: dict[str, Any] = payload["order"]
    return found


def context_for(caller: Caller | None) -> RequestContext:
    """The context of a request whose bucket is full."""
    context = request_context(caller, "")
    context.client = ids.random_token(8)
    return context


async def ordinary(
    query: str, variables: Any, caller: Caller | None, operation_name: str | None = None
) -> dict[str, Any]:
    """The body that the ordinary engine gives, without its extensions."""
    result = await SCHEMA.execute(
        query,
        variable_values=variables,
        context_value=context_for(caller),
        operation_name=operation_name,
    )
    body: dict[str, Any] = {} if isinstance(result, PreExecutionError) else {"data": result.data}
    if result.errors:
        body["errors"] = [error.formatted for error in result.errors]
    return body


def comparable(body: dict[str, Any], in_order: bool) -> bytes:
    """The bytes of a body; the ids under which our bugs are logged are drawn anew each time.

    Roots that read from PostgreSQL race: what is wrong with them has no order.
    """
    for error in body.get("errors", []):
        if "errorId" in error.get("extensions", {}):
            error["extensions"]["errorId"] = "drawn"
    if "errors" in body and not in_order:
        body["errors"].sort(key=orjson.dumps)
    return orjson.dumps(body)


async def same(
    query: str,
    variables: Any,
    caller: Caller | None,
    operation_name: str | None = None,
    *,
    in_order: bool = True,
) -> dict[str, Any]:
    """The body, which both engines give; the document must have a plan."""
    plan = PLANS.find(query, operation_name)
    assert plan is not None, query
    expected = await ordinary(query, variables, caller, operation_name)
    context = context_for(caller)
    context.load = contexts.Loaders(caller)
    found = await plan.run(dict(variables or {}), context)
    assert found is not None, (query, variables, expected)
    assert comparable(found, in_order) == comparable(expected, in_order), (query, variables)
    return found


QUERIES = [
    "{ __typename }",
    "{ a: __typename viewer { __typename kind k: kind scopes signed } }",
    "query Q { viewer { customer { id wallets { id balance { formatted } } } merchant { id name } "
    "operator { id roles } } }",
    "{ viewer { ...V } } fragment V on Viewer { kind ...W } fragment W on Viewer { kind scopes }",
    '{ wallet(currency: "CNY") { id currency balance { formatted amountMinor } ledgerVersion } }',
    '{ wallet(currency: "QQQ") { id } other: wallet(currency: "JPY") { available { exponent } } }',
    '{ wallets { currency held { formatted } } wallet(currency: "CNY") { frozen } }',
    '{ wallet(currency: "CNY") { statement(first: 2) { nodes { kind amount { formatted } '
    "order { id state merchantName } } edges { cursor } pageInfo { hasNextPage endCursor } } } }",
    '{ wallet(currency: "CNY") { statement { nodes { kind } } } }',
    '{ wallet(currency: "CNY") { id a: statement(first: 1) { nodes { kind } } '
    "b: statement(first: 1, last: 1) { nodes { kind } } } }",
    "{ orders(first: 3) { nodes { ...Everything } } }" + EVERYTHING,
    "{ orders(last: 3, orderBy: CREATED_AT_ASC) { edges { cursor node { ...Everything } } } }"
    + EVERYTHING,
    "{ orders { nodes { id } } }",
    "{ orders(first: 200) { nodes { id } } viewer { kind } }",
    "{ orders(first: 2, filter: { types: [PAY], states: [SUCCEEDED, FAILED] }) { nodes { id } } }",
    "{ orders(first: 2, filter: { types: PAY }) { nodes { id } pageInfo { startCursor } } }",
    "{ reviewQueue(first: 5) { nodes { id state } } }",
    "{ ledgerIntegrity { clean entriesCount findings { finding } } }",
    '{ payee(address: { phone: "+8613812345678" }) { displayNameMasked } }',
    '{ payee(address: { email: "nobody@example.com" }) { payeeId } }',
    '{ node(id: "nonsense") { id } }',
    '{ nodes(ids: ["nonsense", "T3JkZXI6MQ=="]) { __typename id ... on Order { state } } }',
    '{ merchantBalance(currency: "CNY") { available { formatted } asOf: currency '
    "statement(first: 1, bucket: PENDING_SETTLEMENT) { nodes { kind } } } }",
    "{ webhookEndpoint { id } webhookEvents(first: 2) { nodes { id type } } }",
    "{ viewer { kind @skip(if: true) scopes @include(if: true) } }",
    "{ viewer @include(if: false) { kind } __typename }",
    "{ viewer { ... @skip(if: false) { kind } ... @include(if: false) { scopes } } }",
    "{ viewer { customer { id } customer { displayName } } viewer { customer { status } } }",
]


@pytest.mark.parametrize("who", ["nobody", "customer", "merchant", "operator"])
async def test_queries_answer_the_same(
    callers: dict[str, Caller | None], order: dict[str, Any], who: str
) -> None:
    for query in QUERIES:
        await same(query, None, callers[who])


@pytest.mark.parametrize("who", ["nobody", "customer", "merchant", "operator"])
async def test_objects_by_id_answer_the_same(
    callers: dict[str, Caller | None],
    order: dict[str, Any],
    person: Person,
    shop: Shop,
    who: str,
) -> None:
    every_kind = [order["id"], person.node_id, shop.node_id, "x", node_id("Order", ids.new_id())]
    query = (
        """query($id: ID!) { node(id: $id) { __typename ... on Node { id } ...Everything
        ... on Customer { displayName email wallets { currency } }
        ... on Merchant { name currencies paymentLimitMinor keys { keyId algorithm } balances {
          currency available { formatted } } webhookEndpoint { id } } } }"""
        + EVERYTHING
    )
    for each in every_kind:
        await same(query, {"id": each}, callers[who])
        await same(
            "query($id: ID!) { order(id: $id) { ...Everything } }" + EVERYTHING,
            {"id": each},
            callers[who],
        )
        await same(
            "query($id: ID!) { merchant(id: $id) { id keys { id } name } }",
            {"id": each},
            callers[who],
        )
    many = """query($ids: [ID!]!) { nodes(ids: $ids) { __typename id
        ... on Order { merchantName operations { type attempts { channel } } }
        ... on Merchant { name } } }"""
    await same(many, {"ids": every_kind}, callers[who])
    await same(many, {"ids": order["id"]}, callers[who])
    await same(many, {"ids": []}, callers[who])
    await same(many, {"ids": [order["id"]] * 101}, callers[who])
    number = """query($no: String!, $shop: ID) {
        orderByMerchantNumber(merchantOrderNo: $no, merchantId: $shop) { id payer { id } } }"""
    for variables in (
        {"no": order["merchantOrderNo"]},
        {"no": order["merchantOrderNo"], "shop": shop.node_id},
        {"no": "", "shop": None},
    ):
        await same(number, variables, callers[who])


VARIABLES: list[tuple[str, list[dict[str, Any]]]] = [
    (
        "query($first: Int = 2, $after: String, $by: OrderSorting! = CREATED_AT_ASC) { "
        "orders(first: $first, after: $after, orderBy: $by) { nodes { id } } }",
        [
            {},
            {"first": 1},
            {"first": None},
            {"after": None},
            {"after": "x"},
            {"by": "CREATED_AT_DESC"},
            {"unknown": 1},
        ],
    ),
    (
        "query($filter: OrderFilterInput) { orders(first: 3, filter: $filter) { nodes { id } } }",
        [
            {},
            {"filter": None},
            {"filter": {}},
            {"filter": {"types": ["PAY"]}},
            {"filter": {"types": "PAY"}},
            {"filter": {"states": [], "types": None}},
        ],
    ),
    (
        "query($type: OperationType!, $states: [OrderState!]) { orders(first: 3, filter: "
        "{ types: [$type], states: $states }) { nodes { id type } } }",
        [{"type": "PAY"}, {"type": "REFUND", "states": ["SUCCEEDED"]}, {"type": "PAY"}],
    ),
    (
        "query($address: AddressInput!) { payee(address: $address) { displayNameMasked } }",
        [
            {"address": {"phone": "+8613812345678"}},
            {"address": {"phone": "nonsense"}},
            {"address": {"email": "a@b.example"}},
        ],
    ),
    (
        "query($skip: Boolean!, $with: Boolean = true) { viewer { kind @skip(if: $skip) "
        "scopes @include(if: $with) ... on Viewer @include(if: $with) @skip(if: $skip) "
        "{ customer { id } } } }",
        [
            {"skip": True},
            {"skip": False},
            {"skip": False, "with": False},
            {"skip": True, "with": False},
        ],
    ),
    (
        "query($currency: CurrencyCode!, $bucket: BalanceBucket! = AVAILABLE, $n: Int) { "
        "merchantBalance(currency: $currency) { currency statement(bucket: $bucket, first: $n) "
        "{ nodes { kind } } } }",
        [
            {"currency": "CNY", "n": 2},
            {"currency": "CNY"},
            {"currency": "JPY", "bucket": "PENDING_SETTLEMENT", "n": 1},
            {"currency": "CNY", "n": 0},
        ],
    ),
]


@pytest.mark.parametrize("who", ["nobody", "customer", "merchant", "operator"])
async def test_variables_and_their_defaults_answer_the_same(
    callers: dict[str, Caller | None], order: dict[str, Any], who: str
) -> None:
    for query, given in VARIABLES:
        for variables in given:
            await same(query, variables, callers[who])


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("query($id: ID!) { node(id: $id) { id } }", {}),
    ("query($id: ID!) { node(id: $id) { id } }", {"id": None}),
    ("query($id: ID!) { node(id: $id) { id } }", {"id": ["x"]}),
    ("query($id: ID!) { node(id: $id) { id } }", {"id": 1.5}),
    ("query($ids: [ID!]!) { nodes(ids: $ids) { id } }", {"ids": [None]}),
    ("query($n: Int) { orders(first: $n) { nodes { id } } }", {"n": "1"}),
    ("query($n: Int) { orders(first: $n) { nodes { id } } }", {"n": 2**31}),
    ("query($n: Int) { orders(first: $n) { nodes { id } } }", {"n": True}),
    ("query($by: OrderSorting!) { orders(first: 1, orderBy: $by) { nodes { id } } }", {"by": "X"}),
    ("query($c: CurrencyCode!) { wallet(currency: $c) { id } }", {"c": "cny"}),
    ("query($f: OrderFilterInput) { orders(first: 1, filter: $f) { nodes { id } } }",
     {"f": {"unknown": 1}}),
    ("query($f: OrderFilterInput) { orders(first: 1, filter: $f) { nodes { id } } }", {"f": 7}),
    ("query($a: AddressInput!) { payee(address: $a) { payeeId } }", {"a": {}}),
    ("query($a: AddressInput!) { payee(address: $a) { payeeId } }",
     {"a": {"phone": "1", "email": "2"}}),
    ("query($a: AddressInput!) { payee(address: $a) { payeeId } }", {"a": {"phone": None}}),
    ("query($s: Boolean! = true) { viewer { kind @skip(if: $s) } }", {"s": None}),
    ("query($s: Boolean!) { viewer { kind @skip(if: $s) } }", {"s": "true"}),
    ("query($s: Boolean!) { viewer { kind @skip(if: $s) } }", {}),
    (PAY, {}),
    (PAY, {"input": {}}),
    (PAY, {"input": {"merchantId": "x", "merchantOrderNo": "1", "amount": {"amountMinor": 1.5,
     "currency": "CNY"}, "method": {"account": {}}}}),
    (PAY, {"input": {"merchantId": "x", "merchantOrderNo": "1", "amount": {"amountMinor": 1,
     "currency": "CNY"}, "method": {}}}),
]  # fmt: skip


async def test_wrong_variables_are_left_to_the_ordinary_engine_before_anything_runs(
    callers: dict[str, Caller | None],
) -> None:
    for query, variables in WRONG:
        plan = PLANS.find(query, None)
        assert plan is not None
        context = context_for(callers["customer"])
        context.load = None  # type: ignore[assignment]
        assert await plan.run(variables, context) is None
        refused = await ordinary(query, variables, callers["customer"])
        assert refused["errors"]


UNPLANNED = [
    "",
    "{",
    "{ nothing }",
    "{ viewer { kind }",
    "{ viewer }",
    "query($id: ID) { node(id: $id) { id } }",
    "{ __schema { types { name } } }",
    '{ __type(name: "Order") { name } viewer { kind } }',
    "query { ...S } fragment S on Query { __schema { queryType { name } } }",
    'subscription { walletUpdated(currency: "CNY") { __typename } }',
    "fragment F on Viewer { kind }",
    "{ " + " ".join(f"a{n}: __typename" for n in range(11)) + " }",
    "{ viewer { " + "customer { wallets { " * 5 + "id" + " } }" * 5 + " } }",
    "{ viewer { ...F } } fragment F on Viewer { ...F }",
    "mutation($input: CustomerLoginInput!) { a: customerLogin(input: $input) { __typename } "
    "b: customerLogin(input: $input) { __typename } }",
]


@pytest.mark.parametrize("query", UNPLANNED)
def test_what_is_wrong_or_unusual_has_no_plan(query: str) -> None:
    assert PLANS.find(query, None) is None
    assert PLANS.find(query, None) is None


def test_an_operation_is_chosen_by_its_name() -> None:
    query = "query A { __typename } query B { viewer { kind } }"
    assert PLANS.find(query, "B") is not None
    assert PLANS.find(query, "B") is PLANS.find(query, "B")
    assert PLANS.find(query, "C") is None
    assert PLANS.find(query, "") is None


async def test_each_operation_of_a_document_answers_the_same(
    callers: dict[str, Caller | None],
) -> None:
    query = (
        "query A($n: Int = 1) { orders(first: $n) { nodes { id } } } query B { viewer { kind } }"
    )
    for name in ("A", "B"):
        await same(query, None, callers["customer"], name)


MUTATIONS: list[tuple[str, dict[str, Any]]] = [
    (PAY, {"amount": {"amountMinor": 10**9, "currency": "CNY"}}),
    (PAY, {"merchantId": "nonsense"}),
    (PAY, {"description": "x" * 300}),
    (PAY, {"amount": {"amountMinor": "0", "currency": "QQQ"}}),
    (PAY, {"idempotencyKey": ""}),
    (PAY, {"method": {"account": {"walletCurrency": "JPY"}}}),
    (PAY, {}),
]


@pytest.mark.parametrize("who", ["nobody", "customer", "merchant"])
async def test_mutations_answer_the_same(
    callers: dict[str, Caller | None], shop: Shop, who: str
) -> None:
    """The first run of each makes or refuses; what both engines then tell is the stored answer."""
    for query, changes in MUTATIONS:
        variables = {"input": paying(shop, 100, **changes)}
        await ordinary(query, variables, callers[who])
        await same(query, variables, callers[who])


async def test_a_plan_moves_money_once(
    callers: dict[str, Caller | None], api: Api, shop: Shop, person: Person
) -> None:
    plan = PLANS.find(PAY, "Pay")
    assert plan is not None
    assert plan.is_mutation
    variables = {"input": paying(shop, 100)}
    answers = [await plan.run(variables, context_for(callers["customer"])) for _ in range(2)]
    assert [each["data"]["pay"]["idempotentReplay"] for each in answers if each] == [False, True]
    wallet = await api.data(
        '{ wallet(currency: "CNY") { balance { amountMinor } } }', token=person.token
    )
    assert wallet["wallet"]["balance"]["amountMinor"] == "99900"


async def test_the_idempotency_key_may_stand_in_the_document(
    callers: dict[str, Caller | None], shop: Shop
) -> None:
    given = {**paying(shop, 100), "idempotencyKey": ""}
    query = PAY.replace("$input: PayInput!", "$input: PayInput!, $key: String!").replace(
        "pay(input: $input)", "pay(input: $input) @idempotent(key: $key)"
    )
    for key in ("a-key-of-its-own", "short"):
        variables = {"input": given, "key": key}
        await ordinary(query, variables, callers["customer"])
        await same(query, variables, callers["customer"])
    both = {"input": {**given, "idempotencyKey": "another-key"}, "key": "a-key-of-its-own"}
    await same(query, both, callers["customer"])


async def test_roots_of_a_mutation_run_one_after_the_other(
    callers: dict[str, Caller | None], shop: Shop
) -> None:
    given = paying(shop, 100)
    query = """mutation($input: PayInput!) {
      first: pay(input: $input) { idempotentReplay order { id } }
      __typename
      second: pay(input: $input) { idempotentReplay order { id } userErrors { code } }
    }"""
    plan = PLANS.find(query, None)
    assert plan is not None
    found = await plan.run({"input": given}, context_for(callers["customer"]))
    assert found is not None
    assert list(found["data"]) == ["first", "__typename", "second"]
    assert [found["data"][key]["idempotentReplay"] for key in ("first", "second")] == [False, True]
    await same(query, {"input": given}, callers["customer"])


async def test_our_own_programs_have_plans() -> None:
    for _, text in own_documents():
        assert PLANS.find(text, None) is not None, text


def broken(seed: int, name: str, known: dict[Any, Any]) -> Any:
    """A method of `Loaders` that now and then gives what its field must not have, late or at once.

    What is real is read once and `known` from then on: two reads that race would tell nothing of
    the engines.
    """
    real = getattr(Loaders, name)

    async def method(self: Any, *arguments: Any) -> Any:
        key = (name, str(self.caller), *map(str, arguments))
        if key not in known:
            known[key] = (await asyncio.gather(real(self, *arguments), return_exceptions=True))[0]
        kind = random.Random(f"{seed}{key[2:]}{name}").choice(KINDS if seed else ["real"])
        if kind in ("error", "busy", "late"):
            await asyncio.sleep(0)
        if kind in OUTCOMES:
            return raised(OUTCOMES[kind])
        return raised(known[key])

    return method


OUTCOMES: dict[str, Any] = {
    "none": None,
    "error": ValueError("one of our bugs"),
    "refusal": Forbidden(field=("id",)),
    "busy": ServerBusy(),
    "wrong": 7,
    "items": [None, ValueError("an error as a value"), object()],
}
KINDS = ["real", "real", "late", *OUTCOMES]


def raised(value: Any) -> Any:
    """The value; raised, where it is an error."""
    if isinstance(value, Exception):
        raise value.with_traceback(None)
    return value


LOADED = [
    "order", "operations", "attempts", "challenge", "decisions", "risk_outcome", "customer",
    "merchant", "merchant_name", "merchant_keys", "merchant_balances", "wallets", "wallet",
    "statement", "webhook_endpoint", "node",
]  # fmt: skip


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Breaks what both engines load in one and the same way for a seed; 0 breaks nothing."""
    known: dict[Any, Any] = {}

    def install(seed: int) -> None:
        names = {name: broken(seed, name, known) for name in LOADED}
        monkeypatch.setattr(contexts, "Loaders", type("Broken", (Loaders,), names))

    return install


async def test_errors_and_nulls_at_every_depth_answer_the_same(
    callers: dict[str, Caller | None], order: dict[str, Any], breaking: Callable[[int], None]
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    by_id = "query($id: ID!) { order(id: $id) { ...Everything } }" + EVERYTHING
    errors_count = 0
    queries: list[tuple[str, Any]] = [(by_id, {"id": order["id"]})]
    queries += [("{ orders(first: 2) { nodes { ...Everything } } }" + EVERYTHING, None)]
    queries += [(QUERIES[place], None) for place in (2, 4, 7, 21)]
    for step in range(30):
        breaking(seed + step if step else 0)
        for who in ("customer", "operator"):
            for query, variables in queries:
                found = await same(query, variables, callers[who])
                errors_count += len(found.get("errors", ()))
    assert errors_count > 50


@pytest.mark.parametrize("who", ["nobody", "customer", "operator"])
async def test_documents_made_from_the_schema_answer_the_same(
    callers: dict[str, Caller | None],
    order: dict[str, Any],
    person: Person,
    shop: Shop,
    breaking: Callable[[int], None],
    who: str,
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    known = [order["id"], person.node_id, shop.node_id, "x"]
    planned = 0
    for step, query in enumerate(documents_made(seed, known, 60)):
        breaking(0)
        expected = await ordinary(query, None, callers[who])
        plan = PLANS.find(query, None)
        if plan is None:
            assert "data" not in expected, query
            continue
        planned += 1
        await same(query, None, callers[who], in_order=False)
        breaking(seed + step + 1)
        await same(query, None, callers[who], in_order=False)
    assert planned > 30


async def test_costs_are_those_of_the_document(
    callers: dict[str, Caller | None], order: dict[str, Any]
) -> None:
    for query, given in VARIABLES:
        plan = PLANS.find(query, None)
        assert isinstance(plan, Plan)
        for variables in given:
            result = await SCHEMA.execute(
                query,
                variable_values=variables,
                context_value=context_for(callers["operator"]),
            )
            assert result.extensions is not None
            cost = result.extensions["cost"]
            requested = plan.requested_cost(variables)
            assert cost["requested"] == requested
            if result.data is not None:
                assert cost["actual"] == min(requested, plan.actual_cost(result.data))


def test_plans_are_bounded() -> None:
    plans = Plans(SCHEMA, Validation.sensitive)
    for number in range(300):
        plans.find(f"query Q{number} {{ __typename }}", None)
        plans.find(f"query Q{number} {{ nothing }}", None)
    assert len(plans._others) == 256
    assert plans.find("{ __typename #" + "x" * 20_000 + "\n}", None) is None

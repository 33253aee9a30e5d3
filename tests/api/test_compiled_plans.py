"""A plan answers as the ordinary engine does, byte for byte: on documents that nobody thought of.

The schema here has what makes engines differ: interfaces and unions, lists in lists, resolvers that
wait and that do not, nulls and errors wherever a type forbids and wherever it allows them.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Annotated, Any

import orjson
import pytest
import strawberry
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from strawberry.dataloader import DataLoader
from strawberry.extensions import MaxTokensLimiter
from strawberry.schema.config import StrawberryConfig

from core.errors import NotFound
from resolvers.plans import Plans
from resolvers.root import PurserSchema
from schema.limits import TOKENS_MAX
from schema.scalars import SCALARS, BigInt
from tests.api.writer import Writer

LITERALS = {
    "Int": ("0", "1", "2", "-7"),
    "String": ('"a"', '"Grüße"', '""'),
    "BigInt": ("5", '"90071992547409931"'),
    "Boolean": ("true", "false"),
    "ID": ('"one"', "2"),
}
WRONG = (None, 1.5, "x", True, [], [None], {}, {"text": 1}, {"unknown": 1}, -(2**40), [[1]])


@dataclass
class Log:
    """The context of an operation: what was loaded together, and what was done in which order."""

    done: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loader: DataLoader[int, int] = DataLoader(self._load)

    async def _load(self, keys: list[int]) -> Sequence[int | BaseException]:
        self.done.append(("loaded", tuple(keys)))
        await asyncio.sleep(0)
        return [KeyError(key) if key % 7 == 0 else key * 2 for key in keys]


@strawberry.enum
class Mood(enum.Enum):
    CALM = "calm"
    WILD = "wild"


@strawberry.input
class Inner:
    text: str = "fallback"
    numbers: list[int] | None = None
    mood: Mood | None = None


@strawberry.input(one_of=True)
class Either:
    number: strawberry.Maybe[int]
    text: strawberry.Maybe[str]


@strawberry.input
class Filter:
    inner: Inner
    either: Either | None = None
    inners: list[Inner] | None = None
    maybe: strawberry.Maybe[str | None]
    big: BigInt = BigInt(3)


def outcome(seed: int, salt: str, value: Any, *, wrong: Any = None) -> Any:
    """The value, or now and then an error, None or something of another type."""
    return random.Random(f"{seed}{salt}").choice(
        [value] * 7 + [None, NotFound(), KeyError(), wrong]
    )


def raised(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


@strawberry.interface
class Thing:
    seed: strawberry.Private[int]
    name: str
    nickname: str | None

    @strawberry.field
    async def friend(self) -> Thing | None:
        await asyncio.sleep(0)
        return raised(outcome(self.seed, "friend", thing(self.seed + 1), wrong=5))

    @strawberry.field
    def number(self, add: int = 1) -> int:
        return raised(outcome(self.seed, "number", self.seed + add, wrong=2**40))


@strawberry.type
class Owner:
    seed: strawberry.Private[int]
    age: int
    big: BigInt | None

    @strawberry.field
    async def loaded(self, info: strawberry.Info) -> int:
        return await info.context.loader.load(self.seed)

    @strawberry.field
    async def perhaps_loaded(self, info: strawberry.Info[Log, None]) -> int | None:
        return await info.context.loader.load(self.seed + 1)


@strawberry.type
class Cat(Thing):
    lives: int | None
    mood: Mood
    grid: list[list[int | None]]
    required_grid: list[list[int]] | None
    owner: Owner
    owners: list[Owner | None] | None

    @strawberry.field
    async def friends(self, first: int | None = 2) -> list[Thing]:
        await asyncio.sleep(0)
        return [
            raised(outcome(self.seed, "f", thing(self.seed + n + 2))) for n in range(first or 1)
        ]


@strawberry.type
class Dog(Thing):
    owner: Owner | None
    toys: list[str]

    @strawberry.field
    async def pets(self, info: strawberry.Info[Log, None]) -> list[Pet | None]:
        info.context.done.append(info.path.key)
        return [outcome(self.seed, f"p{n}", thing(self.seed + n + 3)) for n in range(2)]


Pet = Annotated[Cat | Dog, strawberry.union("Pet")]


def thing(seed: int) -> Any:
    if seed % 2:
        return Dog(
            seed=seed,
            name=outcome(seed, "name", f"dog {seed}"),
            nickname=outcome(seed, "nick", "n", wrong=[]),
            owner=outcome(seed, "owner", owner(seed)),
            toys=outcome(seed, "toys", ["ball", outcome(seed, "toy", "bone")], wrong=5),
        )
    grid = [[1, outcome(seed, "item", 2)], outcome(seed, "row", [])]
    return Cat(
        seed=seed,
        name=outcome(seed, "name", f"cat {seed}"),
        nickname=outcome(seed, "nick", None),
        lives=outcome(seed, "lives", 9, wrong="nine"),
        mood=outcome(seed, "mood", Mood.CALM, wrong="WILD"),
        grid=outcome(seed, "grid", grid),
        required_grid=outcome(seed, "required", grid),
        owner=outcome(seed, "owner", owner(seed)),
        owners=outcome(seed, "owners", [owner(seed), outcome(seed, "last", owner(seed + 1))]),
    )


def owner(seed: int) -> Any:
    return Owner(
        seed=seed, age=outcome(seed, "age", 40, wrong="x"), big=outcome(seed, "big", BigInt(2**60))
    )


@strawberry.type
class Query:
    @strawberry.field
    async def thing(self, seed: int, info: strawberry.Info) -> Thing | None:
        info.context.done.append(("thing", seed, sorted(info.variable_values)))
        return thing(seed % 50)

    @strawberry.field
    def pet(self, seed: int | None = 4) -> Pet | None:
        return thing((seed or 0) % 50)

    @strawberry.field
    async def cats(self, first: int = 3) -> list[Cat]:
        return [thing(2 * (each % 25)) for each in range(first)]

    @strawberry.field
    async def required_owner(self, seed: int) -> Owner:
        return raised(outcome(seed, "root", owner(seed)))

    @strawberry.field
    async def told(
        self, given: Filter | None = None, ids: list[strawberry.ID] | None = None
    ) -> str:
        return repr((given, ids))

    @strawberry.field
    def selected(self, info: strawberry.Info, mood: Mood = Mood.WILD) -> str:
        return f"{mood} {info.selected_fields} {info.field_name} {info.operation.operation}"


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def add(self, info: strawberry.Info, number: int) -> int | None:
        await asyncio.sleep(0)
        info.context.done.append(number)
        return raised(outcome(number, "add", number))

    @strawberry.mutation
    async def required(self, info: strawberry.Info, given: Either) -> Cat:
        info.context.done.append(repr(given))
        return thing(len(info.context.done) * 2)


SCHEMA = PurserSchema(
    Query,
    Mutation,
    types=[Cat, Dog],
    config=StrawberryConfig(scalar_map=SCALARS, disable_field_suggestions=True),
    extensions=[lambda: MaxTokensLimiter(max_token_count=TOKENS_MAX)],
)


@pytest.fixture(autouse=True, scope="module")
def one_error_id() -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("resolvers.faults.ids", SimpleNamespace(new_id=lambda: "the id"))
        patched.setattr("resolvers.faults.log", SimpleNamespace(error=lambda *_, **__: None))
        yield


async def both(document: str, variables: dict[str, Any]) -> tuple[Any, Any]:
    """What the plan and the ordinary engine answer and do; None from a plan that did not run."""
    plan = Plans(SCHEMA, frozenset()).find(document, None)
    assert plan is not None, document
    first, second = Log(), Log()
    answer: Any = await plan.run(variables, first)  # type: ignore[arg-type]
    result = await SCHEMA.execute(document, variables, context_value=second)
    for _ in range(10):
        # What was begun beside an error is let go on, unheard.
        await asyncio.sleep(0)
    ordinary: dict[str, Any] = {"data": result.data}
    if result.errors:
        ordinary["errors"] = [each.formatted for each in result.errors]
    if answer is None:
        assert first.done == [], "where the ordinary engine must answer, nothing ran before it"
        return None, (orjson.dumps(ordinary), second.done)
    return (orjson.dumps(answer), first.done), (orjson.dumps(ordinary), second.done)


def written(choose: Callable[[int], int]) -> tuple[str, Writer]:
    writer = Writer(SCHEMA._schema, choose, LITERALS)
    kind = ("query", "query", "query", "mutation")[choose(4)]
    root = SCHEMA._schema.mutation_type if kind == "mutation" else SCHEMA._schema.query_type
    assert root is not None
    return writer.operation(kind, root), writer


def values_for(writer: Writer, choose: Callable[[int], int]) -> dict[str, Any]:
    """Raw values for the variables: right ones mostly, now and then a wrong one or none."""
    made: dict[str, Any] = {}
    for name, type_ in writer.variables.items():
        if not choose(6):
            continue
        right: dict[str, Any] = {
            "Boolean": bool(choose(2)),
            "Int": choose(9),
            "Filter": {"inner": {"numbers": [choose(5)]}, "maybe": None},
            "Either": {"text": "t"} if choose(2) else {"number": 3},
            "[ID!]": ["x", 3],
            "Mood": "CALM",
        }
        known = right[type_.split(" ")[0].removesuffix("!")]
        made[name] = WRONG[choose(len(WRONG))] if not choose(8) else known
    return made


# An engine that cancels siblings of a required field in error leaves their resolvers unasked.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
@example(random.Random(1))
def test_a_plan_answers_as_the_ordinary_engine(chooser: random.Random) -> None:
    document, writer = written(chooser.randrange)
    if not Plans(SCHEMA, frozenset()).is_valid(document):
        return
    planned, ordinary = asyncio.run(both(document, values_for(writer, chooser.randrange)))
    assert planned is None or planned == ordinary, document


@pytest.mark.parametrize(
    ("document", "variables"),
    [
        ("query($n: Int!) { thing(seed: $n) { name } }", {"n": "1"}),
        ("query($n: Int!) { thing(seed: $n) { name } }", {}),
        ("query($n: Int!) { thing(seed: $n) { name } }", {"n": None}),
        ("query($n: Int!) { thing(seed: $n) { name } }", {"n": 2**31}),
        ("query($f: Filter) { told(given: $f) }", {"f": {"inner": {"text": 1}}}),
        ("query($f: Filter) { told(given: $f) }", {"f": {"inner": {}, "unknown": 1}}),
        ("query($f: Filter) { told(given: $f) }", {"f": {"inner": {"mood": "SAD"}}}),
        ("query($f: Filter) { told(given: $f) }", {"f": {"inner": {}, "either": {}}}),
        (
            "query($f: Filter) { told(given: $f) }",
            {"f": {"inner": {}, "either": {"number": 1, "text": "a"}}},
        ),
        ("query($yes: Boolean = true) { cats { lives @skip(if: $yes) } }", {"yes": None}),
    ],
)
async def test_where_variables_are_wrong_the_ordinary_engine_finds_the_words(
    document: str, variables: dict[str, Any]
) -> None:
    planned, ordinary = await both(document, variables)
    assert planned is None
    assert b"errors" in ordinary[0]


@pytest.mark.parametrize(
    "given",
    [
        {"inner": {}},
        {"inner": {"text": "t", "numbers": None, "mood": "WILD"}, "big": "90071992547409931"},
        {"inner": {"numbers": 5}, "inners": {"text": "one"}, "maybe": None},
        {"inner": {}, "inners": [{"numbers": [1, 2]}, {}], "maybe": "m", "either": {"text": "e"}},
        {"inner": {}, "inners": [], "either": {"number": 1}, "big": 5},
        None,
    ],
)
async def test_inputs_reach_a_resolver_as_strawberry_would_make_them(given: Any) -> None:
    whole = await both("query($f: Filter) { told(given: $f) }", {"f": given})
    assert whole[0] is not None
    assert whole[0] == whole[1]
    if given is not None:
        parts = "query($i: Inner!) { told(given: { inner: $i, maybe: null }) }"
        nested = await both(parts, {"i": given["inner"]})
        assert nested[0] is not None
        assert nested[0] == nested[1]


@pytest.mark.parametrize(
    "document",
    [
        "{ __schema { queryType { name } } }",
        '{ __type(name: "Cat") { name } }',
        "{ cats { name",
        "{ unknown }",
        "query A { __typename } query B { __typename } { __typename }",
        "query(" + ", ".join(f"$c{n}: Boolean!" for n in range(5)) + ") { cats { lives "
        "@skip(if: $c0) @include(if: $c1) name @skip(if: $c2) mood @skip(if: $c3) "
        "nickname @skip(if: $c4) } }",
        "{ __typename } #" + "x" * 20_000,
    ],
)
def test_a_document_that_no_plan_can_answer_has_none(document: str) -> None:
    assert Plans(SCHEMA, frozenset()).find(document, None) is None


async def test_plans_make_room_for_each_other_and_trusted_ones_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("resolvers.plans.PLANS_MAX", 3)
    plans = Plans(SCHEMA, frozenset())
    plans.trust(["{ __typename }"])
    trusted, other = plans.find("{ __typename }", None), plans.find("{ a: __typename }", None)
    for number in range(5):
        plans.find(f"{{ b{number}: __typename }}", None)
    assert plans.find("{ __typename }", None) is trusted
    assert plans.find("{ a: __typename }", None) is not other


async def test_the_operation_is_chosen_by_its_name() -> None:
    plans = Plans(SCHEMA, frozenset())
    document = "query A { a: __typename } query B { b: __typename }"
    for name, expected in (("A", "a"), ("B", "b"), (None, "a")):
        plan = plans.find(document, name)
        assert plan is not None
        answer = await plan.run({}, Log())  # type: ignore[arg-type]
        assert answer == {"data": {expected: "Query"}}
    assert plans.find(document, "C") is None
    assert plans.find(document, "") is None


async def test_a_plan_serves_many_requests_at_once_and_keeps_nothing_of_them() -> None:
    document = "query($n: Int!, $yes: Boolean!) { thing(seed: $n) { name number @skip(if: $yes) } }"
    plan = Plans(SCHEMA, frozenset()).find(document, None)
    assert plan is not None
    given = [{"n": number, "yes": number % 3 == 0} for number in range(50)]
    answers = await asyncio.gather(
        *(plan.run(each, Log()) for each in given)  # type: ignore[arg-type]
    )
    alone = [await plan.run(each, Log()) for each in given]  # type: ignore[arg-type]
    assert answers == alone
    assert len({str(each) for each in answers}) > 20

"""Webhooks: signed, in order, tried again, ended, replayed; and each merchant's own."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from core import clock, ids
from core.errors import Forbidden, InvalidArgument, NotFound
from core.principal import Principal
from payments import webhook_delivery, webhooks
from payments.webhook_delivery import RETRY_SECONDS
from tests.workers.conftest import (
    Counter,
    Receiver,
    add_event,
    dispatching,
    end_leases,
    until,
    working,
)
from workers.claims import claim_due
from workers.inline import run_due
from workers.jobs import DELIVERIES_PER_MERCHANT_MAX, JOBS, run

JOB = "deliver_webhook"


async def event_of(shop: Principal, **changes: Any) -> uuid.UUID:
    return await add_event(
        changes.pop("job", JOB), merchant_id=shop.id, payload={"order": {"state": "X"}}, **changes
    )


@pytest.fixture
async def secret(shop: Principal, receiver: Receiver) -> str:
    """The secret of the shop's endpoint, which is the receiver."""
    made = await webhooks.set_endpoint(shop, receiver.url)
    assert made.secret is not None
    return made.secret


async def test_an_event_arrives_signed_and_in_the_standard_form(
    database: Any, shop: Principal, receiver: Receiver, secret: str
) -> None:
    order_id = ids.new_id()
    event_id = await event_of(shop, resource_id=order_id, resource_version=3)
    assert await run_due() == 1
    ((headers, body),) = receiver.received
    verified = Webhook(secret).verify(body, headers)
    assert verified == json.loads(body)
    assert headers["webhook-id"] == verified["id"] == str(event_id)
    assert set(verified) == {
        "id", "type", "created", "resource", "resource_version", "data", "api_version",
    }  # fmt: skip
    assert verified["type"] == "order.succeeded"
    assert verified["resource"] == {"kind": "order", "id": ids.node_id("Order", order_id)}
    assert verified["resource_version"] == 3
    assert verified["data"] == {"order": {"state": "X"}}
    datetime.fromisoformat(verified["created"])
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body.replace(b'"X"', b'"Y"'), headers)
    (row,) = await database.fetch("SELECT * FROM webhook_delivery")
    assert (row["outcome"], row["status_code"], row["reply"]) == ("DELIVERED", 200, "heard")
    assert (row["try_number"], row["event_id"]) == (1, event_id)
    assert await run_due() == 0


async def test_the_secret_is_shown_once_and_stored_sealed(
    database: Any, shop: Principal, receiver: Receiver, secret: str
) -> None:
    assert secret.startswith("whsec_")
    (row,) = await database.fetch("SELECT w::text AS text FROM webhook_endpoint w")
    assert secret[6:20] not in row["text"]
    again = await webhooks.set_endpoint(shop, receiver.url + "/other")
    assert again.secret is None
    assert again.endpoint.url.endswith("/other")
    assert secret not in repr(again)
    await event_of(shop)
    await run_due()
    headers, body = receiver.received[0]
    Webhook(secret).verify(body, headers)


async def test_both_secrets_verify_while_one_replaces_the_other(
    database: Any, shop: Principal, receiver: Receiver, secret: str
) -> None:
    rotated = await webhooks.rotate_secret(shop)
    assert rotated.secret not in (None, secret)
    assert rotated.secret is not None
    await event_of(shop)
    await run_due()
    headers, body = receiver.received[-1]
    assert len(headers["webhook-signature"].split(" ")) == 2
    Webhook(secret).verify(body, headers)
    Webhook(rotated.secret).verify(body, headers)

    await database.fetch("UPDATE webhook_endpoint SET previous_secret_until = now()")
    await event_of(shop)
    await run_due()
    headers, body = receiver.received[-1]
    Webhook(rotated.secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers)


async def test_events_of_one_resource_arrive_in_order_of_their_version(
    database: Any, shop: Principal, receiver: Receiver, secret: str
) -> None:
    order_id = ids.new_id()
    written = [
        await event_of(shop, resource_id=order_id, resource_version=version)
        for version in (3, 1, 2)
    ]
    receiver.answers = [500]
    await run_due(10)
    assert receiver.event_ids == [str(written[1])]
    await end_leases(database)
    await run_due(10)
    assert receiver.event_ids == [str(written[place]) for place in (1, 1, 2, 0)]


async def test_many_workers_keep_the_order_too(
    database: Any, shop: Principal, receiver: Receiver, secret: str
) -> None:
    orders = [ids.new_id() for _ in range(4)]
    for version in range(1, 6):
        for order_id in orders:
            await event_of(shop, resource_id=order_id, resource_version=version)
    for _ in range(20):
        await asyncio.gather(*(run_due(3) for _ in range(6)))
        await end_leases(database)
    versions: dict[str, list[int]] = {}
    for _, body in receiver.received:
        document = json.loads(body)
        versions.setdefault(document["resource"]["id"], []).append(document["resource_version"])
    assert {tuple(each) for each in versions.values()} == {(1, 2, 3, 4, 5)}


async def test_an_event_that_is_being_delivered_is_not_made_due_by_the_one_before_it(
    database: Any, shop: Principal, receiver: Receiver, secret: str
) -> None:
    order_id = ids.new_id()
    for version in (1, 2):
        await event_of(shop, resource_id=order_id, resource_version=version)
    first, second = sorted(await claim_due(2), key=lambda claim: claim.event_id)
    await run(first, JOBS)  # the second one is claimed already, and made due once more
    receiver.pause_seconds = 0.2
    delivering = asyncio.create_task(run(second, JOBS))
    await until(lambda: len(receiver.received) == 2)
    assert await claim_due(1) == []
    await delivering
    assert await run_due() == 0
    assert len(receiver.received) == 2


async def test_an_event_that_was_claimed_again_is_left_to_its_new_holder(
    database: Any, shop: Principal, receiver: Receiver, secret: str
) -> None:
    await event_of(shop)
    (old,) = await claim_due(1)
    await end_leases(database)
    (new,) = await claim_due(1)
    await run(old, JOBS)
    assert receiver.received == []
    await run(new, JOBS)
    assert len(receiver.received) == 1


async def test_another_resource_does_not_wait(
    database: Any, shop: Principal, receiver: Receiver, secret: str
) -> None:
    receiver.answers = [500]
    await event_of(shop)
    other = await event_of(shop)
    await run_due(10)
    assert receiver.event_ids[1:] == [str(other)]


async def test_a_delivered_event_lets_the_next_one_go_at_once(
    database: Any, shop: Principal, receiver: Receiver, secret: str
) -> None:
    order_id = ids.new_id()
    receiver.answers = [503]
    await event_of(shop, resource_id=order_id, resource_version=1)
    await event_of(shop, resource_id=order_id, resource_version=2)
    await run_due(10)
    await database.fetch("UPDATE outbox SET due_at = now() WHERE resource_version = 1")
    await run_due(10)
    assert len(receiver.received) == 3


@pytest.mark.parametrize("status", [300, 302, 400, 404, 429, 500, 503])
async def test_anything_but_a_2xx_is_a_failure_and_is_tried_again(
    database: Any, shop: Principal, receiver: Receiver, secret: str, status: int
) -> None:
    receiver.answers = [status]
    await event_of(shop)
    await run_due()
    (row,) = await database.fetch("SELECT outcome, status_code FROM webhook_delivery")
    assert tuple(row) == ("FAILED", status)
    (row,) = await database.fetch("SELECT extract(epoch FROM due_at - now())::float FROM outbox")
    assert 14 < row[0] < 18
    await end_leases(database)
    await run_due()
    assert len(receiver.received) == 2
    assert receiver.received[0][1] == receiver.received[1][1]


async def test_a_receiver_that_is_away_is_a_failure_with_a_reason(
    database: Any, shop: Principal, receiver: Receiver, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.fetch("UPDATE webhook_endpoint SET url = 'https://127.0.0.1/hook'")
    await event_of(shop)
    await run_due()
    (row,) = await database.fetch("SELECT status_code, reply FROM webhook_delivery")
    assert tuple(row) == (None, "URL_REFUSED")


async def test_the_whole_schedule_is_kept_and_then_the_event_ends(
    database: Any, shop: Principal, receiver: Receiver, secret: str
) -> None:
    assert len(RETRY_SECONDS) == 15
    assert sum(RETRY_SECONDS) == 24 * 3_600 + 4 * 60
    receiver.answer_always = 500
    await event_of(shop)
    for pause_seconds in RETRY_SECONDS:
        assert await run_due() == 1
        (row,) = await database.fetch(
            "SELECT extract(epoch FROM due_at - now())::float FROM outbox"
        )
        assert pause_seconds - 2 <= row[0] <= pause_seconds * 1.2
        await end_leases(database)
    assert await run_due() == 1
    await end_leases(database)
    assert await run_due() == 0
    assert len(receiver.received) == 16
    timestamps = await database.fetch(
        "SELECT array_agg(try_number ORDER BY delivered_at) FROM webhook_delivery"
    )
    assert timestamps[0][0] == list(range(1, 17))
    (row,) = await database.fetch("SELECT state, failures_count FROM webhook_endpoint")
    assert tuple(row) == ("ENABLED", 1)


async def lose_for_good(database: Any) -> None:
    """Use up the schedule of every event but for its last try, and make that."""
    await database.fetch("UPDATE outbox SET tries_count = 15, due_at = now() WHERE done_at IS NULL")
    await run_due(100)


async def test_ten_events_lost_in_a_row_disable_the_endpoint_with_one_notice(
    database: Any, shop: Principal, receiver: Receiver, secret: str
) -> None:
    receiver.answer_always = 500
    for _ in range(9):
        await event_of(shop)
    await lose_for_good(database)
    receiver.answers = [200]
    await event_of(shop)
    await run_due()
    endpoint = await webhooks.endpoint_of(shop)
    assert endpoint is not None
    assert (endpoint.state, endpoint.failures_count) == ("ENABLED", 0)
    for _ in range(12):
        await event_of(shop)
    sent_before = len(receiver.received)
    await lose_for_good(database)
    endpoint = await webhooks.endpoint_of(shop)
    assert endpoint is not None
    assert endpoint.state == "FAILED"
    assert len(receiver.received) == sent_before + 10, "what comes after is not sent"
    notices = await database.fetch("SELECT payload FROM outbox WHERE topic = 'webhook.disabled'")
    assert len(notices) == 1
    audited = await database.fetch(
        "SELECT facts FROM audit_log WHERE action = 'WEBHOOK_ENDPOINT_DISABLED'"
    )
    assert len(audited) == 1


async def test_a_410_disables_the_endpoint_at_once(
    database: Any, shop: Principal, receiver: Receiver, secret: str
) -> None:
    receiver.answers = [410]
    await event_of(shop)
    await event_of(shop)
    await run_due(10)
    endpoint = await webhooks.endpoint_of(shop)
    assert endpoint is not None
    assert endpoint.state == "GONE"
    assert len(receiver.received) == 1
    assert await run_due() == 0


async def test_what_happened_while_disabled_can_be_replayed(
    database: Any, shop: Principal, receiver: Receiver, secret: str
) -> None:
    since = clock.now() - timedelta(minutes=1)
    await webhooks.disable_endpoint(shop)
    order_id = ids.new_id()
    skipped = await event_of(shop, resource_id=order_id, resource_version=1)
    never_queued = await event_of(shop, job=None, resource_id=order_id, resource_version=2)
    await event_of(shop, job=None, topic="operation.accepted")
    await event_of(shop, job="finish_operation", topic="operation.accepted", delay_seconds=900)
    await run_due(10)
    assert not receiver.received
    with pytest.raises(NotFound):
        await webhooks.replay_event(shop, skipped)
    await webhooks.set_endpoint(shop, receiver.url)
    until = clock.now() + timedelta(minutes=1)
    assert await webhooks.replay_between(shop, since, until) == 2
    await run_due(10)
    assert receiver.event_ids == [str(skipped), str(never_queued)]


async def test_an_event_is_replayed_with_its_old_id_and_a_new_schedule(
    database: Any, shop: Principal, receiver: Receiver, secret: str
) -> None:
    event_id = await event_of(shop)
    receiver.answer_always = 500
    await lose_for_good(database)
    receiver.answer_always = 200
    assert await webhooks.replay_event(shop, event_id) == 1
    receiver.answers = [500]
    await run_due()
    await end_leases(database)
    await run_due()
    await end_leases(database)
    assert await run_due() == 0
    assert receiver.event_ids == [str(event_id)] * 3
    rows = await database.fetch(
        "SELECT outcome, try_number FROM webhook_delivery ORDER BY try_number"
    )
    assert [tuple(row) for row in rows] == [("FAILED", 1), ("FAILED", 2), ("DELIVERED", 3)]


async def test_a_replay_during_a_delivery_is_not_swallowed_by_it(
    database: Any, shop: Principal, receiver: Receiver, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_id = await event_of(shop)
    real = webhook_delivery.egress.post
    replays: list[int] = []

    async def post(*arguments: Any) -> Any:
        reply = await real(*arguments)
        if not replays:
            replays.append(await webhooks.replay_event(shop, event_id))
        return reply

    monkeypatch.setattr(webhook_delivery.egress, "post", post)
    await run_due(10)
    assert replays == [1]
    assert receiver.event_ids == [str(event_id)] * 2


async def test_the_reply_is_kept_up_to_two_kilobytes_whatever_it_holds(
    database: Any, shop: Principal, receiver: Receiver, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def post(*_: Any) -> Any:
        return webhook_delivery.egress.Reply(status=500, body=b"\x00\xff" * 4_000, duration_ms=1)

    monkeypatch.setattr(webhook_delivery.egress, "post", post)
    await event_of(shop)
    await run_due()
    (row,) = await database.fetch("SELECT reply FROM webhook_delivery")
    assert row["reply"] == "\ufffd\ufffd" * 1_024


async def test_a_merchant_cannot_replay_or_see_what_is_anothers(
    database: Any, shop: Principal, receiver: Receiver, secret: str
) -> None:
    other = Principal("merchant", ids.new_id())
    event_id = await event_of(shop)
    await run_due()
    await webhooks.set_endpoint(other, receiver.url)
    with pytest.raises(NotFound):
        await webhooks.replay_event(other, event_id)
    long_ago, later = datetime(2000, 1, 1, tzinfo=UTC), clock.now() + timedelta(hours=1)
    assert await webhooks.replay_between(other, long_ago, later) == 0
    third = Principal("merchant", ids.new_id())
    assert await webhooks.endpoint_of(third) is None
    for refused in (webhooks.rotate_secret, webhooks.disable_endpoint):
        with pytest.raises(NotFound):
            await refused(third)
    with pytest.raises(Forbidden):
        await webhooks.set_endpoint(Principal("customer", ids.new_id()), receiver.url)


@pytest.mark.parametrize(
    "url", ["http://shop.example/", "https://127.0.0.1/", "https://localhost/", "nonsense", ""]
)
async def test_a_url_that_could_never_be_called_is_not_taken(
    database: Any, shop: Principal, url: str
) -> None:
    with pytest.raises(InvalidArgument):
        await webhooks.set_endpoint(shop, url)
    assert await webhooks.endpoint_of(shop) is None


async def test_a_range_that_ends_before_it_begins_is_refused(
    database: Any, shop: Principal, secret: str
) -> None:
    now = clock.now()
    with pytest.raises(InvalidArgument):
        await webhooks.replay_between(shop, now, now)


async def test_a_hanging_receiver_takes_a_quarter_of_the_places_and_delays_no_payment(
    database: Any, shop: Principal, receiver: Receiver, secret: str, valkey: str
) -> None:
    receiver.pause_seconds = 1.0
    for _ in range(60):
        await event_of(shop)
    counter = Counter()
    began = asyncio.get_running_loop().time()
    async with dispatching(), working(valkey, {**JOBS, **counter.jobs}):
        await until(lambda: receiver.connections_count)
        await add_event("count")
        await until(lambda: counter.runs)
        assert asyncio.get_running_loop().time() - began < 5
        await asyncio.sleep(0.5)
        assert receiver.connections_count <= 2 * DELIVERIES_PER_MERCHANT_MAX
        receiver.pause_seconds = 0.0
        await asyncio.sleep(1.0)

"""The jobs that an outbox row may name: each one call into the domain, and how its row ends.

A job may run twice and may die anywhere; what it calls sees to it that the effect comes once. A
broad `except` stands here, at the edge: a job that failed leaves its lease to run out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum, auto
from uuid import UUID

from channels import sms
from channels.contract import ResultKind
from core.crash import crash_point
from core.errors import PurserError
from identity import codes
from identity.codes import CodePurpose, IssuedCode
from payments.pipeline import finish_operation
from payments.webhook_delivery import deliver
from workers.claims import Claim, claim_run, mark_done, postpone

log = logging.getLogger(__name__)

RESEND_SECONDS = 5.0
DELIVERIES_PER_MERCHANT_MAX = 10
"""A quarter of a worker's places: a merchant whose server hangs leaves the others to the others."""

_PURPOSES = {
    CodePurpose.REGISTER: "to confirm your registration",
    CodePurpose.RESET_PASSWORD: "to set a new password",
    CodePurpose.RESET_PAYMENT_PASSWORD: "to set a new payment password",
    CodePurpose.CHALLENGE: "to confirm your payment",
}


_delivering: Counter[UUID] = Counter()
"""How many deliveries to each merchant this process is making."""


class Ending(Enum):
    """DONE: the row is finished. KEPT: the domain has set what becomes of the row. AGAIN: soon."""

    DONE = auto()
    KEPT = auto()
    AGAIN = auto()


Job = Callable[[Claim], Awaitable[Ending]]


async def run_queued(event_id: UUID, claims_count: int, jobs: Mapping[str, Job]) -> None:
    """What a worker does with a job of its queue: claim its row, then run it. Never raises."""
    try:
        claim = await claim_run(event_id, claims_count)
    except PurserError as error:
        log.warning("event %s not claimed: %s", event_id, error.code)
        return
    if claim is None:
        log.info("event %s is done or in other hands", event_id)
        return
    crash_point("job_claimed")
    await run(claim, jobs)


async def run(claim: Claim, jobs: Mapping[str, Job]) -> None:
    """Run the job of a claimed row and write how it ended. Never raises, except when cancelled."""
    try:
        ending = await jobs[claim.job](claim)
        crash_point("job_run")
        if ending is Ending.DONE:
            await mark_done(claim)
        elif ending is Ending.AGAIN:
            await postpone(claim, RESEND_SECONDS)
    except PurserError as error:
        log.warning("job %s of event %s: %s", claim.job, claim.event_id, error.code)
    except Exception:
        log.exception("job %s of event %s broke", claim.job, claim.event_id)


async def _finish_operation(claim: Claim) -> Ending:
    await finish_operation(UUID(str(claim.payload["operation_id"])))
    return Ending.DONE


async def _deliver_webhook(claim: Claim) -> Ending:
    assert claim.merchant_id is not None
    if _delivering[claim.merchant_id] >= DELIVERIES_PER_MERCHANT_MAX:
        return Ending.AGAIN
    _delivering[claim.merchant_id] += 1
    try:
        await deliver(claim.event_id, claim.merchant_id, claim.claims_count)
    finally:
        _delivering[claim.merchant_id] -= 1
        if not _delivering[claim.merchant_id]:
            del _delivering[claim.merchant_id]
    return Ending.KEPT


async def _send_code(claim: Claim) -> Ending:
    """Make a code and hand it to the provider of messages.

    The digits exist in this function alone. An outcome that is not known is tried again with other
    digits, which replace these; `identity` gives out three at most.
    """
    issued = await codes.issue(claim.resource_id)
    if issued is None:
        return Ending.DONE
    result = await sms.send(issued.destination.value, _text_of(issued))
    if result.kind in (ResultKind.SUCCESS, ResultKind.DECLINED):
        return Ending.DONE
    log.warning("code %s not sent: %s", claim.resource_id, result.reason)
    return Ending.AGAIN


def _text_of(issued: IssuedCode) -> str:
    minutes = issued.expires_seconds // 60
    return (
        f"{issued.code} is your code {_PURPOSES[issued.purpose]}."
        f" It is good for {minutes} minutes. Never tell it to anyone."
    )


JOBS: Mapping[str, Job] = {
    "finish_operation": _finish_operation,
    "send_code": _send_code,
    "deliver_webhook": _deliver_webhook,
}

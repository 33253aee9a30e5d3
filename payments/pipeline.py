"""The way of a payment, from top to bottom, in seven steps.

    1 validate_parameters   2 choose_route   3 assess_risk   4 generate_order     accept_operation
    5 invoke_channel        6 update_order   7 publish                            finish_operation

Steps 1 to 3 read and decide with no transaction open; step 4 is the one commit of phase A. Step 5
calls the channel with no transaction open, after the attempt was committed; step 6 is the one
commit of phase B; what step 7 delivers was written by it. `finish_operation` is the only road to a
final state of what was accepted: worker, callback, sweeper and operator all take it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import assert_never
from uuid import UUID

import orjson

from core.crash import crash_point
from core.errors import OperationNotSupported
from core.trace import span
from payments import challenges, closing, invoking, refunds, reviews
from payments.assessing import assess_risk, subject_of
from payments.group import Known, Member, Selector
from payments.idempotency import Key, idempotency, secret_digest
from payments.opening import generate_order, met_again
from payments.rounds import Plan, Planning, decide_and_commit
from payments.routing import choose_route
from payments.validation import validate_parameters
from payments.values import (
    Answer,
    AnswerChallenge,
    CloseOrder,
    DecideReview,
    OpenOrder,
    RefundOrder,
    Request,
)
from risk_model.assessment import profile_keys


async def accept_operation(request: Request) -> Answer:
    """Steps 1 to 4 of any operation; local ones are booked in the same commit.

    The answer is what was committed, with a typed refusal where the business said no; the same key
    and input bring the same answer again. Raises a `PurserError` for input that is wrong in itself,
    which is not stored, and `Busy` or `OutcomeUnknown` when the database is away.
    """
    match request:
        case OpenOrder():
            answer = await _open(request)
        case RefundOrder():
            answer = await _follow(request, "REFUND", _refund_input(request))
        case CloseOrder():
            answer = await _follow(request, "CLOSE", {"order_id": str(request.order_id)})
        case DecideReview():
            answer = await _follow(request, "REVIEW", _review_input(request))
        case AnswerChallenge():
            answer = await challenges.answer_challenge(request)
        case _:
            assert_never(request)
    crash_point("accepted")
    return answer


async def finish_operation(operation_id: UUID) -> None:
    """Steps 5 to 7: whatever is still missing for this operation, once, however often it is called.

    An operation that was never sent is sent; one whose answer was lost is queried, never sent again
    without proof. Raises nothing that a channel does; `Busy` when the database is away.
    """
    await invoking.finish(operation_id)


async def _open(request: OpenOrder) -> Answer:
    with span("prepare"):
        key = idempotency(
            request.caller, request.type.value, request.idempotency_key, _open_input(request)
        )
        selector = Selector(
            principal=request.caller,
            idempotency_id=key.idempotency_id,
            merchant_id=request.merchant_id,
            merchant_order_no=request.merchant_order_no,
            payee_customer_id=request.payee_customer_id,
            profile_keys=profile_keys(subject_of(request)),
            passwordless_currency=request.money.currency,
        )

    def plan(known: Known) -> Planning:
        module, details = validate_parameters(request, known)
        if known.order is not None:
            return met_again(request, known, details, key)
        route = choose_route(module.PRODUCT, request.type, request.money)
        assessed = yield from assess_risk(request, known, module)
        crash_point("before_phase_a")
        return generate_order(request, known, module, details, route, assessed, key)

    return await _decided(selector, plan, key)


async def _follow(
    request: RefundOrder | CloseOrder | DecideReview, name: str, canonical: dict[str, object]
) -> Answer:
    key = idempotency(request.caller, name, request.idempotency_key, canonical)
    selector = Selector(
        principal=request.caller,
        idempotency_id=key.idempotency_id,
        order_id=request.order_id,
        refund_number=request.refund_number if isinstance(request, RefundOrder) else None,
    )

    def plan(known: Known) -> Member:
        crash_point("before_phase_a")
        match request:
            case RefundOrder():
                return refunds.refund(request, known, key)
            case CloseOrder():
                return closing.close(request, known, key)
            case DecideReview():
                return reviews.decide_review(request, known, key)

    return await _decided(selector, plan, key)


async def _decided(selector: Selector, plan: Plan, key: Key) -> Answer:
    answer = await decide_and_commit(selector, plan, input_hash=key.input_hash)
    if answer is None:
        raise OperationNotSupported()
    return answer


def _open_input(request: OpenOrder) -> dict[str, object]:
    """The canonical input: everything the caller chose, nothing that the server made."""
    return {
        "merchant_id": str(request.merchant_id),
        "merchant_order_no": request.merchant_order_no,
        "amount_minor": request.money.amount_minor,
        "currency": request.money.currency,
        "product": request.product,
        "details": secret_digest(_details_text(request)),
        "description": request.description,
        "payee": str(request.payee_customer_id),
        "return_url": request.return_url,
        "effective_at": request.effective_at.isoformat() if request.effective_at else None,
    }


def _details_text(request: OpenOrder) -> str | None:
    """Details may name a bank account: only a keyed digest of them is kept with the key."""
    if request.unchecked_details is None:
        return None
    return orjson.dumps(asdict(request.unchecked_details)).decode()


def _refund_input(request: RefundOrder) -> dict[str, object]:
    return {
        "order_id": str(request.order_id),
        "refund_number": request.refund_number,
        "amount_minor": request.money.amount_minor if request.money else None,
        "currency": request.money.currency if request.money else None,
        "description": request.description,
    }


def _review_input(request: DecideReview) -> dict[str, object]:
    return {
        "order_id": str(request.order_id),
        "accept": request.accept,
        "reason": request.reason,
    }

"""Reviews: an analyst's verdict on an order that risk put aside. Nothing was sent meanwhile."""

from __future__ import annotations

from dataclasses import replace

from core import audit
from core.errors import Forbidden, NotFound, OperationNotSupported
from payments.assessing import verdict_row
from payments.group import Effects, Known, Member
from payments.idempotency import Key
from payments.opening import let_through, proof_after_review, turned_away
from payments.states import OrderState
from payments.values import DecideReview

DECLINED = "REVIEW_DECLINED"


def decide_review(request: DecideReview, known: Known, idempotency: Key | None) -> Member:
    """Accept: the order goes on where it stopped, or asks the payer for the proof that is missing.
    Decline: it fails and what it held is released.

    Raises `NotFound` and `OperationNotSupported`; only an operator decides.
    """
    order = known.order
    if request.caller.kind != "operator":
        raise Forbidden()
    if order is None:
        raise NotFound("There is no such order.", field=("orderId",))
    if order.state is not OrderState.IN_REVIEW:
        raise OperationNotSupported("This order is not in review.", field=("orderId",))
    if known.refused is not None:
        done = Effects(order=order, refusal=known.refused, writes_order=False)
        return Member(
            principal=request.caller,
            order_id=order.order_id,
            expected_version=order.version,
            idempotency=idempotency,
            done=done,
        )
    if request.accept:
        done = proof_after_review(known, order) or let_through(known, order)
    else:
        done = turned_away(known, order, DECLINED)
    verdict = audit.row_of(
        request.caller,
        "REVIEW_ACCEPTED" if request.accept else "REVIEW_DECLINED",
        f"order:{order.order_id}",
        reason=request.reason,
    )
    return Member(
        principal=request.caller,
        order_id=order.order_id,
        expected_version=order.version,
        idempotency=idempotency,
        done=replace(done, audits=(verdict,), decisions=(verdict_row(request, order),)),
        answers_refusal=True,
    )

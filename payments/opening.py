"""Opening an order: its generation with all its endings, and what a number met again means.

Step 4 of phase A for PAY, TOP_UP, TRANSFER and PAYOUT. Nothing here waits or writes; the
pipeline commits the member that `generate_order` returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any

from core import configuration, ids, outbox
from core.errors import (
    AlreadyPaid,
    OrderClosed,
    OrderParamMismatch,
    PurserError,
    RiskBlocked,
    error_classes,
)
from core.money import fee_minor
from core.records import changed
from identity import codes
from payments import update
from payments.assessing import Assessed
from payments.group import Effects, Known, Member
from payments.idempotency import Key
from payments.notices import finish_event, order_event
from payments.product import Event, Interaction, Movement
from payments.products import payout
from payments.products.registry import product_module
from payments.routing import Route
from payments.states import (
    OPENING_TYPES,
    ChallengeState,
    OperationState,
    OperationType,
    OrderState,
    PayoutProgress,
)
from payments.values import Challenge, OpenOrder, Operation, Order
from risk_model import assessment as risk
from wallet.ledger import Entry

FIRST_STAGE = "PRE_AUTH"
DISPATCH_DEADLINE_SECONDS = 15


def met_again(
    request: OpenOrder,
    known: Known,
    details: dict[str, Any],
    idempotency: Key | None,
) -> Member:
    """The order number is taken: the same order for the same body, else `OrderParamMismatch`."""
    order = known.order
    assert order is not None
    same = (
        order.type is request.type
        and order.product == request.product
        and order.amount_minor == request.money.amount_minor
        and order.currency == request.money.currency
        and order.payee_customer_id == request.payee_customer_id
        and (request.caller.kind == "merchant" or order.payer_customer_id == request.caller.id)
        and (
            request.type is not OperationType.PAYOUT
            or payout.destination(order.details) == payout.destination(details)
        )
    )
    if not same:
        raise OrderParamMismatch(field=("merchantOrderNo",))
    refusal: PurserError | None = None
    if order.state is OrderState.SUCCEEDED:
        refusal = AlreadyPaid(field=("merchantOrderNo",))
    elif order.state is OrderState.FAILED:
        refusal = _failure_of(order)
    return Member(
        principal=request.caller,
        order_id=order.order_id,
        expected_version=order.version,
        idempotency=idempotency,
        done=Effects(
            order=order,
            operation=opening_operation(known.operations),
            refusal=refusal,
            writes_order=False,
        ),
    )


def _failure_of(order: Order) -> PurserError:
    """The refusal that ended the order; other reasons only say that it has ended."""
    known = error_classes().get(order.failure_reason or "")
    return known() if known else OrderClosed()


def generate_order(
    request: OpenOrder,
    known: Known,
    module: ModuleType,
    details: dict[str, Any],
    route: Route | None,
    assessed: Assessed,
    idempotency: Key | None,
) -> Member:
    """Order, operation, decision, profiles, key, hold or postings, and outbox row, for one commit.

    Where the books have refused it, the order fails with their reason and is kept. ALLOW of a local
    product books at once; of a channel product it leaves the operation to the dispatcher. CHALLENGE
    and REVIEW hold the money; BLOCK is committed as FAILED, for the labels.
    """
    order, operation = _new(request, known, details)
    decision = risk.decision_row(
        assessed.assessment,
        decision_id=ids.new_id(),
        order_id=order.order_id,
        stage=FIRST_STAGE,
        attempt=1,
        merchant_id=order.merchant_id,
        customer_id=order.payer_customer_id,
        subject=assessed.subject,
    )
    plan = _Plan(request, known.now, module, order, operation, route)
    outcome = assessed.assessment.outcome
    if known.refused is not None and outcome != "BLOCK":
        done = plan.refused(known.refused)
    elif outcome == "BLOCK":
        done = plan.blocked()
    elif outcome == "REVIEW":
        done = plan.reviewed()
    elif outcome == "CHALLENGE" or assessed.asks_proof:
        done = plan.challenged()
    else:
        done = plan.allowed()
    done = changed(
        done,
        decisions=(decision,),
        profiles=assessed.assessment.profiles,
        passwordless_use=assessed.passwordless_use if known.refused is None else None,
    )
    return Member(
        principal=request.caller,
        order_id=order.order_id,
        expected_version=None,
        idempotency=idempotency,
        done=done,
        answers_refusal=True,
    )


def _challenge(order: Order, now: datetime) -> Challenge:
    assert order.payer_customer_id is not None
    seconds = configuration.current().challenge_seconds
    return Challenge(
        challenge_id=ids.new_id(),
        order_id=order.order_id,
        merchant_id=order.merchant_id,
        customer_id=order.payer_customer_id,
        binding=binding_of(order),
        state=ChallengeState.PENDING.value,
        wrong_count=0,
        expires_at=now + timedelta(seconds=seconds),
        created_at=now,
    )


def opening_operation(operations: tuple[Operation, ...]) -> Operation:
    """The operation that opened the order."""
    return next(each for each in operations if each.type in OPENING_TYPES)


def binding_of(order: Order) -> str:
    """What a challenge is bound to: order, amount, currency and payee; any change voids it."""
    payee = order.payee_customer_id or order.merchant_id
    return codes.binding_of(order.order_id, order.amount_minor, order.currency, payee)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The endings that one new order may have; each returns what it writes."""

    request: OpenOrder
    now: Any
    module: ModuleType
    order: Order
    operation: Operation
    route: Route | None

    def allowed(self) -> Effects:
        if self.route is None:
            order, operation = update.succeeded(self.order, self.operation, self.now)
            return self._effects(order, operation, self._entry(Event.BOOKED))
        if self.order.payout_progress is not None:
            order = update.cleared(self.order, self.now)
            entry = self._entry(Event.HELD)
        else:
            order, entry = self.order, None
        finish = finish_event(self.operation, order.version)
        return changed(self._effects(order, self.operation, entry), events=(finish,))

    def challenged(self) -> Effects:
        order = update.asks_proof(self.order, self.now)
        effects = self._effects(order, self._waiting(), self._held())
        return changed(effects, challenges=(_challenge(order, self.now),))

    def reviewed(self) -> Effects:
        seconds = configuration.current().review_seconds
        order = update.in_review(self.order, self.now)
        order = changed(order, expires_at=self.now + timedelta(seconds=seconds))
        return self._effects(order, self._waiting(), self._held())

    def blocked(self) -> Effects:
        order, operation = update.failed(self.order, self.operation, "RISK_BLOCKED", self.now)
        return changed(self._effects(order, operation, None), refusal=RiskBlocked())

    def refused(self, refusal: PurserError) -> Effects:
        """The ending that the books have chosen."""
        order, operation = update.failed(self.order, self.operation, refusal.code, self.now)
        return changed(self._effects(order, operation, None), refusal=refusal)

    def _effects(self, order: Order, operation: Operation, entry: Entry | None) -> Effects:
        return Effects(
            order=order,
            operation=operation,
            operations=(operation,),
            entry=entry,
            public_events=(order_event(order, operation),),
        )

    def _waiting(self) -> Operation:
        """Nothing is due for it until the payer or the analyst has spoken."""
        return changed(self.operation, next_check_at=None)

    def _held(self) -> Entry | None:
        """A local payment and a payout hold the money meanwhile; a top-up has nothing to hold."""
        held = self.route is None or self.order.payout_progress is not None
        return self._entry(Event.HELD) if held else None

    def _entry(self, event: Event) -> Entry:
        movement = Movement(
            order=self.order,
            operation=self.operation,
            amount_minor=self.order.amount_minor,
            fee_minor=self.operation.fee_minor,
            channel=self.route.channel if self.route else None,
        )
        return entry_of(event, movement, self.module)


def let_through(known: Known, order: Order) -> Effects:
    """A passed challenge or an accepted review: the order goes on where it stopped.

    A local payment is booked from its hold; a channel's operation goes to the dispatcher.
    """
    opening = opening_operation(known.operations)
    started = update.next_version(order, known.now)
    module = product_module(order.product)
    entry: Entry | None = None
    events: tuple[outbox.Event, ...] = ()
    if order.type in module.PRODUCT.channel_kinds:
        done = update.cleared(started, known.now)
        operation = changed(opening, next_check_at=known.now, updated_at=known.now)
        events = (finish_event(operation, done.version),)
    else:
        done, operation = update.succeeded(started, opening, known.now)
        movement = Movement(
            order=order,
            operation=opening,
            amount_minor=order.amount_minor,
            fee_minor=opening.fee_minor,
        )
        entry = entry_of(Event.HOLD_BOOKED, movement, module)
    return Effects(
        order=done,
        operation=operation,
        operations=(operation,),
        entry=entry,
        events=events,
        public_events=(order_event(done, operation),),
    )


def proof_after_review(known: Known, order: Order) -> Effects | None:
    """An analyst's yes is not the payer's own: over the small amount the proof is asked for now.

    What was held stays held. None where the product asks for none.
    """
    interaction = product_module(order.product).PRODUCT.interactions[order.type]
    limit_minor = configuration.current().small_amount_limit_minor
    if (
        interaction is not Interaction.PROOF_OVER_SMALL_AMOUNT
        or order.amount_minor <= limit_minor
        or known.challenge is not None
    ):
        return None
    opening = opening_operation(known.operations)
    asked = update.asks_proof(update.next_version(order, known.now), known.now)
    return Effects(
        order=asked,
        operation=opening,
        challenges=(_challenge(asked, known.now),),
        public_events=(order_event(asked, opening),),
    )


def turned_away(known: Known, order: Order, reason: str) -> Effects:
    """A failed challenge or a declined review: the order fails, what it held is released."""
    opening = opening_operation(known.operations)
    started = update.next_version(order, known.now)
    done, operation = update.failed(started, opening, reason, known.now)
    return Effects(
        order=done,
        operation=operation,
        operations=(operation,),
        entry=release_entry(order, opening),
        public_events=(order_event(done, operation),),
    )


def release_entry(order: Order, opening: Operation) -> Entry | None:
    """The entry that releases what was held for the order; None where nothing was."""
    module = product_module(order.product)
    held = order.payout_progress is not None or (
        order.state in (OrderState.REQUIRES_ACTION, OrderState.IN_REVIEW)
        and order.type not in module.PRODUCT.channel_kinds
    )
    if not held:
        return None
    movement = Movement(order=order, operation=opening, amount_minor=order.amount_minor)
    return entry_of(Event.HOLD_RELEASED, movement, module)


def entry_of(event: Event, movement: Movement, module: ModuleType) -> Entry:
    """The journal entry of one event of an operation; its id is the same on every run."""
    order, operation = movement.order, movement.operation
    return Entry(
        entry_id=ids.derived_id(operation.operation_id, event.value),
        kind=f"{operation.type.value}_{event.value}",
        actions=tuple(module.movements(event, movement)),
        order_id=order.order_id,
        operation_id=operation.operation_id,
        merchant_id=order.merchant_id,
        effective_at=order.effective_at if order.effective_at != order.created_at else None,
        description=operation.description,
    )


def _new(request: OpenOrder, known: Known, details: dict[str, Any]) -> tuple[Order, Operation]:
    settings = configuration.current()
    merchant = known.merchant
    assert merchant is not None
    payer = request.caller.id if request.caller.kind == "customer" else None
    charged = request.type is OperationType.PAY
    rate = merchant["fee_rate_millionths"] if charged else 0
    order = Order(
        order_id=ids.new_id(),
        version=1,
        merchant_id=request.merchant_id,
        merchant_order_no=request.merchant_order_no,
        type=request.type,
        product=request.product,
        state=OrderState.CREATED,
        currency=request.money.currency,
        amount_minor=request.money.amount_minor,
        fee_rate_millionths=rate,
        payout_progress=(PayoutProgress.CREATED if request.type is OperationType.PAYOUT else None),
        payer_customer_id=payer,
        payee_customer_id=request.payee_customer_id,
        description=request.description,
        details=details,
        return_url=request.return_url,
        effective_at=request.effective_at or known.now,
        expires_at=known.now + timedelta(seconds=settings.order_expiry_seconds),
        created_at=known.now,
        updated_at=known.now,
    )
    operation = Operation(
        operation_id=ids.new_id(),
        order_id=order.order_id,
        merchant_id=order.merchant_id,
        payer_customer_id=order.payer_customer_id,
        payee_customer_id=order.payee_customer_id,
        type=request.type,
        operation_number=request.merchant_order_no,
        state=OperationState.CREATED,
        amount_minor=order.amount_minor,
        currency=order.currency,
        fee_minor=fee_minor(order.amount_minor, rate),
        description=request.description,
        next_check_at=known.now + timedelta(seconds=DISPATCH_DEADLINE_SECONDS),
        created_at=known.now,
        updated_at=known.now,
    )
    return order, operation

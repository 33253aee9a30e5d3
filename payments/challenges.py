"""Challenges: the payer's extra proof, by payment password or one-time code.

A challenge is bound to order, amount, currency and payee. Three wrong answers end the order. A
proof is checked before anything is committed, in a phase of its own that counts it; what it unlocks
is committed with the order's next version.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID
from weakref import WeakValueDictionary

from core import configuration
from core.errors import (
    ChallengeFailed,
    CredentialsInvalid,
    InvalidArgument,
    NotFound,
    OperationNotSupported,
    PurserError,
)
from core.principal import Principal
from core.records import changed
from identity import codes, payment_password
from identity.codes import CodePurpose
from payments import update
from payments.group import Effects, Known, Member, Selector, read
from payments.idempotency import Key, idempotency, secret_digest
from payments.opening import binding_of, let_through, opening_operation, turned_away
from payments.rounds import decide_and_commit
from payments.states import ChallengeState, OrderState
from payments.values import Answer, AnswerChallenge, Challenge, Order

WRONG_ANSWERS_MAX = 3

_answering: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
"""Answers to one order are judged one after another, so that the same right code sent many times at
once is one right answer and not many wrong ones."""


async def answer_challenge(request: AnswerChallenge) -> Answer:
    """Check the proof and go on with the order, or count a wrong answer.

    Raises for input that is wrong in itself and for a proof that is locked. A wrong answer is
    stored with its key.
    """
    if (request.unchecked_payment_password is None) == (request.unchecked_code is None):
        raise InvalidArgument("Give the payment password or the code.", field=("proof",))
    key = idempotency(
        request.caller,
        "CHALLENGE",
        request.idempotency_key,
        {
            "order_id": str(request.order_id),
            "payment_password": secret_digest(request.unchecked_payment_password),
            "code": secret_digest(request.unchecked_code),
        },
    )
    selector = Selector(
        principal=request.caller,
        idempotency_id=key.idempotency_id,
        order_id=request.order_id,
    )
    lock = _answering.setdefault(request.order_id, asyncio.Lock())
    async with lock:
        known = (await read([selector]))[0]
        proven = known.stored is None and await _is_proven(request, known)
        answer = await decide_and_commit(
            selector, lambda fresh: _answered(request, fresh, key, proven=proven),
            input_hash=key.input_hash,
        )  # fmt: skip
    assert answer is not None
    return answer


async def request_code(caller: Principal, order_id: UUID) -> codes.CodeRequest:
    """Send a one-time code for the order's challenge; an expired challenge is asked anew.

    Raises `NotFound`, `OperationNotSupported` where nothing is asked, `Throttled`.
    """
    assert caller.id is not None
    selector = Selector(principal=caller, order_id=order_id)
    known = (await read([selector]))[0]
    order, challenge = _open_challenge(known, caller)
    if challenge.expires_at <= known.now:
        await decide_and_commit(selector, lambda fresh: _renewed(fresh, caller))
    return await codes.request_code(
        caller.id,
        CodePurpose.CHALLENGE,
        resource_id=order_id,
        binding=binding_of(order),
        tries_max=WRONG_ANSWERS_MAX,
    )


async def _is_proven(request: AnswerChallenge, known: Known) -> bool:
    """Whether the proof is right. An order that asks for none, or no longer, is refused first.

    A code that is gone counts as no wrong answer: it may be the right one, used a moment ago by the
    same payer through another process, or by a try that found the database away.
    """
    order, challenge = _open_challenge(known, request.caller)
    if challenge.expires_at <= known.now:
        raise ChallengeFailed("The challenge has expired; ask for a new code.")
    if challenge.binding != binding_of(order):
        raise ChallengeFailed("The order has changed; ask for a new code.")
    customer_id = challenge.customer_id
    try:
        if request.unchecked_code is not None:
            await codes.check_code(
                customer_id,
                CodePurpose.CHALLENGE,
                request.unchecked_code,
                resource_id=order.order_id,
                binding=challenge.binding,
            )
        else:
            await payment_password.verify_payment_password(
                customer_id, request.unchecked_payment_password or ""
            )
    except codes.CodeGone:
        raise ChallengeFailed("The code is wrong or has expired; ask for a new one.") from None
    except CredentialsInvalid:
        return False
    return True


def _open_challenge(known: Known, caller: Principal) -> tuple[Order, Challenge]:
    order, challenge = known.order, known.challenge
    if order is None or order.payer_customer_id != caller.id:
        raise NotFound("There is no such order.", field=("orderId",))
    if (
        order.state is not OrderState.REQUIRES_ACTION
        or challenge is None
        or challenge.state != ChallengeState.PENDING
    ):
        raise OperationNotSupported("This order waits for no proof.", field=("orderId",))
    return order, challenge


def _answered(request: AnswerChallenge, known: Known, key: Key, *, proven: bool) -> Member:
    order, challenge = _open_challenge(known, request.caller)
    if not proven:
        effects = _wrong(known, order, challenge)
    elif known.refused is not None:
        effects = Effects(order=order, refusal=known.refused, writes_order=False)
    else:
        effects = _passed(known, order, challenge)
    return Member(
        principal=request.caller,
        order_id=order.order_id,
        expected_version=order.version,
        idempotency=key,
        done=effects,
        answers_refusal=True,
    )


def _passed(known: Known, order: Order, challenge: Challenge) -> Effects:
    passed = changed(challenge, state=ChallengeState.PASSED.value)
    return changed(let_through(known, order), challenges=(passed,))


def _wrong(known: Known, order: Order, challenge: Challenge) -> Effects:
    """One more wrong answer; the third ends the order and releases what it held."""
    count = challenge.wrong_count + 1
    left = WRONG_ANSWERS_MAX - count
    refusal: PurserError = ChallengeFailed(remaining_attempts=left)
    if left > 0:
        return Effects(
            order=update.next_version(order, known.now),
            operation=opening_operation(known.operations),
            challenges=(changed(challenge, wrong_count=count),),
            refusal=refusal,
        )
    failed = changed(challenge, wrong_count=count, state=ChallengeState.FAILED.value)
    effects = turned_away(known, order, ChallengeFailed.code)
    return changed(effects, challenges=(failed,), refusal=refusal)


def _renewed(known: Known, caller: Principal) -> Member:
    order, challenge = _open_challenge(known, caller)
    seconds = configuration.current().challenge_seconds
    renewed = changed(challenge, expires_at=known.now + timedelta(seconds=seconds))
    return Member(
        principal=caller,
        order_id=order.order_id,
        expected_version=order.version,
        done=Effects(order=update.next_version(order, known.now), challenges=(renewed,)),
    )

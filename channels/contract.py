"""What every channel takes and gives: instructions going out, results and callbacks coming back.

A channel's reply is a value, never an exception. `UNKNOWN` means that only this channel's own later
answer (query, callback, statement) tells what happened; nothing here ever turns it into a failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from core.money import Money


class InstructionKind(StrEnum):
    """Money in from a payer, or money out to a destination."""

    PAY_IN = "PAY_IN"
    PAY_OUT = "PAY_OUT"


class ResultKind(StrEnum):
    """What one call, query or callback told. Only the first three are the channel's verdict.

    `NOT_SENT`: the channel certainly did not act on this instruction; a query or a close that never
    left proves nothing about the instruction, so it is `UNKNOWN`. `NOT_FOUND`: it knows no such
    number (queries and closes only). `CLOSED`: the number is unpaid and can no longer be paid.
    """

    SUCCESS = "SUCCESS"
    PENDING = "PENDING"
    DECLINED = "DECLINED"
    NOT_SENT = "NOT_SENT"
    UNKNOWN = "UNKNOWN"
    NOT_FOUND = "NOT_FOUND"
    CLOSED = "CLOSED"


@dataclass(frozen=True, slots=True)
class AmountLimits:
    """The smallest and the largest amount of one instruction, in minor units, both allowed."""

    amount_minor_min: int
    amount_minor_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelProfile:
    """What a channel can do, what it costs, and how far its answers may be trusted.

    `limits` maps each currency it carries to its limits. A "no such number" counts as `NOT_SENT`
    only where `queries_consistent`, and only `not_found_final_seconds` after the instruction was
    sent. `success_may_be_withdrawn` names the kinds whose success can later turn into a failure (a
    payout that is returned). The payer can act for `payer_session_seconds` after the instruction.
    """

    code: str
    kinds: frozenset[InstructionKind]
    capabilities: frozenset[str]
    limits: Mapping[str, AmountLimits]
    fee_fixed_minor: int = 0
    fee_rate_millionths: int = 0
    has_close: bool = True
    queries_consistent: bool = False
    not_found_final_seconds: int = 30
    success_may_be_withdrawn: frozenset[InstructionKind] = frozenset()
    payer_session_seconds: int = 1_800
    call_timeout_seconds: float = 10.0
    resends_max: int = 3
    resend_after_seconds: int = 15

    @property
    def currencies(self) -> frozenset[str]:
        """The currencies that this channel carries."""
        return frozenset(self.limits)

    def carries(self, kind: InstructionKind, amount: Money) -> bool:
        """Whether this channel takes such an instruction at all."""
        limits = self.limits.get(amount.currency)
        return (
            kind in self.kinds
            and limits is not None
            and limits.amount_minor_min <= amount.amount_minor <= limits.amount_minor_max
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """The bank account that a payout goes to; the number is never shown by `repr`."""

    account_number: str = field(repr=False)
    holder_name: str = field(repr=False)
    bank_code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One order to a channel. A resend carries the same number and the same values.

    `notify_url` receives the callbacks; `return_url` is where the payer's browser goes afterwards
    and proves nothing. `destination` is given for `PAY_OUT` alone.
    """

    request_number: str
    kind: InstructionKind
    amount: Money
    description: str
    notify_url: str
    expires_at: datetime
    return_url: str | None = None
    destination: Destination | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the channel said, and whether it could be understood and verified.

    `amount_minor` and `currency` are what the channel moved or will move, for the caller to compare
    with its own row. `soft` says that the same instruction may succeed later (no funds, bank away),
    `retryable` that another channel may be tried. `raw` is the verified body as it came; where
    there is none, or it could not be verified, it is empty. `event_id` is set on callbacks alone:
    an answer to our own question is no event of the channel.
    """

    kind: ResultKind
    payer_must_act: bool = False
    action_url: str | None = None
    channel_trade_no: str | None = None
    reason: str | None = None
    retryable: bool = False
    soft: bool = False
    amount_minor: int | None = None
    currency: str | None = None
    occurred_at: datetime | None = None
    event_id: str | None = None
    raw: bytes = field(default=b"", repr=False)
    latency_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackEvent:
    """A verified callback: which number it is about and what it says of it (`result`).

    `event_id` is unique per channel; the channel repeats a callback under the same one.
    `parsed` is the body as a JSON object, fit to be stored.
    """

    channel: str
    event_id: str
    type: str
    request_number: str
    result: Result
    raw: bytes = field(repr=False)
    parsed: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """One booking of the channel's own statement; the amount is negative for money going out."""

    channel_trade_no: str
    request_number: str
    type: str
    amount_minor: int
    fee_minor: int
    currency: str
    booked_at: datetime


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The channel's exact confirmation of a callback, to be sent only after the commit."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Channel(Protocol):
    """A channel is a module with these names. `registry.py` refuses one that lacks any."""

    @property
    def CHANNEL(self) -> ChannelProfile: ...  # noqa: N802

    async def invoke(self, instruction: Instruction) -> Result:
        """Send the instruction, or send it again. Never raises."""

    async def query(self, request_number: str) -> Result:
        """Ask for the state of a number. Never raises."""

    async def close(self, request_number: str) -> Result:
        """End an unpaid number: `CLOSED`, or `SUCCESS` if it was already paid. Never raises."""

    def parse_callback(self, headers: Mapping[str, str], body: bytes) -> CallbackEvent:
        """Verify, then read. Raises `SignatureInvalid`, with one message for all causes."""

    def acknowledge(self, event: CallbackEvent) -> Acknowledgement:
        """What tells the channel to stop repeating this callback."""

    def parse_statement(self, content: bytes) -> list[StatementLine]:
        """The lines of a statement file; raises `InvalidArgument` if it is incomplete."""

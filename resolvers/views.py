"""Views: from what the domain returns to what the outside sees, field by field.

A field that is not named here never leaves the house, so that a new column cannot leak.
"""

from __future__ import annotations

from typing import Any

import strawberry

from core.models import OutboxRow
from identity.caller import Caller
from identity.customers import CustomerProfile
from identity.logins import Tokens
from identity.merchant_keys import KeyView
from identity.merchants import MerchantView
from payments.models import WebhookDeliveryRow, WebhookEndpointRow
from payments.settlement import Settlement
from payments.values import Attempt, Challenge, Operation, Order
from payments.webhooks import Endpoint
from risk_model.features import snapshot
from risk_model.models import Decision
from schema import books, orders, parties, risk, webhooks
from schema.enums import CallerKind, CustomerStatus, MerchantStatus, SignatureAlgorithm
from schema.money import money
from schema.node import node_id
from schema.scalars import BigInt, CurrencyCode, DateTime
from wallet import statements
from wallet.verify import Report

CHALLENGE_ANSWERS_MAX = 3


def order(value: Order, caller: Caller) -> orders.Order:
    """An order; what concerns the merchant's money alone is not shown to a payer."""
    currency = value.currency
    for_merchant = caller.customer_id is None
    return orders.Order(
        id=node_id("Order", value.order_id),
        key=value.order_id,
        merchant_key=value.merchant_id,
        payer_key=value.payer_customer_id,
        resource_version=BigInt(value.version),
        merchant_order_no=value.merchant_order_no,
        type=value.type,
        product=value.product,
        state=value.state,
        amount=money(value.amount_minor, currency),
        captured=money(value.captured_minor, currency),
        refunded=money(value.refunded_minor, currency),
        refund_pending=money(value.refund_pending_minor, currency),
        refundable=money(value.refundable_minor, currency),
        fee=money(value.fee_minor, currency) if for_merchant else None,
        fee_refunded=money(value.fee_refunded_minor, currency) if for_merchant else None,
        fee_rate_millionths=value.fee_rate_millionths if for_merchant else None,
        suspense=money(value.suspense_minor, currency) if for_merchant else None,
        refund_progress=value.refund_progress,
        payout_progress=value.payout_progress,
        settlement_progress=value.settlement_progress,
        description=value.description,
        action_url=value.action_url,
        return_url=value.return_url,
        failure_reason=value.failure_reason,
        closed_by=value.closed_by,
        needs_attention=value.needs_attention if for_merchant else None,
        effective_at=DateTime(value.effective_at),
        expires_at=DateTime(value.expires_at),
        created_at=DateTime(value.created_at),
        updated_at=DateTime(value.updated_at),
    )


def operation(value: Operation, caller: Caller) -> orders.Operation:
    for_merchant = caller.customer_id is None
    return orders.Operation(
        id=node_id("Operation", value.operation_id),
        key=value.operation_id,
        type=value.type,
        operation_number=value.operation_number,
        state=value.state,
        amount=money(value.amount_minor, value.currency),
        fee=money(value.fee_minor, value.currency) if for_merchant else None,
        reason=value.reason,
        description=value.description,
        created_at=DateTime(value.created_at),
        updated_at=DateTime(value.updated_at),
    )


def attempt(value: Attempt) -> orders.Attempt:
    return orders.Attempt(
        id=node_id("Attempt", value.attempt_id),
        channel=value.channel,
        channel_request_number=value.channel_request_number,
        channel_trade_no=value.channel_trade_no,
        result=value.result,
        reason=value.reason,
        sends_count=value.sends_count,
        created_at=DateTime(value.created_at),
        updated_at=DateTime(value.updated_at),
    )


def challenge(value: Challenge) -> orders.Challenge:
    return orders.Challenge(
        id=node_id("Challenge", value.challenge_id),
        state=orders.ChallengeState(value.state),
        remaining_attempts=max(0, CHALLENGE_ANSWERS_MAX - value.wrong_count),
        expires_at=DateTime(value.expires_at),
    )


def decision(row: Decision) -> risk.Decision:
    """A stored decision, for those who may see what it was based on."""
    return risk.Decision(
        id=node_id("Decision", row.decision_id),
        outcome=risk.RiskOutcome(row.outcome),
        stage=row.stage,
        probability=row.probability,
        reason_codes=list(row.reason_codes),
        rules_fired=[str(rule) for rule in row.rules_fired],
        model_version=row.model_version,
        source=risk.DecisionSource(row.source),
        features=[
            risk.RiskFeature(name=name, value=value)
            for name, value in sorted(snapshot(row.features, row.feature_schema).items())
        ],
        latency_ms=row.latency_ms,
        decided_at=DateTime(row.decided_at),
    )


def customer(value: CustomerProfile) -> parties.Customer:
    return parties.Customer(
        id=node_id("Customer", value.customer_id),
        key=value.customer_id,
        status=CustomerStatus(value.status),
        phone=value.phone,
        email=value.email,
        display_name=value.display_name,
        has_payment_password=value.has_payment_password,
        created_at=DateTime(value.created_at),
    )


def merchant(value: MerchantView) -> parties.Merchant:
    return parties.Merchant(
        id=node_id("Merchant", value.merchant_id),
        key=value.merchant_id,
        name=value.name,
        status=MerchantStatus(value.status),
        fee_rate_millionths=value.fee_rate_millionths,
        currencies=[CurrencyCode(currency) for currency in value.currencies],
        payment_limit_minor=BigInt(value.payment_limit_minor),
        created_at=DateTime(value.created_at),
    )


def merchant_key(value: KeyView) -> parties.MerchantKey:
    return parties.MerchantKey(
        id=node_id("MerchantKey", value.key_id),
        key_id=str(value.key_id),
        algorithm=SignatureAlgorithm(value.algorithm),
        created_at=DateTime(value.created_at),
        expires_at=None if value.expires_at is None else DateTime(value.expires_at),
    )


def tokens(value: Tokens) -> parties.Tokens:
    return parties.Tokens(
        access_token=value.access_token,
        access_expires_at=DateTime(value.access_expires_at),
        refresh_token=value.refresh_token,
    )


def viewer(
    caller: Caller, customer: parties.Customer | None, merchant: parties.Merchant | None
) -> parties.Viewer:
    who = caller.operator_id
    return parties.Viewer(
        kind=CallerKind(caller.principal.kind),
        scopes=sorted(caller.scopes),
        signed=caller.signed,
        customer=customer,
        merchant=merchant,
        operator=None
        if who is None
        else parties.Operator(id=node_id("Operator", who), roles=sorted(caller.roles)),
    )


def wallet(account_id: Any, currency: str, value: statements.Balance) -> books.Wallet:
    return books.Wallet(
        id=node_id("Wallet", account_id),
        account_key=account_id,
        resource_version=BigInt(value.account_version),
        currency=CurrencyCode(currency),
        balance=money(value.posted_minor, currency),
        held=money(value.pending_minor, currency),
        available=money(value.available_minor, currency),
        frozen=value.frozen,
        ledger_version=value.ledger_version,
    )


def line(value: statements.Line, currency: str) -> books.StatementLine:
    return books.StatementLine(
        order_key=value.order_id,
        sequence=BigInt(value.sequence),
        amount=money(value.amount_minor, currency),
        balance_after=money(value.balance_after_minor, currency),
        kind=value.kind,
        description=value.description,
        recorded_at=DateTime(value.recorded_at),
        effective_at=DateTime(value.effective_at),
    )


def merchant_balance(merchant_id: Any, value: statements.MerchantBalance) -> books.MerchantBalance:
    currency = value.currency
    return books.MerchantBalance(
        merchant_key=merchant_id,
        currency=CurrencyCode(currency),
        available=money(value.available_minor, currency),
        pending_settlement=money(value.pending_settlement_minor, currency),
        frozen=money(value.frozen_minor, currency),
        reserved_payout=money(value.reserved_payout_minor, currency),
        in_transit=money(value.in_transit_minor, currency),
        debt=money(value.debt_minor, currency),
        as_of=DateTime(value.as_of),
        ledger_version=value.ledger_version,
    )


def settlement(value: Settlement) -> books.Settlement:
    return books.Settlement(
        id=node_id("Settlement", value.settlement_id),
        merchant_id=node_id("Merchant", value.merchant_id),
        amount=money(value.amount_minor, value.currency),
        created_at=DateTime(value.created_at),
    )


def ledger_integrity(value: Report) -> books.LedgerIntegrity:
    return books.LedgerIntegrity(
        clean=value.clean,
        entries_count=BigInt(value.entries_count),
        blocks_count=BigInt(value.blocks_count),
        unsealed_count=BigInt(value.unsealed_count),
        head_block_number=BigInt(value.head.block_number) if value.head else None,
        head_block_hash=value.head.block_hash if value.head else None,
        findings=[
            books.LedgerFinding(finding=each.finding, subject=each.subject, detail=each.detail)
            for each in value.findings
        ],
    )


def webhook_endpoint(row: WebhookEndpointRow | Endpoint) -> webhooks.WebhookEndpoint:
    until = row.previous_secret_until
    return webhooks.WebhookEndpoint(
        id=node_id("WebhookEndpoint", row.endpoint_id),
        url=row.url,
        state=webhooks.WebhookState(row.state),
        failures_count=row.failures_count,
        previous_secret_until=None if until is None else DateTime(until),
        updated_at=DateTime(row.updated_at),
    )


def webhook_event(row: OutboxRow) -> webhooks.WebhookEvent:
    return webhooks.WebhookEvent(
        id=node_id("WebhookEvent", row.event_id),
        key=row.event_id,
        event_id=str(row.event_id),
        type=row.topic,
        resource_version=BigInt(row.resource_version),
        created_at=DateTime(row.created_at),
    )


def webhook_delivery(row: WebhookDeliveryRow) -> webhooks.WebhookDelivery:
    return webhooks.WebhookDelivery(
        id=node_id("WebhookDelivery", row.delivery_id),
        try_number=row.try_number,
        outcome=row.outcome,
        status_code=row.status_code,
        reply=row.reply,
        duration_ms=row.duration_ms,
        delivered_at=DateTime(row.delivered_at),
    )


def payee(customer_id: Any, display_name_masked: str) -> parties.Payee:
    return parties.Payee(
        payee_id=strawberry.ID(node_id("Customer", customer_id)),
        display_name_masked=display_name_masked,
    )

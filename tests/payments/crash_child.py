"""A process that does one thing with a payment and may be told to die at a named place.

Run as `python -m tests.payments.crash_child`; what to do comes as JSON on the standard input.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import uuid
from pathlib import Path
from typing import Any

from core import configuration, hub, phase
from core.configuration import Configuration
from core.money import Money
from core.principal import Principal
from payments.callbacks import apply_callback
from payments.pipeline import accept_operation, finish_operation
from payments.states import OperationType
from payments.values import OpenOrder


def packed(values: Configuration, **changes: Any) -> dict[str, Any]:
    """A configuration as JSON values."""
    document: dict[str, Any] = {}
    for name in Configuration.__slots__:
        value = changes.get(name, getattr(values, name))
        if isinstance(value, bytes):
            value = {"bytes": base64.b64encode(value).decode()}
        document[name] = str(value) if isinstance(value, Path) else value
    return document


def unpacked(document: dict[str, Any]) -> Configuration:
    """What `packed` made of it."""
    values = {
        name: base64.b64decode(value["bytes"]) if isinstance(value, dict) else value
        for name, value in document.items()
    }
    values["risk_model_directory"] = Path(values["risk_model_directory"])
    values["webhook_loopback_addresses"] = tuple(values["webhook_loopback_addresses"])
    return Configuration(**values)


def as_json(request: OpenOrder) -> dict[str, Any]:
    """A request as JSON values."""
    return {
        "type": request.type.value,
        "caller": str(request.caller),
        "key": request.idempotency_key,
        "merchant_id": str(request.merchant_id),
        "number": request.merchant_order_no,
        "amount_minor": request.money.amount_minor,
    }


def request_of(document: dict[str, Any]) -> OpenOrder:
    """What `as_json` made of it."""
    return OpenOrder(
        type=OperationType(document["type"]),
        caller=Principal.parse(document["caller"]),
        idempotency_key=document["key"],
        merchant_id=uuid.UUID(document["merchant_id"]),
        merchant_order_no=document["number"],
        money=Money(document["amount_minor"], "CNY"),
        product="account",
    )


async def _run(task: dict[str, Any]) -> None:
    values = unpacked(task["configuration"])
    configuration.install(values)
    hub.connect(values.redis_url)
    await phase.connect(values.database_url, pool_size=2, application_name="crash-child")
    if task["do"] == "open":
        request = task["request"]
        await accept_operation(
            OpenOrder(
                type=OperationType(request["type"]),
                caller=Principal.parse(request["caller"]),
                idempotency_key=request["key"],
                merchant_id=uuid.UUID(request["merchant_id"]),
                merchant_order_no=request["number"],
                money=Money(request["amount_minor"], "CNY"),
                product="account",
            )
        )
    elif task["do"] == "finish":
        await finish_operation(uuid.UUID(task["operation_id"]))
    else:
        await apply_callback("bank", task["headers"], base64.b64decode(task["body"]))


if __name__ == "__main__":
    asyncio.run(_run(json.load(sys.stdin)))

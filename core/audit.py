"""The audit log: every act of an operator and every security event, append-only.

Facts are ids, counts and codes. A secret, a card number or a code never enters here.
"""

from __future__ import annotations

from typing import Any

from core import ids
from core.models import AuditRow
from core.phase import in_phase, phase
from core.principal import SYSTEM, Principal


async def record(
    actor: Principal | str, action: str, subject: str, outcome: str = "DONE", **facts: Any
) -> None:
    """Write one row in the phase that is open, so that act and record commit together."""
    await AuditRow.create(
        audit_id=ids.new_id(),
        actor=str(actor)[:64],
        action=action,
        subject=subject[:128],
        outcome=outcome,
        facts=facts,
    )


def row_of(
    actor: Principal, action: str, subject: str, outcome: str = "DONE", **facts: Any
) -> dict[str, Any]:
    """The row for the group functions, which write it in the commit of the act."""
    return {
        "audit_id": str(ids.new_id()),
        "actor": str(actor)[:64],
        "action": action,
        "subject": subject[:128],
        "outcome": outcome,
        "facts": facts,
    }


async def record_security_event(action: str, subject: str, outcome: str, **facts: Any) -> None:
    """Write a security event in a phase of its own: it survives the refusal it belongs to."""
    if in_phase():
        raise RuntimeError("a security event must not be undone with the phase it happened in")
    async with phase(SYSTEM):
        await record("anonymous", action, subject, outcome, **facts)

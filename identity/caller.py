"""Who a request comes from, as its token or signature proved it. Nothing else makes one."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from core.principal import Principal

CUSTOMER_SCOPE = "customer"
OPERATOR_SCOPE = "operator"
MERCHANT_READ_SCOPE = "merchant:read"
REPLAY_SCOPE = "replay"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A verified principal. `login_id` comes from a token, `key_id` from a signature, which sets
    `signed`.
    """

    principal: Principal
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    login_id: uuid.UUID | None = None
    key_id: uuid.UUID | None = None
    signed: bool = False
    expires_at: datetime | None = None
    """When the token ends: a socket that lives longer asks again."""

    @property
    def customer_id(self) -> uuid.UUID | None:
        """The customer's id, or None where somebody else calls."""
        return self.principal.id if self.principal.kind == "customer" else None

    @property
    def merchant_id(self) -> uuid.UUID | None:
        """The merchant's id, or None where somebody else calls."""
        return self.principal.id if self.principal.kind == "merchant" else None

    @property
    def operator_id(self) -> uuid.UUID | None:
        """The operator's id, or None where somebody else calls."""
        return self.principal.id if self.principal.kind == "operator" else None

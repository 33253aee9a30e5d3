"""What one operation carries: who asks, until when it may take, and fresh loaders.

A socket has one context for its whole life, so each operation gets a copy with loaders of its own:
a balance that was read for one must never be shown by the next.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import strawberry

from core import clock
from core.errors import Forbidden, Unauthenticated
from core.principal import Principal
from identity.caller import Caller
from resolvers.loaders import Loaders

DEADLINE_MS = 5_000


@dataclass(slots=True)
class RequestContext:
    """`client` is whose bucket pays; `token` is kept to look at again while a stream lives."""

    caller: Caller | None
    client: str
    load: Loaders
    deadline_ms: float
    token: str | None = field(default=None, repr=False)
    connection_params: dict[str, Any] | None = field(default=None, repr=False)
    authorization: str | None = field(default=None, repr=False)

    def for_operation(self) -> RequestContext:
        """The same caller with fresh loaders and the whole time again."""
        return replace(
            self, load=Loaders(self.caller), deadline_ms=clock.monotonic_ms() + DEADLINE_MS
        )

    @property
    def principal(self) -> Principal:
        """Who asks; raises `Unauthenticated` where nobody does."""
        if self.caller is None:
            raise Unauthenticated()
        return self.caller.principal

    @property
    def customer_id(self) -> uuid.UUID:
        """The customer who asks; raises `Forbidden` where somebody else does."""
        if self.asker.customer_id is None:
            raise Forbidden()
        return self.asker.customer_id

    @property
    def asker(self) -> Caller:
        """The verified caller; raises `Unauthenticated` where nobody asks."""
        if self.caller is None:
            raise Unauthenticated()
        return self.caller


def request_context(
    caller: Caller | None,
    address: str,
    *,
    token: str | None = None,
    authorization: str | None = None,
) -> RequestContext:
    """The context of a request from `address` (the peer's, for those who did not sign in)."""
    return RequestContext(
        caller=caller,
        client=str(caller.principal) if caller else f"address:{address}",
        load=Loaders(caller),
        deadline_ms=clock.monotonic_ms() + DEADLINE_MS,
        token=token,
        authorization=authorization,
    )


Info = strawberry.Info[RequestContext, None]

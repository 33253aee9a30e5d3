"""What the simulator needs to run. Its keys are the bank's own; of ours it knows the public one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from channels import signed_json


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """Durations in seconds. `time_factor` shrinks the callback schedule and the payout's delays.

    `public_url` is where payers' browsers reach this process. `return_seconds` is how long after
    its success a payout to an account ending in 04 is returned.
    """

    database_path: Path
    public_url: str
    bank_private_key: bytes = field(repr=False)
    client_public_key: bytes
    sms_key: bytes = field(repr=False)
    admin_token: str = field(repr=False)
    time_factor: float = 1.0
    payout_seconds: float = 1.0
    return_seconds: float = 5.0

    @property
    def client(self) -> str:
        """The name of the one client's key; each message to it carries this name."""
        return signed_json.key_name(signed_json.public_key_of(self.client_public_key))
